"""Problems in their authors' formats: solutions pass, wrong bodies fail, in the sandbox."""

from __future__ import annotations

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from activations.errors import TwinprobeError
from analyses.benchmarks.code_generation.problems import Problem, problem_key
from analyses.benchmarks.code_generation.sandbox import Outcome, isolation, run_program
from analyses.benchmarks.code_generation.tasks import read_code_task, read_samples, sample_lines

ROOTS = [Path(__file__).parents[depth] / "shared" / "data" for depth in (4, 5)]


def real(name: str) -> Path:
    for root in ROOTS:
        if (root / name).exists():
            return root / name
    pytest.skip(f"real data absent: neither {ROOTS[0] / name} nor {ROOTS[1] / name} is there")


def outcomes(programs: list[str]) -> list[Outcome]:
    if isolation().missing:
        pytest.skip(f"no namespaces here: {isolation().reason}")
    with ThreadPoolExecutor(2) as pool:
        return [*pool.map(run_program, programs)]


def statuses(problems: list[Problem], sample: str | None = None) -> list[str]:
    """Of the reference solutions, or of one and the same body for all."""
    return [found.status for found in outcomes([problem.program(sample or problem.reference) for problem in problems])]


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


WRONG = "    return 'a wrong answer'\n"
MADE_UP = {
    "task_id": "HumanEval/7", "prompt": "def double(x):\n", "entry_point": "double", "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-1) == -2\n",
}  # fmt: skip


def test_humaneval_takes_completions_and_whole_programs(tmp_path: Path) -> None:
    (tmp_path / "he.jsonl.gz").write_bytes(gzip.compress(json.dumps(MADE_UP).encode()))
    problem = read_code_task("humaneval", tmp_path / "he.jsonl.gz")["7"]
    programs = [
        problem.program("    return x + x\n"), problem.program("def double(x): return x + x", whole=True),
        problem.program("    return 4\n"), problem.program("    raise SystemExit(0)\n"), problem.program("    return 2 *"),
    ]  # fmt: skip
    found = outcomes(programs)
    assert [outcome.status for outcome in found] == ["passed"] * 2 + ["failed"] * 3
    assert [outcome.detail.partition(":")[0] for outcome in found[2:]] == [
        "AssertionError",
        "SystemExit",
        "SyntaxError",
    ]


def test_mbpp_in_both_forms_runs_set_up_and_every_test(tmp_path: Path) -> None:
    row = {"task_id": 3, "code": "def f(x):\n    return x + one", "test_setup_code": "one = 1"}
    full = written(tmp_path / "a.jsonl", {**row, "text": "", "test_list": ["assert f(1) == 2", "assert f(2) == 3"]})
    short = written(tmp_path / "b.jsonl", {"task_id": 3, "code": "def f(x): return 1", "test": ["assert f(0) == 1"]})
    assert statuses([*read_code_task("mbpp", full).values(), *read_code_task("mbpp", short).values()]) == ["passed"] * 2
    assert statuses([*read_code_task("mbpp", full).values()], "def f(x): return 2") == ["failed"]


def test_mbpp_plus_compares_with_the_reference_on_inputs_of_the_types_of_its_tests(tmp_path: Path) -> None:
    row = {
        "task_id": "Mbpp/5", "entry_point": "f", "canonical_solution": "def f(pair, by):\n    return {pair: sum(pair) / by}\n",
        "base_input": [[[1, 2], 3]], "plus_input": [[[4, 5], 3], [[7], 7], [[1, 1], 0]], "atol": 0,
        "assertion": "assert f((1, 2), 3) == {(1, 2): 1}",
    }  # fmt: skip
    [problem] = read_code_task("mbpp+", written(tmp_path / "plus.jsonl", row)).values()
    samples = [
        problem.reference,
        "def f(pair, by): return {(1, 2): 1.0}",  # right on the test that is shown
        "def f(pair, by): return {pair: sum(pair) / by + 1}",
        "def f(pair, by): return None",
    ]
    assert [found.status for found in outcomes([problem.program(sample) for sample in samples])] == [
        "passed", "failed", "failed", "failed",
    ]  # fmt: skip


