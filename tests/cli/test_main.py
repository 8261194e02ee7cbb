"""The command as a whole: it starts light, explains itself, and turns every mistake into one line and exit code 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from calling import PYTHON, done, refused, twinprobe, twinprobe_process

from cli.bench import bench
from cli.main import command

NAMES = (
    "compare",
    "cache",
    "probe",
    "patch",
    "circuit",
    "graft",
    "lens",
    "pretrain",
    "evaluate",
    "slopes",
    "bench",
    "show",
    "store",
)
COMMANDS = [[name] for name in NAMES]
GROUPS = ("bench", "show", "store")
PARTS = [
    *(["bench", name] for name in bench.commands),
    *(["show", name] for name in ("pairs", "tasks", "sites", "store")),
    *(["store", name] for name in ("verify", "pack", "merge")),
]
HEAVY = ("torch", "transformers", "transformer_lens", "sklearn", "scipy", "pandas", "numpy", "h5py", "matplotlib")


def test_help_loads_nothing_heavy() -> None:
    """Neither the first help nor any command's."""
    script = f"""
import sys
from cli.main import main
for words in {[[], *COMMANDS, *PARTS]!r}:
    sys.argv = ["twinprobe", *words, "--help"]
    main()
print("LOADED", *set(sys.modules) & set({HEAVY!r}))
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=PYTHON)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("Usage: twinprobe") == 1 + len(COMMANDS) + len(PARTS)
    assert ran.stdout.splitlines()[-1].split() == ["LOADED"]


def test_every_command_is_listed_and_described() -> None:
    listed = done(twinprobe("--help"))
    assert set(command.commands) == {words[0] for words in COMMANDS}
    for name in command.commands:
        assert f"\n  {name} " in listed


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_shows_an_example_of_itself(words: list[str]) -> None:
    assert f"  twinprobe {' '.join(words)}" in done(twinprobe(*words, "--help"))


@pytest.mark.parametrize("words", [*(words for words in COMMANDS if words[0] not in GROUPS), *PARTS], ids=" ".join)
def test_every_command_can_answer_in_json(words: list[str]) -> None:
    assert "--json" in done(twinprobe(*words, "--help"))


def test_a_bare_command_is_answered_with_help() -> None:
    for words in ([], *([group] for group in GROUPS)):
        ran = twinprobe(*words)
        assert f"Usage: {' '.join(['twinprobe', *words])}" in ran.out + ran.err
        assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["comapre"], ["No such command 'comapre'", "see twinprobe --help"]),
        (["show", "pair"], ["No such command 'pair'", "see twinprobe show --help"]),
        (["compare", "--jsno"], ["No such option", "--jsno", "--json", "see twinprobe compare --help"]),
        (["cache"], ["Missing argument 'MODEL'", "see twinprobe cache --help"]),
        (["cache", "m", "--texts", "t", "--out", "o"], ["Missing option '--sites'", "see twinprobe cache --help"]),
        (
            ["cache", "m", "--texts", "t", "--out", "o", "--sites", "embed", "--rows", "all"],
            ["'all'", "tokens", "spans"],
        ),
        (["cache", "m", "--texts", "t", "--out", "o", "--sites", "embed", "--batch-tokens", "0"], ["0", "x>=1"]),
        (["cache", "m", "--texts", "t", "--out", "o", "--sites", "embed", "--dtype", "int8"], ["'int8'", "bfloat16"]),
        (["probe", "s", "--seed", "one"], ["--seed", "'one' is not a valid integer"]),
        (["probe", "s", "--seed", "-1"], ["--seed", "-1 is not in the range x>=0"]),
        (["patch", "--out", "o", "--max-items", "-1"], ["--max-items", "-1"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value[0], str) else None,
)
def test_a_mistyped_command_line_is_one_line(words: list[str], expected: list[str]) -> None:
    refused(twinprobe(*words), *expected)


def test_a_mistake_is_one_line_in_a_process_of_its_own() -> None:
    refused(twinprobe_process("show", "pairs", "qwen2.5-0.5"), "unknown pair", "did you mean 'qwen2.5-0.5b'")
    refused(twinprobe_process("compare", "absent.toml"), "absent.toml", "no such file")


def test_a_model_that_can_not_be_reached_is_one_line(tmp_path: Path) -> None:
    """In a process of its own: what the hub's client and transformers print counts too."""
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"id": 1, "text": "x"}\n')
    where = ("--texts", texts, "--sites", "embed", "--out", tmp_path / "out")
    refused(
        twinprobe_process("cache", "some-org/absent-model", *where),
        "'some-org/absent-model' could not be loaded",
        "offline",
    )
    assert not (tmp_path / "out").exists()


def test_a_reader_that_goes_away_is_no_error() -> None:
    """As in ``twinprobe show pairs --json | head -1``."""
    running = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "show", "pairs", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=PYTHON,
    )  # fmt: skip
    assert running.stdout is not None and running.stderr is not None
    running.stdout.close()
    assert running.stderr.read() == b""
    assert running.wait() != 2


def test_the_version_is_the_packages() -> None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        expected = version("twinprobe")
    except PackageNotFoundError:
        pytest.skip("twinprobe is not installed here; tests/test_wheel.py installs it")
    assert expected in done(twinprobe("--version"))


DESIGN = """\
name = "d"
[training]
tokens = 1
[[data]]
kind = "prose"
path = "absent"
licence = "none"
[[run]]
name = "a"
code_share = 0
seed = 0
"""


def test_what_the_system_refuses_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "design.toml").write_text(DESIGN)
    refused(
        twinprobe("pretrain", tmp_path / "design.toml", "--out", "/proc/absent"), "/proc/absent", after_progress=True
    )
