"""Source files in several languages: roles and places by hand and against ``ast``, and what a folder makes of them."""

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path

import pytest

from activations.errors import TwinprobeError
from probes.tasks import get_task
from probes.tasks.grammars import LANGUAGES
from probes.tasks.identifiers import held_out_sources
from probes.tasks.items import Task
from probes.tasks.language_syntax import language_marks, parser
from probes.tasks.python_syntax import python_names
from probes.tasks.python_tokens import tokens_of
from probes.tasks.syntax_trees import place_marks
from probes.tasks.windows import cut_windows

NODES = {"Name": "name", "Attribute": "member", "arg": "parameter", "FunctionDef": "function"}
PARENTS = {"Assign": "assignment", "BinOp": "binary", "BoolOp": "binary", "Compare": "binary", "Return": "return"}

# The same program everywhere: é is a parameter; `b` is compared, `c` is called with, `d` is returned.
PROGRAMS = {
    "c": "int f(int *é) {\n  int x = g(1, c.m);\n  if (é < b) {\n    return d;\n  }\n}\n",
    "cpp": "int f(int &é) {\n  int x = g(1, c.m);\n  if (é < b) {\n    return d;\n  }\n}\n",
    "go": "package p\nfunc f(é int) int {\n  x := g(1, c.m)\n  if é < b {\n    return d\n  }\n}\n",
    "java": "class C {\n  int f(int é) {\n    int x = g(1, c.m);\n    if (é < b) {\n      return d;\n    }\n  }\n}\n",
    "javascript": "function f(é) {\n  let x = g(1, c.m);\n  if (é < b) {\n    return d;\n  }\n}\n",
    "python": "def f(é):\n  x = g(1, c.m)\n  if é < b:\n    return d\n",
    "rust": "fn f(é: i32) -> i32 {\n  let x = g(1, c.m);\n  if é < b {\n    return d;\n  }\n}\n",
    "typescript": "function f(é: number) {\n  let x = g(1, c.m);\n  if (é < b) {\n    return d;\n  }\n}\n",
}


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_one_program_has_the_same_labels_in_every_language(language: str) -> None:
    source = PROGRAMS[language]
    _, marks = language_marks(language, source)
    lines = source.split("\n")
    assert all(lines[mark.row - 1][mark.column :].startswith(mark.text) for mark in marks)
    found = Counter((mark.text, mark.target, mark.label) for mark in marks)
    expected = {
        ("f", "node", "function"): 1, ("é", "node", "parameter"): 1, ("é", "node", "name"): 1,
        ("x", "node", "name"): 1, ("g", "node", "name"): 1, ("c", "node", "name"): 1, ("m", "node", "member"): 1,
        ("b", "node", "name"): 1, ("d", "node", "name"): 1,
        ("m", "parent", "call"): 1, ("m", "depth", "2"): 1, ("m", "siblings", "2"): 1,
        ("b", "parent", "binary"): 1, ("b", "depth", "2"): 1, ("b", "siblings", "1"): 1,
        ("d", "parent", "return"): 1, ("d", "depth", "1"): 1, ("d", "siblings", "0"): 1,
    }  # fmt: skip
    if language == "rust":  # `let` alone begins its node before the variable; elsewhere the variable or its type does
        expected |= {("x", "parent", "assignment"): 1, ("x", "depth", "1"): 1, ("x", "siblings", "0"): 1}
    assert found == expected


@pytest.mark.parametrize(
    ("language", "line", "expected"),
    [
        ("java", "int a = b.f(c, d);", "a name, b name, f member, c name call 1, d name call 2"),
        ("java", "f(c);", "f name, c name call 1"),
        ("rust", "A::b(&c);", "A name, b member, c name unary 0"),
        ("go", "a, b = c[d], !e", "a name, b name assignment 1, c name, d name subscript 1, e name unary 0"),
        ("javascript", "f({k: v}, [w]);", "f name, v name pair 1, w name collection 0"),
        ("python", "f(k=v, *w)", "f name, v name pair 1, w name call 2"),
        ("python", "from a import b", ""),
        ("c", "p->m = *q + s[i];", "p name, m member, q name, s name, i name subscript 1"),
        ("c", "#if defined(A) && B\n#endif\n#define C D\nf(b);", "f name, b name call 1"),
        ("typescript", "const a: T = new B(c);", "a name, B name call 0, c name call 1"),
        ("cpp", "std::move(x);", "x name call 1"),
    ],
)
def test_marks_of_single_statements(language: str, line: str, expected: str) -> None:
    around = {"java": "class Z {{ void z() {{\n{}\n}} }}", "rust": "fn z() {{\n{}\n}}", "go": "func z() {{\n{}\n}}"}
    around |= {"c": "void z() {{\n{}\n}}", "cpp": "void z() {{\n{}\n}}"}
    found: dict[tuple[int, int, str], dict[str, str]] = {}
    for mark in language_marks(language, around.get(language, "{}").format(line))[1]:
        if mark.text != "z":
            found.setdefault((mark.row, mark.column, mark.text), {})[mark.target] = mark.label
    said = [
        " ".join([text, *(labels[target] for target in ("node", "parent", "siblings") if target in labels)])
        for (_, _, text), labels in sorted(found.items())
    ]
    assert ", ".join(said) == expected


