"""Problems in other languages: right completions pass, wrong ones and early exits fail, in the sandbox."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from activations.errors import TwinprobeError
from analyses.benchmarks.code_generation.execution import toolchain_of
from analyses.benchmarks.code_generation.languages import LANGUAGES, Language, language_named
from analyses.benchmarks.code_generation.problems import Problem
from analyses.benchmarks.code_generation.sandbox import Limits, Outcome, isolation, run_program
from analyses.benchmarks.code_generation.tasks import read_code_task
from analyses.benchmarks.code_generation.toolchains import Toolchain, find_toolchain

DATA = [Path(__file__).parents[depth] / "shared" / "data" / "multipl_e" for depth in (4, 5)]
LIMITS = Limits(wall_seconds=60, cpu_seconds=30)  # of a busy machine

# A function that adds its numbers, in the form of MultiPL-E: prompt, tests, stop tokens.
FORMS: dict[str, tuple[str, str, list[str]]] = {
    "js": (
        "// adds\nfunction add(a, b){\n",
        "const assert = require('node:assert');\n\nfunction test() {\n  let candidate = add;\n"
        "  assert.deepEqual(candidate(1, 2),3);\n  assert.deepEqual(candidate(-1, 1),0);\n}\n\ntest();",
        ["\nfunction ", "\n/*", "\n//", "\nconsole.log"],
    ),
    "sh": (
        "#!/bin/bash\n# adds\nadd() {\n",
        '}\n\ncandidate() {\n    add "$@"\n}\n\nset -e\nrun_test() {\n    [[ $(candidate "1" "2") = "3" ]]\n'
        '    [[ $(candidate "-1" "1") = "0" ]]\n}\n\nrun_test',
        ["\n}"],
    ),
    "pl": (
        "# adds\nsub add {\n    my($a, $b) = @_;\n",
        "use Test::Deep;\n\n\nsub testhumaneval {\n    my $candidate = \\&add;\n"
        '        if(eq_deeply($candidate->(1, 2),3)) {\n        print "ok!" }else{\n        exit 1;\n        }\n'
        '        if(eq_deeply($candidate->(-1, 1),0)) {\n        print "ok!" }else{\n        exit 1;\n        }\n}\n'
        "\ntesthumaneval();",
        ["\nsub", "\n#", "\n\n"],
    ),
    "java": (
        "import java.util.*;\nimport org.javatuples.*;\nclass Problem {\n    public static long add(long a, long b) {\n",
        "    }\n    public static void main(String[] args) {\n    assert(add((1l), (2l)) == (3l));\n"
        "    assert(add((-1l), (1l)) == (0l));\n    }\n\n}\n",
        ["\n    }\n"],
    ),
    "cpp": (
        "#include<assert.h>\n#include<bits/stdc++.h>\nlong add(long a, long b) {\n",
        "}\nint main() {\n    auto candidate = add;\n    assert(candidate((1), (2)) == (3));\n"
        "    assert(candidate((-1), (1)) == (0));\n}\n",
        ["\n}"],
    ),
    "rs": (
        "fn add(a: isize, b: isize) -> isize {\n",
        "}\n\nfn main() {\n    let candidate = add;\n    assert_eq!(candidate(1, 2), 3);\n"
        "    assert_eq!(candidate(-1, 1), 0);\n}\n",
        ["\n}"],
    ),
}  # fmt: skip
RIGHT = {
    "js": "    return a + b;\n}\n", "sh": '    echo "$(($1 + $2))"\n', "pl": "    return $a + $b;\n}\n",
    "java": "        return a + b;\n", "cpp": "    return a + b;\n", "rs": "    a + b\n",
}  # fmt: skip
WRONG = {
    "js": "    return 3;\n}\n", "sh": "    echo 3\n", "pl": "    return 3;\n}\n", "java": "        return 3L;\n",
    "cpp": "    return 3;\n", "rs": "    a + b + 1\n",
}  # fmt: skip
LEAVES = {
    "js": "    process.exit(0);\n}\n", "sh": "    echo 3\n}\nexit 0\nf() {\n", "pl": "    exit 0;\n}\n",
    "java": "        System.exit(0); return 0;\n", "cpp": "    exit(0);\n", "rs": "    std::process::exit(0)\n",
}  # fmt: skip
QUICK = ("js", "sh", "pl")
COMPILED = ("java", "cpp", "rs")


@cache
def toolchain(name: str) -> Toolchain:
    if isolation().missing:
        pytest.skip(f"no namespaces here: {isolation().reason}")
    try:
        return find_toolchain(LANGUAGES[name], LIMITS)
    except TwinprobeError as error:
        pytest.skip(str(error))


def problem(name: str, folder: Path, **changed: Any) -> Problem:
    """The one problem above, read from a file."""
    prompt, tests, stops = FORMS[name]
    row = {"name": "HumanEval_3_add", "language": name, "prompt": prompt, "tests": tests, "stop_tokens": stops}
    path = folder / f"humaneval-{name}.jsonl"
    path.write_text(json.dumps({**row, **changed}) + "\n")
    return read_code_task("multipl-e", path)["3"]


def run(name: str, program: str, limits: Limits = LIMITS) -> Outcome:
    return run_program(program, limits, toolchain=toolchain(name))


def statuses(name: str, folder: Path) -> list[str]:
    one = problem(name, folder)
    return [run(name, one.program(sample[name])).status for sample in (RIGHT, WRONG, LEAVES)]


@pytest.mark.parametrize("name", QUICK)
def test_right_passes_and_wrong_and_leaving_early_do_not(name: str, tmp_path: Path) -> None:
    assert statuses(name, tmp_path) == ["passed", "failed", "failed"]


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILED)
def test_so_it_is_with_what_is_compiled(name: str, tmp_path: Path) -> None:
    assert statuses(name, tmp_path) == ["passed", "failed", "failed"]


def test_what_went_wrong_is_said(tmp_path: Path) -> None:
    one = problem("js", tmp_path)
    assert run("js", one.program(WRONG["js"])).detail.startswith("AssertionError")
    assert "SyntaxError" in run("js", one.program("    return (;\n}\n")).detail
    assert run("js", one.program(LEAVES["js"])).detail == "exit code 0 before the end of the tests"
    assert run("sh", problem("sh", tmp_path).program("    nosuchcommand\n")).detail.endswith("command not found")


def test_a_completion_is_cut_at_its_stop_token_and_the_tests_go_on_there(tmp_path: Path) -> None:
    one = problem("sh", tmp_path)
    beyond = RIGHT["sh"] + "}\nrm -rf /\nexit 3\n"
    assert one.program(beyond) == one.program(RIGHT["sh"].rstrip("\n"))
    assert run("sh", one.program(beyond)).status == "passed"


def test_an_endless_loop_is_ended() -> None:
    outcome = run("js", "while (true) {}", Limits(wall_seconds=60, cpu_seconds=1))
    assert (outcome.status, outcome.detail) == ("timed out", "ran longer than 1 s of CPU")


def test_a_sleeper_and_what_it_left_behind_are_ended() -> None:
    assert run("sh", "sleep 60", Limits(wall_seconds=1)).status == "timed out"
    assert run("sh", "sleep 60 &\ntrue", Limits(wall_seconds=20)).status == "passed"


HOSTILE = """
const fs = require('fs'), net = require('net'), assert = require('node:assert');
for (const place of ['/etc/passwd', '/etc/shadow', '/proc/1/environ', '/home', '/root/.bashrc', '/work'])
    assert.throws(() => fs.readFileSync(place));
