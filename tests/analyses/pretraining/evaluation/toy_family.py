"""A family of tiny models on disk, and a transformation that they learn in a second."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conftest import MakeModel

WORDS = ("the", "box", "girl", "sea", "man", "rain", "coin", "red")
PAIRS = [*itertools.pairwise(WORDS)]
RIGHT = [(f"{a} {b}", f"{b} and {a}") for a, b in PAIRS]
WRONG = [(f"{a} {b}", f"{a} {b}") for a, b in PAIRS]
"""The same sources with targets that no model learns."""
EVALUATION = """
[[finetune]]
name = "swap"
train = "train.tsv"
test = "train.tsv"
gen = "gen.tsv"
categories = { easy = "lexical", hard = "structural" }
epochs = 60
batch = 7
learning_rate = 2e-2
weight_decay = 0.0
precision = "float32"
"""


def write_examples(folder: Path) -> Path:
    """Training examples, and a generalisation set whose easy half is learnt by heart and whose hard half never is."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = {
        "train.tsv": [(*pair, "in_distribution") for pair in RIGHT],
        "gen.tsv": [*((*pair, "easy") for pair in RIGHT), *((*pair, "hard") for pair in WRONG)],
    }
    for name, examples in lines.items():
        (folder / name).write_text("".join("\t".join(example) + "\n" for example in examples))
    return folder


def write_model(make_model: MakeModel, runs: Path, name: str, **run: Any) -> Path:
    """A finished run of a family: a tiny model with its tokenizer and training.json."""
    folder = runs / name / "model"
    loaded = make_model("llama", seed=run.get("seed", 0))
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    facts = {"design": "toy", "run": {"name": name, "code_share": 0.0, "seed": 0, "tokens": None, **run}}
    (folder / "training.json").write_text(json.dumps(facts))
    return folder