def test_python_by_tree_sitter_is_python_by_ast() -> None:
    """Roles agree wherever both have one; so do parents of the kinds that mean the same, bare tuples aside."""
    agreed: Counter[str] = Counter()
    for path, source in held_out_sources()[::6]:
        nodes, names = python_names(source, tokens_of(source))
        by_ast = {(n.row, n.column, "node"): nodes[n.node].kind for n in names}
        by_ast |= {(m.row, m.column, m.target): m.label for m in place_marks(nodes, names) if m.target == "parent"}
        for mark in language_marks("python", source)[1]:
            kind = by_ast.get((mark.row, mark.column, mark.target), "")
            expected = NODES.get(kind) if mark.target == "node" else PARENTS.get(kind)
            if expected and mark.target in ("node", "parent"):
                assert mark.label == expected, (path, mark)
                agreed[mark.target] += 1
    assert agreed["node"] > 2000
    assert agreed["parent"] > 200


def test_statements_that_do_not_parse_are_in_no_window() -> None:
    good = "".join(f"let a{i} = f(b{i});\n" for i in range(6))
    source = f"{good}let = = (;\n{good}"
    rows, marks = language_marks("javascript", source)
    assert (0, 0) in rows
    windows = list(cut_windows("x.js", source, rows, marks))
    assert windows
    assert not any("= =" in window.text for window in windows)


def test_a_statement_over_several_rows_is_one_and_a_block_is_many() -> None:
    rows, _ = language_marks("javascript", "f(\n  a,\n  b\n);\nif (c) {\n  d(\n  );\n}\n")
    assert rows == [(1, 4), (5, 5), (6, 7), (8, 8)]
    rows, _ = language_marks("c", "#define A 1\nint b;\nint c;\n")  # a directive ends on the next row
    assert rows == [(1, 1), (2, 2), (3, 3)]


def write_folder(folder: Path) -> None:
    """Files in JavaScript and Go with names that play several roles, one file too few in C."""
    rng = random.Random(0)
    words = [f"{a}{b}" for a in ("key", "log", "map", "net", "row", "tag") for b in ("", "Set", "Map")]
    for number in range(12):
        parts = {"js": ["// no text here\n"], "go": ["package p\n"]}
        for _ in range(40):
            a, b, c, d, e = rng.sample(words, 5)
            parts["js"].append(
                f"function {a}({b}, {c}) {{\n  let {d} = {e};\n  {d} = {c}({e}, {a}.{b} + {d});\n"
                f"  if ({a} > {b}) {{\n    return {c};\n  }}\n}}\n"
            )
            parts["go"].append(
                f"func {a}({b} int, {c} int) int {{\n  {d} := {e}\n  {d} = {c}({e}, {a}.{b} + {d})\n"
                f"  if {a} > {b} {{\n    return {c}\n  }}\n}}\n"
            )
        for suffix, texts in parts.items():
            (folder / suffix).mkdir(exist_ok=True)
            (folder / suffix / f"{number}.{suffix}").write_text("\n".join(texts), encoding="utf-8")
    (folder / "few.c").write_text("int a = b;\nint b = a;\n", encoding="utf-8")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "bad.js").write_bytes(b"\xff")


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    folder = tmp_path_factory.mktemp("sources")
    write_folder(folder)
    return get_task(f"syntax:{folder}")


def test_a_folder_makes_a_task_with_a_form_per_language(task: Task) -> None:
    assert task.name == "syntax"
    assert set(task.targets) == {"parent", "node", "depth", "siblings"}
    assert set(task.targets.values()) == {("go", "javascript")}
    assert {file.suffix for file in task.files} == {".go", ".js"}
    assert len(task.files) == 24


def test_items_are_drawn_evenly_and_files_stay_in_one_split(task: Task) -> None:
    items = task.generate(91, 0)
    assert items == task.generate(91, 0)
    assert items != task.generate(91, 1)
    assert len(items) == len({item.id for item in items}) == 91
    assert Counter(next(iter(item.forms)) for item in items) == {"go": 46, "javascript": 45}
    for group in {item.group for item in items}:
        assert len({item.split for item in items if item.group == group}) == 1
    labels: Counter[tuple[str, str, str, str]] = Counter()
    for item in items:
        ((name, form),) = item.forms.items()
        assert item.group.startswith(f"{name}/")
        for span in form.spans:
            assert form.text[span.start : span.end] == span.control
            labels[item.split, name, span.name, str(span.label)] += 1
    for split, name, target in {key[:3] for key in labels}:
        counts = [count for key, count in labels.items() if key[:3] == (split, name, target)]
        assert max(counts) - min(counts) <= 1
    kinds = {key[2:] for key in labels if key[1] == "go"}
    assert kinds == {key[2:] for key in labels if key[1] == "javascript"}
    assert {label for target, label in kinds if target == "node"} == {"function", "member", "name", "parameter"}


def said(path: Path) -> str:
    with pytest.raises(TwinprobeError) as caught:
        get_task(f"syntax:{path}")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_too_little_is_said_with_what_there_is(tmp_path: Path, task: Task) -> None:
    assert "too few labelled texts (no source files)" in said(tmp_path)
    (tmp_path / "one.py").write_text("a = f(b)\nb = f(a)\n", encoding="utf-8")
    assert "(1 in 1 python files)" in said(tmp_path / ".")
    with pytest.raises(TwinprobeError, match="17 items asked for, but go, javascript need at least 18 together"):
        task.generate(17, 0)
    with pytest.raises(TwinprobeError, match=r"texts asked for.*have only \d+ such; ask for fewer items"):
        task.generate(50_000, 0)


def test_a_file_that_is_no_folder_or_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.go").write_bytes(b"package p // \xe9\n")
    assert said(tmp_path).endswith("bad.go: not UTF-8 (byte 13); save the file as UTF-8")
    assert "expected a folder of source files" in said(tmp_path / "bad.go")


def test_without_tree_sitter_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.rs").write_text("fn f() {}\n", encoding="utf-8")
    monkeypatch.setitem(sys.modules, "tree_sitter", None)  # as if it were not installed
    parser.cache_clear()
    assert said(tmp_path).endswith('install it: pip install "twinprobe[languages]"')