for (const place of ['/usr/x', '/x', '../x', '/tmp/x']) assert.throws(() => fs.writeFileSync(place, 'x'));
assert.throws(() => fs.writeFileSync('large', Buffer.alloc(1 << 27)));
assert.deepEqual(Object.keys(process.env).sort(), ['HOME', 'LANG', 'PATH', 'TMPDIR']);
assert.notEqual(process.getuid(), 0);
net.connect(80, '192.0.2.1').on('error', error => { assert.equal(error.code, 'ENETUNREACH'); });
"""


def test_a_hostile_program_in_another_language_is_contained() -> None:
    outcome = run("js", HOSTILE)
    assert (outcome.status, outcome.detail) == ("passed", "")
    hog = "let kept = [];\nwhile (true) kept.push(new Float64Array(1e6).fill(1));"
    assert run("js", hog, replace(LIMITS, memory_bytes=256 << 20)).status == "failed"
    assert run("sh", "f() { f | f & }; f; sleep 60", Limits(wall_seconds=1)).status != "passed"


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if isolation().missing:
        pytest.skip(f"no namespaces here: {isolation().reason}")
    with pytest.raises(TwinprobeError, match="no commands to run 'ts' programs.*; expected python, js, sh"):
        toolchain_of({"3": problem("js", tmp_path, language="ts")}, LIMITS)
    with pytest.raises(TwinprobeError, match="no commands to run 'go'"):  # as its files call it
        toolchain_of({"3": problem("js", tmp_path, language="go_test.go")}, LIMITS)
    absent = replace(LANGUAGES["js"], steps=(("twinprobe-no-such-tool", "a"),))
    with pytest.raises(
        TwinprobeError, match=r"js needs twinprobe-no-such-tool, which is not on the PATH; install Node"
    ):
        find_toolchain(absent, LIMITS)
    module = replace(LANGUAGES["sh"], check="set -e\nno_such_module_here")
    with pytest.raises(TwinprobeError, match=r"bash does not run in the sandbox \(.*command not found\)"):
        find_toolchain(module, LIMITS)
    shell = tmp_path / "bin" / "bash"
    shell.parent.mkdir()
    shutil.copy(shutil.which("bash") or "", shell)
    monkeypatch.setenv("PATH", str(shell.parent))
    with pytest.raises(
        TwinprobeError, match=f"sh needs bash, and {shell} lies outside the folders that the sandbox shows"
    ):
        find_toolchain(LANGUAGES["sh"], LIMITS)


def test_a_file_is_of_one_language_and_python_runs_as_ever(tmp_path: Path) -> None:
    problem("js", tmp_path), problem("sh", tmp_path)
    both = tmp_path / "both.jsonl"
    lines = [(tmp_path / f"humaneval-{name}.jsonl").read_text() for name in ("js", "sh")]
    both.write_text(lines[0] + lines[1].replace("_3_", "_4_"))
    with pytest.raises(TwinprobeError, match="holds problems in js, sh; give a file of one language"):
        read_code_task("multipl-e", both)
    row = {
        "task_id": "Python/7", "prompt": "def f(x):\n", "test": "assert f(1) == 2\n", "stop_tokens": [],
        "canonical_solution": "    return 2 * x\n",
    }  # fmt: skip
    both.write_text(json.dumps(row))
    [one] = read_code_task("multipl-e", both).values()
    assert toolchain_of({"7": one}, LIMITS) is None
    if not isolation().missing:
        assert run_program(one.program(one.reference)).status == "passed"


def test_tests_that_end_otherwise_are_refused() -> None:
    with pytest.raises(TwinprobeError, match="a java program ends in .*expected tests as MultiPL-E writes them"):
        language_named("java").marked("class Problem {}", "word")


def real(name: str) -> dict[str, Problem]:
    for folder in DATA:
        if (folder / f"humaneval-{name}.jsonl").exists():
            return read_code_task("multipl-e", folder / f"humaneval-{name}.jsonl")
    pytest.skip(f"real data absent: neither {DATA[0]} nor {DATA[1]} has humaneval-{name}.jsonl")


COUNTS = {
    "js": 161,
    "sh": 158,
    "pl": 161,
    "java": 158,
    "cpp": 161,
    "rs": 156,
    "rb": 161,
    "php": 161,
    "r": 161,
    "lua": 161,
}
"""Of the snapshot's SOURCE.md, which counts lines."""


