"""The house keeps its floors: imports go down only, and the command's first steps load nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import activations

FLOORS = ("activations", "probes", "analyses", "cli")
HEAVY = ("torch", "transformers", "transformer_lens", "sklearn", "scipy", "matplotlib")
ROOT = Path(activations.__file__).parents[1]
MODULES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and top-level package of every import, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, (node.module or "").partition(".")[0]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield node.lineno, str(node.args[0].value).partition(".")[0]


def violations(floor: str, source: str) -> list[tuple[int, str]]:
    forbidden = (*FLOORS[FLOORS.index(floor) + 1 :], "tests", "conftest")
    return [(line, name) for line, name in imported(ast.parse(source)) if name in forbidden]


@pytest.mark.parametrize("floor", FLOORS)
def test_lower_floors_never_import_upper_ones(floor: str) -> None:
    modules = [path for path in MODULES if path.relative_to(ROOT).parts[0] == floor]
    assert modules, f"{ROOT / floor} holds no modules"
    found = {str(path.relative_to(ROOT)): violations(floor, path.read_text(encoding="utf-8")) for path in modules}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_the_check_sees_every_kind_of_import() -> None:
    source = """
import os, analyses.study
def f():
    from probes.rows import Rows
    import cli as c
    importlib.import_module("cli.main")
if TYPE_CHECKING:
    from analyses import report
from .probes import fine
import probes_of_another_kind
"""
    expected = [(2, "analyses"), (4, "probes"), (5, "cli"), (6, "cli"), (8, "analyses")]
    assert sorted(violations("activations", source)) == expected
    assert sorted(violations("probes", source)) == [pair for pair in expected if pair[1] != "probes"]
    assert violations("cli", source) == []


@pytest.mark.parametrize("floor", FLOORS)
def test_every_folder_of_modules_is_a_package(floor: str) -> None:
    """Or else it would be missing from the wheel."""
    folders = {path.parent for path in MODULES if path.relative_to(ROOT).parts[0] == floor}
    assert folders
    assert [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").exists()] == []


def loaded_by(imports: str) -> set[str]:
    """The heavy packages among ``sys.modules`` after ``imports`` in a fresh interpreter."""
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{imports}\nprint(*(set(sys.modules) & {set(HEAVY)!r}))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


def test_the_lowest_floor_loads_nothing_heavy() -> None:
    """Every module of it: models and tensors come in only where one is used."""
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in MODULES
        if path.relative_to(ROOT).parts[0] == "activations"
    ]
    assert {"activations.sites", "activations.pairs", "activations.texts", "activations.models"} < set(names)
    assert loaded_by(f"import {', '.join(names)}") == set()


def test_the_names_of_the_lowest_floor_load_on_first_use() -> None:
    assert loaded_by("import activations; activations.Text, activations.parse_sites") == set()
    for name in activations.__all__:
        assert getattr(activations, name).__module__.startswith("activations.")
    with pytest.raises(AttributeError, match="has no attribute 'nosuch'"):
        _ = activations.nosuch


def test_the_command_starts_without_anything_heavy() -> None:
    assert loaded_by("import cli.main") == set()


def test_heavy_imports_would_be_seen() -> None:
    assert "sklearn" in loaded_by("import sklearn")
