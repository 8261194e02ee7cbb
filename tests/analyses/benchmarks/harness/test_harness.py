"""lm-evaluation-harness and ``bench run`` on the same questions: the same prompts, log-likelihoods, choices and scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from harness_files import ITEMS, write_bbh_prompts, write_questions
from tokenizers.processors import TemplateProcessing

from activations.models import LoadedModel, load_model
from analyses.benchmarks.imports import Wanted, import_logs
from analyses.benchmarks.local.questions import Asked, Part, Prompt, asked
from analyses.benchmarks.local.run import Job, scored
from analyses.benchmarks.local.tasks import TASKS, Setting
from analyses.benchmarks.local.writing import written
from analyses.benchmarks.multiple_choice import Item, score_choices

ABSENT = "lm-evaluation-harness is not installed: nothing is compared with it (pip install twinprobe[bench])"
lm_eval = pytest.importorskip("lm_eval", reason=ABSENT)

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.loggers import EvaluationTracker  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from analyses.benchmarks.harness.model import harness_model  # noqa: E402
from analyses.benchmarks.harness.run import Settings, run, table_of  # noqa: E402
from analyses.benchmarks.harness.tasks import Chosen, choose_tasks, load_tasks, task_manager  # noqa: E402

ROOTS = [Path(__file__).parents[depth] / "shared" / "data" for depth in (4, 5)]
CHOICES = (
    "arc_easy", "hellaswag", "winogrande", "mmlu_anatomy", "truthfulqa_mc1", "truthfulqa_mc2", "logiqa",
    "leaderboard_bbh_boolean_expressions",
)  # fmt: skip
WRITTEN = ("gsm8k", "bbh_fewshot_word_sorting")
SHOTS = 1
REAL = 3
"""Real questions of every task."""


def asked_by_us(task: str, data: Path, shots: int) -> list[Asked]:
    """The questions as ``bench run`` puts them, where the first examples are shown, in the order of the file."""
    benchmark, _, part = next(
        (ours, theirs, task.removeprefix(theirs))
        for theirs, ours in {"mmlu_": "mmlu", "leaderboard_bbh_": "bbh", "bbh_fewshot_": "bbh", task: task}.items()
        if task.startswith(theirs)
    )
    parts = [one for one in TASKS[benchmark].read(data) if one.subject == part or not part]
    if task.startswith("leaderboard_bbh"):
        # The harness' task has lost the empty line between description and first example.
        parts = [replace(one, description=one.description.rstrip("\n")) for one in parts]
    if task.startswith("truthfulqa"):
        shots = 0  # The harness' task refuses any other number.
        ordered = sorted((one for each in parts for one in each.questions), key=lambda one: int(one.id))
        parts = [replace(parts[0], subject=task, questions=tuple(ordered))]
    # Examples of the harness may be about the same passage, and a twin's.
    return asked([_first(one) for one in parts], shots)


def _first(part: Part) -> Part:
    return replace(part, questions=tuple(replace(one, group="") for one in part.questions), take="first")


def run_harness(
    names: Sequence[str], data: Path, loaded: LoadedModel, settings: Settings, out: Path
) -> dict[str, list[dict[str, Any]]]:
    """The harness' own samples of several tasks in one run, with the first examples."""
    manager, spec = spec_of(names, data)
    run(spec, manager, loaded, settings, out, lambda *_: None)
    paths = {path.name.removeprefix("samples_").rsplit("_", 1)[0]: path for path in out.rglob("samples_*.jsonl")}
    assert set(paths) == set(names)
    return {name: [json.loads(line) for line in path.read_text().splitlines()] for name, path in paths.items()}


def spec_of(names: Sequence[str], data: Path) -> tuple[TaskManager, Chosen]:
    """All tasks as one, with their first examples; BBH's tasks bring theirs with them, in order."""
    manager, members = task_manager(names, None, data), []
    for one in choose_tasks(manager, names, data):
        assert isinstance(one.spec, dict)
        sampler = {} if "bbh" in one.name else {"fewshot_config": {"sampler": "first_n"}}
        members += [{**task, **sampler} for task in one.spec["task"]]
    return manager, Chosen("all", {"group": "all", "task": members}, "these")


def prompts_of(sample: dict[str, Any]) -> list[tuple[str, Any]]:
    arguments = sample["arguments"]
    return [(one["arg_0"], one["arg_1"]) for one in (arguments[f"gen_args_{n}"] for n in range(len(arguments)))]