@pytest.mark.parametrize("name", [*COUNTS, "python"])
def test_the_authors_files_can_be_read_and_every_program_takes_its_mark(name: str) -> None:
    problems = real(name)
    assert len(problems) == COUNTS.get(name, 164)
    assert {one.language for one in problems.values()} == {name}
    for one in problems.values() if name in LANGUAGES else ():
        marked = LANGUAGES[name].marked(one.program(""), "word")
        assert marked.count("word") == (1 if LANGUAGES[name].last else 0) + one.program("").count("word")


SOLVED: dict[str, dict[str, str]] = {
    "js": {"23": "    return string.length;\n}\n", "53": "    return x + y;\n}\n"},
    "sh": {"23": '    echo "${#1}"\n', "53": '    echo "$(($1 + $2))"\n'},
    "pl": {"23": "    return length($string);\n}\n", "53": "    return $x + $y;\n}\n"},
    "java": {"23": "        return string.length();\n", "53": "        return x + y;\n"},
    "cpp": {"23": "    return string.length();\n", "53": "    return x + y;\n"},
    "rs": {"23": "    string.len() as isize\n", "53": "    x + y\n"},
    "rb": {"23": "  string.length\nend\n", "53": "  x + y\nend\n"},
    "php": {"53": "    return $x + $y;\n}\n"},  # PHP has a strlen of its own, which can not be defined again
    "r": {"23": "    nchar(string)\n}\n", "53": "    x + y\n}\n"},
}
"""Solutions of ours: the length of a string, the sum of two numbers."""


def solved(name: str) -> None:
    problems = real(name)
    for key, body in SOLVED[name].items():
        assert run(name, problems[key].program(body)).status == "passed", (name, key)
        for other in ({"23", "53"} & set(problems)) - {key}:
            assert run(name, problems[other].program(body)).status == "failed", (name, key, other)


@pytest.mark.parametrize("name", QUICK)
def test_problems_of_the_data_pass_with_solutions_of_ours_only(name: str) -> None:
    solved(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["java", "cpp", "rs", "rb", "php", "r"])
def test_so_they_do_in_further_languages(name: str) -> None:
    solved(name)


def test_every_language_ends_where_its_own_check_does() -> None:
    language: Language
    for language in LANGUAGES.values():
        assert ("word" in language.marked(language.check, "word")) == bool(language.last), language.name