@pytest.mark.parametrize("sample", ["return 0.1 + 0.2 + x * 0", "return [0.3]"])
def test_floats_are_compared_with_a_tolerance_and_types_are_not(tmp_path: Path, sample: str) -> None:
    row = {
        "task_id": "Mbpp/5", "entry_point": "f", "canonical_solution": "def f(x):\n    return 0.3", "base_input": [[1.0]],
        "plus_input": [], "atol": 0, "assertion": "assert f(1.0) == 0.3",
    }  # fmt: skip
    [problem] = read_code_task("mbpp+", written(tmp_path / "plus.jsonl", row)).values()
    assert statuses([problem], f"def f(x): {sample}") == ["failed" if "[" in sample else "passed"]


def test_the_authors_files_have_the_counts_that_their_papers_say() -> None:
    counts = {
        "humaneval": ("humaneval/HumanEval.jsonl.gz", 164), "mbpp": ("mbpp/mbpp_test.jsonl", 500),
        "humaneval+": ("evalplus", 164), "mbpp+": ("evalplus/MbppPlus_20231116.jsonl", 399),
    }  # fmt: skip
    for task, (name, count) in counts.items():
        assert len(read_code_task(task, real(name))) == count
    assert len(read_code_task("mbpp", real("mbpp/mbpp.jsonl"))) == 974


def test_some_of_humaneval_passes_with_its_solutions_and_with_nothing_else() -> None:
    some = [*read_code_task("humaneval", real("humaneval/HumanEval.jsonl.gz")).values()][::20]
    assert statuses(some) == ["passed"] * len(some)
    assert statuses(some, WRONG) == ["failed"] * len(some)


@pytest.mark.slow
def test_all_of_humaneval_passes_with_its_solutions_and_with_nothing_else() -> None:
    problems = [*read_code_task("humaneval", real("humaneval/HumanEval.jsonl.gz")).values()]
    assert statuses(problems) == ["passed"] * 164
    assert statuses(problems, WRONG) == ["failed"] * 164


@pytest.mark.slow
def test_the_solutions_of_mbpp_pass() -> None:
    assert statuses([*read_code_task("mbpp", real("mbpp/mbpp.jsonl")).values()]) == ["passed"] * 974


def test_reference_samples_can_be_written_and_read(tmp_path: Path) -> None:
    problems = read_code_task("humaneval", written(tmp_path / "he.jsonl", MADE_UP))
    (tmp_path / "samples.jsonl").write_text(sample_lines(problems))
    [sample] = read_samples(tmp_path / "samples.jsonl")
    assert (sample.problem, sample.text, sample.whole) == ("7", MADE_UP["canonical_solution"], False)


def test_names_of_problems_are_one_however_they_are_written() -> None:
    names = ("HumanEval/12", "HumanEval_12", "HumanEval_12_sum_to_3", "Mbpp/12", "mbpp_12_f", 12, "12")
    assert {problem_key(name) for name in names} == {"12"}


def test_a_problem_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TwinprobeError, match="2 problems with 1 numbers"):
        read_code_task("humaneval", written(tmp_path / "he.jsonl", MADE_UP, MADE_UP))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no sample in it"), ("{", "not valid JSON"), ("[1]", "no JSON object"),
        ('{"task_id": "a"}', "sample 1: has task_id; expected"), ('{"completion": "a"}', "sample 1: has completion"),
        ('{"task_id": 1, "completion": "a", "solution": "a"}', "one of completion and solution"),
    ],
)  # fmt: skip
def test_samples_of_another_form_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "samples.jsonl").write_text(text)
    with pytest.raises(TwinprobeError, match=message):
        read_samples(tmp_path / "samples.jsonl")


def test_data_of_another_form_is_refused(tmp_path: Path) -> None:
    data = written(tmp_path / "data.jsonl", MADE_UP)
    with pytest.raises(TwinprobeError, match="no code task 'ds1000'"):
        read_code_task("ds1000", data)
    with pytest.raises(TwinprobeError, match="not in the form of mbpp"):
        read_code_task("mbpp", data)
    with pytest.raises(TwinprobeError, match="no such file"):
        read_code_task("humaneval", tmp_path / "none.jsonl")
    with pytest.raises(TwinprobeError, match="0 files HumanEvalPlus_full"):
        read_code_task("humaneval+", tmp_path)
    (tmp_path / "bad.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(TwinprobeError, match="can not be read"):
        read_code_task("humaneval", tmp_path / "bad.jsonl.gz")