def check_choices(task: str, questions: Sequence[Asked], samples: Sequence[dict[str, Any]], loaded: LoadedModel) -> int:
    """Prompts, log-likelihoods and scores are equal; returns how many choices were cut.

    What is too long loses its BOS in the harness and keeps it in ours; without a BOS both cut the same.
    """
    items = [one.what for one in questions if isinstance(one.what, Item)]
    assert len(items) == len(questions) == len(samples)
    whole = score_choices(loaded, items, bos=True)
    fits = whole.cut == 0
    expected = whole if fits.all() else whole.where(fits, score_choices(loaded, items, bos=False))
    ours = scored(Job(_setting(task), tuple(questions)), lambda *_: expected, lambda *_: [], "m", lambda *_: None)
    by_item = {item: list(rows.log_likelihood) for item, rows in expected.groupby("item", sort=False)}
    for item, sample, (_, row) in zip(items, samples, ours.iterrows(), strict=True):
        assert [a + b for a, b in prompts_of(sample)] == [item.before(n) + one for n, one in enumerate(item.choices)]
        assert [float(one[0]) for one in sample["filtered_resps"]] == pytest.approx(by_item[item.id], abs=1e-4)
        if task == "truthfulqa_mc2":
            assert sample["acc"] == pytest.approx(row.mc2, abs=1e-5)
        else:
            metrics = {"acc", "acc_norm"} & set(sample)
            assert metrics
            assert {name: sample[name] for name in metrics} == {name: row[name] for name in metrics}
    return int((~fits).sum())


def _setting(task: str) -> Setting:
    return Setting(task=_benchmark(task), shots=0, metric="acc")


def _benchmark(task: str) -> str:
    return task if task in TASKS else "mmlu" if task.startswith("mmlu") else "bbh"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions of our own, with the harness' fixed examples and primer where a task has some."""
    folder = tmp_path_factory.mktemp("data")
    write_questions(folder)
    add_fixed_examples(folder, folder)
    return folder


def add_fixed_examples(data: Path, folder: Path) -> None:
    names = ["leaderboard_bbh_boolean_expressions", "bbh_fewshot_word_sorting", "truthfulqa_mc1"]
    manager = task_manager(names, None, data)
    for one in choose_tasks(manager, names, data):
        [task] = load_tasks(manager, one)
        if one.name == "truthfulqa_mc1":
            (folder / "truthfulqa").mkdir(exist_ok=True)
            (folder / "truthfulqa" / "primer.txt").write_text(
                task.doc_to_text({"question": "X"}).removesuffix("\n\nQ: X\nA:") + "\n"
            )
        elif data == folder:
            part = one.name.removeprefix("leaderboard_bbh_").removeprefix("bbh_fewshot_")
            write_bbh_prompts(data, part, task.config.description, task.config.fewshot_config.samples)


@dataclass(frozen=True)
class Ran:
    """A run of the harness on a tiny random model, after the first example of every task."""

    loaded: LoadedModel
    folder: Path
    out: Path
    samples: dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def ran(data: Path, make_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder, out = tmp_path_factory.mktemp("model") / "tiny", tmp_path_factory.mktemp("out")
    made = make_model("llama", max_position_embeddings=512)
    bos = {"id": "<|bos|>", "ids": [made.tokenizer.bos_token_id], "tokens": ["<|bos|>"]}
    made.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=["<|bos|>", "$A"], special_tokens=[bos]
    )  # fmt: skip
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    loaded = load_model(str(folder), check=False)
    return Ran(loaded, folder, out, run_harness([*CHOICES, *WRITTEN], data, loaded, Settings(shots=SHOTS), out))


@pytest.mark.parametrize("task", CHOICES)
def test_choices_after_the_first_examples(task: str, data: Path, ran: Ran) -> None:
    questions = asked_by_us(task, data, SHOTS)
    assert questions[0].what != asked_by_us(task, data, 0)[0].what or task.startswith("truthfulqa")
    assert check_choices(task, questions, ran.samples[task], ran.loaded) == 0


@pytest.mark.parametrize("task", WRITTEN)
def test_written_answers(task: str, data: Path, ran: Ran) -> None:
    prompts = [one.what for one in asked_by_us(task, data, SHOTS) if isinstance(one.what, Prompt)]
    samples = [one for one in ran.samples[task] if one["filter"] == ran.samples[task][0]["filter"]]
    assert [prompts_of(one)[0][0] for one in samples] == [one.text for one in prompts]
    assert {stop for one in samples for stop in prompts_of(one)[0][1]["until"]} == set(prompts[0].stops)
    answers = written(ran.loaded, prompts, bos=True, tokens=256)
    assert any(answers)
    assert [one["resps"][0][0] for one in samples] == answers


