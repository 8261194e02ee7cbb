"""The wheel: built from these sources and installed elsewhere, it holds every module and file, and no tests."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("activations", "probes", "analyses", "cli")
TWINS = ("text", "code", "code-added", "text-seed2")
FILES = (
    "activations/pairs.toml",
    "analyses/study/embedded.toml",
    "analyses/pretraining/twins.toml",
    "analyses/report/report.html.jinja",
    "analyses/report/causal.html.jinja",
    "analyses/report/patching.html.jinja",
    "analyses/report/across.html.jinja",
    "analyses/report/alike.html.jinja",
    "analyses/report/layers.html.jinja",
    "analyses/report/methods.html.jinja",
    "analyses/report/transfer.html.jinja",
    "analyses/study/full.toml",
    "analyses/report/style.css",
)
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
)


def pip(*words: str, cwd: Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *words]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in a copy, as setuptools leaves a build folder behind; tests are there, so that they could slip in."""
    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("these tests do not lie beside the sources")
    if importlib.util.find_spec("pip") is None:
        pytest.skip("pip is not installed here")
    source = tmp_path_factory.mktemp("source")
    for name in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("wheel")
    pip("wheel", ".", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(out), cwd=source)
    [built] = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    pip("install", "--no-deps", "--no-index", "--target", str(target), str(wheel), cwd=target)
    return target


def python(installed: Path, script: str) -> str:
    """Run ``script`` where twinprobe comes from ``installed`` alone: neither the current folder nor PYTHONPATH counts."""
    setup = f"import sys; sys.path.insert(0, {str(installed)!r})\n"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-I", "-c", setup + script]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=installed, env=environment)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_it_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert not [name for name in names if "test_" in name or "conftest" in name or "__pycache__" in name]
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


@pytest.mark.parametrize("file", FILES)
def test_it_holds_every_file_a_module_reads(wheel: Path, file: str) -> None:
    assert zipfile.ZipFile(wheel).read(file) == (ROOT / file).read_bytes()


@pytest.mark.parametrize("twin", TWINS)
def test_it_holds_the_twins(wheel: Path, twin: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in ("model.safetensors", "config.json", "tokenizer.json", "README.md"):
            file = f"activations/twins/{twin}/{name}"
            assert archive.read(file) == (ROOT / file).read_bytes()
        assert archive.getinfo(f"activations/twins/{twin}/model.safetensors").file_size < 10_000_000


def test_every_module_is_imported_from_it(installed: Path) -> None:
    script = f"""
import importlib
for name in {MODULES!r}:
    print(name, importlib.import_module(name).__file__)
"""
    lines = [line.split(" ", 1) for line in python(installed, script).splitlines()]
    assert [name for name, _ in lines] == MODULES
    assert {file for _, file in lines if not Path(file).is_relative_to(installed)} == set()


def test_it_knows_its_version_its_twins_and_its_study(installed: Path) -> None:
    script = """
from importlib.metadata import entry_points, version
from activations.models import embedded_twins
from activations.pairs import load_pairs
from analyses.study.settings import embedded_study, read_study
print(version("twinprobe"))
print(len(load_pairs()))
print(read_study(embedded_study()).name)
print(*embedded_twins())
[command] = [entry for entry in entry_points(group="console_scripts") if entry.name == "twinprobe"]
sys.argv = ["twinprobe", "--version"]
command.load()()
"""
    version, pairs, study, twins, said = python(installed, script).splitlines()
    assert version == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert int(pairs) > 30
    assert study == "embedded"
    assert twins.split() == sorted(TWINS)
    assert version in said
