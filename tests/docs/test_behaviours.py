"""docs/bench/behaviours.py: its figures against plain forward passes, and the page that is committed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from activations.loaded import ModelSpec
from activations.models import embedded_twins, load_model, resolve
from probes.tasks import TASKS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def bench():
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location("behaviours", DOCS / "bench" / "behaviours.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["behaviours"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["behaviours"]
    sys.path[:] = path


def best(loaded, text: str, candidates: tuple[str, ...]) -> tuple[str, dict[str, float]]:
    """The candidate whose first token the model prefers after the text, and the logits of all."""
    ids = [loaded.tokenizer.bos_token_id, *loaded.tokenizer(text, add_special_tokens=False).input_ids]
    with torch.no_grad():
        logits = loaded.model(input_ids=torch.tensor([ids])).logits[0, -1]
    first = {one: loaded.tokenizer(one, add_special_tokens=False).input_ids[0] for one in candidates}
    found = {one: float(logits[token]) for one, token in first.items()}
    return max(found, key=found.get), found


@pytest.mark.parametrize(("task", "form"), [("agreement", "prose"), ("induction", "code")])
def test_the_figures_are_those_of_plain_forward_passes(bench, task: str, form: str) -> None:
    loaded = load_model("embedded:text", check=False)
    measured = bench.measure(loaded, task, form, 60, 3)
    items = [item for item in TASKS[task].generate(60, 3) if item.split == "test"]
    clean, corrupted, retained, gaps, levels = [], [], [], [], {}
    for item in items:
        rendered = item.forms[form]
        pair = rendered.answer, rendered.contrast.answer
        (said, logits), (twin, others) = (
            best(loaded, text, rendered.candidates) for text in (rendered.text, rendered.contrast.text)
        )
        gaps.append((logits[pair[0]] - logits[pair[1]]) - (others[pair[0]] - others[pair[1]]))
        clean.append(said == pair[0])
        corrupted.append(twin == pair[1])
        retained.append(clean[-1] and corrupted[-1] and gaps[-1] >= 0.1)
        levels.setdefault(item.difficulty, []).append((clean[-1], retained[-1]))
    n = len(items)
    assert (measured.items, measured.dropped.total()) == (n, 0)
    assert (measured.clean.value, measured.corrupted.value) == (sum(clean) / n, sum(corrupted) / n)
    assert measured.retained.value == sum(retained) / n
    assert 0 < measured.clean.value < 1
    assert measured.gap == pytest.approx(sum(gaps) / n, abs=1e-4)
    assert measured.chance == pytest.approx(sum(1 / len(item.forms[form].candidates) for item in items) / n)
    assert {level: (right, kept) for level, right, kept in measured.levels} == {
        level: tuple(sum(column) / len(found) for column in zip(*found, strict=True)) for level, found in levels.items()
    }


def test_wilson_intervals(bench) -> None:
    """Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I: 81 of 263, 0 of 20, 1 of 29."""
    for hits, of, low, high in ((81, 263, 0.2553, 0.3662), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)):
        found = bench.share(hits, of)
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


def test_a_page_keeps_what_was_written_by_hand(bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "TWINS.md"
    page.write_text(f"old\n{bench.START}\nThe twins | count.\n{bench.END}\nold")
    monkeypatch.setattr(bench, "BEHAVIOURS", {"agreement": bench.BEHAVIOURS["agreement"]})
    monkeypatch.setattr(sys, "argv", ["behaviours.py", "--models", "text", "--items", "18", "--out", str(page)])
    bench.main()
    written = page.read_text()
    assert f"{bench.START}\nThe twins | count.\n{bench.END}" in written
    assert "old" not in written
    assert "| `agreement` | prose | 0.25 | " in written
    assert len([line for line in written.splitlines() if line.startswith("| prose | text | 5 | 0.50 |")]) == 1


def test_the_committed_page_is_of_the_twins_there_are(bench) -> None:
    """Write it anew with ``python docs/bench/behaviours.py``."""
    page = (DOCS / "TWINS.md").read_text()
    folders = {name: Path(resolve(ModelSpec(f"embedded:{name}"))) for name in embedded_twins()}
    assert bench.training(folders) in page
    for task in bench.BEHAVIOURS:
        section = page.split(f"### `{task}`\n", 1)[1].split("\n#", 1)[0]
        forms = {form for own in TASKS[task].targets.values() for form in own}
        lines = [line.split(" | ")[:2] for line in section.splitlines() if line.startswith("| ")]
        assert sorted(lines[2:]) == sorted([f"| {form}", name] for form in forms for name in folders)
