"""Study files: every field has a default but the pair, every mistake has a line, and what is written reads back."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from activations.errors import TwinprobeError
from activations.models import ModelSpec
from analyses.study.settings import EMBEDDED_TASKS, Study, embedded_study, read_study
from analyses.toml_files import to_toml
from probes.tasks import TASKS

SMALLEST = 'name = "mine"\n[pair]\nbase = "org/a"\ncode = "org/b"\n'


@pytest.fixture
def write(tmp_path: Path) -> Path:
    return tmp_path / "study.toml"


def refusal(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(TwinprobeError) as caught:
        read_study(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_the_embedded_study_runs_on_the_twins_and_the_null() -> None:
    study = read_study(embedded_study())
    assert study.name == "embedded"
    assert study.tasks.names == EMBEDDED_TASKS
    assert set(study.tasks.names) <= set(TASKS)
    specs = study.specs()
    assert {role: spec.name for role, spec in specs.items()} == {
        "base": "embedded:text", "code": "embedded:code", "second_seed": "embedded:text-seed2", "random": "embedded:text",
    }  # fmt: skip
    assert specs["random"].random_init == study.seed + 10_000
    assert specs["base"].random_init is None


def test_a_pair_is_all_a_study_needs(write: Path) -> None:
    write.write_text(SMALLEST)
    study = read_study(write)
    assert (study.compared.base, study.compared.code) == ("org/a", "org/b")
    assert list(study.specs()) == ["base", "code", "random"]
    assert study.tasks.names == EMBEDDED_TASKS
    assert set(study.tasks.names) <= set(TASKS)


def test_a_pair_of_the_registry_is_found_by_name(write: Path) -> None:
    write.write_text('name = "q"\n[pair]\nname = "qwen2.5-0.5b"\n')
    assert read_study(write).specs()["code"].name == "Qwen/Qwen2.5-Coder-0.5B"


def test_how_models_are_loaded_reaches_every_spec(write: Path) -> None:
    write.write_text(
        'name = "m"\nseed = 7\n'
        '[pair]\nbase = "a/a"\ncode = "b/b"\nnull = "n/n"\nbase_revision = "r1"\ncode_revision = "r2"\n'
        '[load]\ndtype = "bfloat16"\ndevice = "cuda:1"\nattention = "eager"\nallow_pickle = true\n'
    )
    common = {"dtype": "bfloat16", "device": "cuda:1", "attention": "eager", "allow_pickle": True}
    assert read_study(write).specs() == {
        "base": ModelSpec("a/a", "r1", **common),
        "code": ModelSpec("b/b", "r2", **common),
        "second_seed": ModelSpec("n/n", None, **common),
        "random": ModelSpec("a/a", "r1", **common, random_init=10_007),
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name = mine", ["not valid TOML"]),
        ('[pair]\nname = "embedded"\n', ["field 'name' is required"]),
        ('name = "a/b"\n[pair]\nname = "embedded"\n', ["field 'name'", "'a/b'"]),
        ('name = "mine"\n', ["field 'pair' is required"]),
        ('name = "mine"\n[pair]\n', ["[pair] needs either 'name' or both 'base' and 'code'"]),
        ('name = "mine"\n[pair]\nbase = "a"\n', ["[pair] needs either 'name' or both 'base' and 'code'"]),
        ('name = "mine"\n[pair]\nname = "embedded"\nbase = "a"\n', ["give one or the other"]),
        ('name = "mine"\n[pair]\nname = "embeded"\n', ["unknown pair 'embeded'", "did you mean 'embedded'"]),
        ('name = "mine"\n[pair]\nname = "codebert"\n', ["encoder pair", "causal language models"]),
        (SMALLEST + "sede = 1\n", ["unknown field 'pair.sede'", "known here: name, base, code, null"]),
        ("sede = 1\n" + SMALLEST, ["unknown field 'sede'", "did you mean 'seed'"]),
        (SMALLEST + "[probe]\n", ["unknown field 'probe'", "did you mean 'probes'"]),
        (SMALLEST + '[probes]\nsite = "embed"\n', ["unknown field 'probes.site'", "did you mean 'sites'"]),
        (SMALLEST + '[probes]\nstorage_dtype = "int8"\n', ["field 'probes.storage_dtype'", "'int8'"]),
        (SMALLEST + '[load]\nbos = "perhaps"\n', ["field 'load.bos'", "'auto', 'always' or 'never'", "'perhaps'"]),
        (SMALLEST + "[tasks]\nitems = 10\n", ["field 'tasks.items'", "greater than or equal to 40", "got 10"]),
        (SMALLEST + '[tasks]\nnames = ["nestin"]\n', ["unknown task 'nestin'", "did you mean 'nesting'"]),
        (SMALLEST + "[tasks]\nnames = []\n", ["field 'tasks.names'", "at least 1"]),
        (SMALLEST + '[tasks]\nnames = ["nesting", "nesting"]\n', ["'nesting'", "twice"]),
        (SMALLEST + "[statistics]\nresamples = 1\n", ["field 'statistics.resamples'", "got 1"]),
        ("seed = -1\n" + SMALLEST, ["field 'seed'", "greater than or equal to 0"]),
        ('seed = "one"\n' + SMALLEST, ["field 'seed'", "'one'"]),
        (SMALLEST + '[scores]\ncode = "absent.jsonl"\n', ["[scores]", "'absent.jsonl'", "JSONL"]),
        (SMALLEST + '[benchmarks]\npreset = "generate"\n', ["no preset 'generate'", "did you mean 'generated'"]),
        (SMALLEST + '[benchmarks]\ntasks = ["mmmlu"]\n', ["no task 'mmmlu'", "did you mean 'mmlu'"]),
        (SMALLEST + '[benchmarks]\ntasks = ["mmlu"]\n', ["[benchmarks] needs 'data'", "for mmlu"]),
        (SMALLEST + '[benchmarks]\ntasks = ["mmlu"]\ndata = "absent"\n', ["data 'absent' is no folder"]),
        (SMALLEST + "[benchmarks]\nlimit = -1\n", ["field 'benchmarks.limit'", "got -1"]),
    ],
)
def test_a_mistake_is_one_line_that_names_file_and_field(write: Path, text: str, expected: list[str]) -> None:
    message = refusal(write, text)
    for part in expected:
        assert part in message


def test_benchmarks_are_those_of_a_preset_or_tasks_or_none(write: Path) -> None:
    def chosen(text: str) -> list[tuple[str, int]]:
        write.write_text(SMALLEST + text)
        return [(setting.task, setting.shots) for setting in read_study(write).benchmarks.chosen()]

    assert chosen("") == []
    assert chosen('[benchmarks]\npreset = "generated"\nlimit = 0\n') == []
    assert chosen('[benchmarks]\ntasks = ["mmlu"]\nlimit = 0\n') == []
    assert len(chosen('[benchmarks]\npreset = "generated"\n')) == 7
    assert chosen('[benchmarks]\ntasks = ["generated_navigate"]\nshots = 2\n') == [("generated_navigate", 2)]
    assert chosen(f'[benchmarks]\ntasks = ["mmlu"]\ndata = "{write.parent}"\n') == [("mmlu", 5)]


def test_the_embedded_studies_ask_benchmarks_that_need_no_folder() -> None:
    small, full = (read_study(embedded_study(full=full)).benchmarks for full in (False, True))
    assert small.data is None and full.data is None
    assert small.chosen() == full.chosen() != []
    assert 0 < (small.limit or 0) < (full.limit or 0)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TwinprobeError, match=r"absent\.toml: no such file; expected a TOML file"):
        read_study(tmp_path / "absent.toml")


def test_a_resolved_study_reads_back_as_the_same_study(write: Path, tmp_path: Path) -> None:
    held_out = tmp_path / "held.jsonl"
    held_out.write_text("")
    write.write_text(
        'name = "m"\nseed = 3\n[pair]\nbase = \'C:\\a "model"\'\ncode = "böse/Zeile\\n"\nnull = "n"\n'
        '[tasks]\nnames = ["binding"]\nitems = 50\n[probes]\nstrengths = [1e-5, 2, 1e22]\nrandom_init = false\n'
        f'[patching]\nprompts = 0\n[scores]\ncode = "{held_out}"\n'
    )
    study = read_study(write)
    assert study.probes.strengths == (1e-5, 2.0, 1e22)
    resolved = tmp_path / "resolved.toml"
    resolved.write_text(to_toml(study))
    assert read_study(resolved) == study


def test_the_resolved_study_shows_every_default(write: Path) -> None:
    write.write_text(SMALLEST)
    shown = tomllib.loads(to_toml(read_study(write)))
    for table in ("load", "tasks", "probes", "patching", "scores", "statistics"):
        defaults = Study.model_fields[table].default.model_dump(mode="json")
        assert shown[table] == {field: value for field, value in defaults.items() if value is not None}
