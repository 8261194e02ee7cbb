"""Models and files of which it is known what an evaluation must say."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING

from planted_models import FILLERS, LETTERS, copying_pair

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.models import LoadedModel

N_ITEMS = 120


def save(loaded: LoadedModel, runs: Path, name: str) -> Path:
    """A finished run of a family that is no more than a model."""
    folder = runs / name / "model"
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    (folder / "training.json").write_text(json.dumps({"run": {"name": name, "code_share": 0.0, "seed": 0}}))
    return folder


def planted_runs(make_model: MakeModel, runs: Path) -> dict[str, Path]:
    """A model whose head 3 of layer 1 copies its prompt's only letter to the end, and one that lacks that head."""
    base, planted = copying_pair(make_model)
    return {"base": save(base, runs, "base"), "copying": save(planted.loaded, runs, "copying")}


def write_items(path: Path) -> None:
    """Items whose answer is the only letter of the text; labelled with it (``letter``), or by a coin (``coin``)."""
    rng = random.Random(0)
    lines = []
    for number in range(N_ITEMS):
        answer, contrast = rng.sample(LETTERS[:3], 2)
        before, after = ("".join(rng.sample(FILLERS, 2)) for _ in range(2))
        text, end = f"{before}{answer}{after}", 5
        spans = [
            {"name": name, "start": end - 1, "end": end, "label": label, "control": text}
            for name, label in (("letter", answer), ("coin", rng.choice(["heads", "tails"])))
        ]
        form = {
            "text": text, "answer": answer, "candidates": list(LETTERS[:3]), "spans": spans,
            "contrast": {"text": f"{before}{contrast}{after}", "answer": contrast},
        }  # fmt: skip
        lines.append(json.dumps({"id": str(number), "group": str(number), "forms": {"formal": form}}))
    path.write_text("\n".join(lines) + "\n")


def write_questions(path: Path, questions: list[tuple[str, list[str], int]]) -> None:
    """A file of questions in llm-foundry's layout: query, choices, gold."""
    rows = [{"query": query, "choices": choices, "gold": gold} for query, choices, gold in questions]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