def test_gsm8k_reads_numbers_as_ours(data: Path) -> None:
    """The harness' filters and its comparison against our marks, on answers of every sort."""
    answers = [
        "so #### 1", "#### 1.", "#### $1", "#### 1,000", "It is 2. #### 3 or #### 1", "1", "about $1.", "-1 and 2", "none", "",
        "#### 1 #### 2", "1,0", "####1", "costs 1.00", "1 000", "#### -1",
    ]  # fmt: skip
    manager, gsm8k = spec_of(["gsm8k"], data)
    [task] = load_tasks(manager, gsm8k)
    marks = TASKS["gsm8k"].marks
    doc = {"question": "0 + 1?", "answer": "#### 1"}
    for answer in answers:
        instance = Instance("generate_until", doc, ("", {}), 0, resps=[answer])
        for ensemble in task._filters:
            ensemble.apply([instance])
        for name, mark in {"strict-match": "strict", "flexible-extract": "flexible"}.items():
            theirs = task.process_results(doc, [instance.filtered_resps[name]])["exact_match"]
            assert theirs == float(marks[mark](answer) == marks[mark](doc["answer"])), (answer, name)


def test_a_twin_on_real_questions_and_what_is_cut(tmp_path: Path) -> None:
    root = next((root for root in ROOTS if root.exists()), None)
    if root is None:
        pytest.skip(f"real data absent: neither {ROOTS[0]} nor {ROOTS[1]} is there")
    data = tmp_path / "data"
    (data / "truthfulqa").mkdir(parents=True)
    for path in (*root.iterdir(), *(root / "truthfulqa").iterdir()):
        if path != root / "truthfulqa":
            (data / path.relative_to(root)).symlink_to(path)
    add_fixed_examples(root, data)
    loaded = load_model("embedded:text", check=False)
    names = [
        "arc_easy", "winogrande", "mmlu_anatomy", "truthfulqa_mc1", "truthfulqa_mc2", "logiqa",
        "leaderboard_bbh_boolean_expressions", "leaderboard_bbh_logical_deduction_three_objects",
    ]  # fmt: skip
    found = run_harness(names, data, loaded, Settings(limit=REAL), tmp_path / "out")
    cut = {}
    for task in names:
        questions = asked_by_us(task, data, 3 if task.startswith("leaderboard") else 0)[:REAL]
        cut[task] = check_choices(task, questions, found[task], loaded)
    assert cut["arc_easy"] == cut["mmlu_anatomy"] == 0
    assert min(cut["logiqa"], cut["leaderboard_bbh_logical_deduction_three_objects"]) > 0


def test_an_imported_log_gives_the_table_of_the_run(data: Path, ran: Ran, tmp_path: Path) -> None:
    """The harness loads the model by itself, adds BOS by itself and writes its log, as ``lm_eval --log_samples`` does."""
    names = ["arc_easy", "truthfulqa_mc2", "gsm8k"]
    manager, same = spec_of(names, data)
    tracker = EvaluationTracker(output_path=str(tmp_path))
    results = lm_eval.simple_evaluate(
        "hf", {"pretrained": str(ran.folder), "device": "cpu"}, load_tasks(manager, same), num_fewshot=SHOTS, batch_size=3,
        bootstrap_iters=0, evaluation_tracker=tracker, task_manager=manager,
    )  # fmt: skip
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for name, lines in samples.items():
        tracker.save_results_samples(task_name=name, samples=lines)

    logs = sorted(tmp_path.rglob("samples_*.jsonl"))
    wanted = {path: Wanted(filter="strict-match" if "gsm8k" in path.name else None) for path in logs}
    imported = pd.concat([import_logs([path], wanted=wanted[path]).table for path in logs], ignore_index=True)
    table = table_of("all", ran.out, Wanted())
    table = table[table.task.isin(names)].reset_index(drop=True)
    pd.testing.assert_frame_equal(table.drop(columns="log"), imported.drop(columns="log"))
    assert len(imported) == ITEMS * 2 + 2
    assert imported.score.nunique() > 2


def test_bos_is_put_once_and_the_callers_tokenizer_stays(make_model: Any) -> None:
    loaded = make_model("gpt2")
    loaded.tokenizer.pad_token = None
    before = loaded.tokenizer.backend_tokenizer.to_str()
    found = {bos: harness_model(loaded, bos=bos, batch=2) for bos in (True, False)}
    own = loaded.tokenizer.encode("the box", add_special_tokens=False)
    assert found[True].tok_encode("the box") == [loaded.tokenizer.bos_token_id, *own]
    assert found[False].tok_encode("the box") == own
    assert found[True].tok_encode("<|bos|>the box") == [
        loaded.tokenizer.bos_token_id,
        *own,
    ]  # a chat template's own BOS
    assert found[True].tok_batch_encode(["the box", "the"])[0][1].tolist().count(loaded.tokenizer.bos_token_id) == 1
    assert found[True].max_length == loaded.context
    assert (loaded.tokenizer.pad_token, loaded.tokenizer.backend_tokenizer.to_str()) == (None, before)
