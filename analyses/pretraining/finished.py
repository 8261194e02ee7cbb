"""The folder of a finished model: weights, tokenizer, loss curve, facts, model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def write_model(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    losses: Sequence[float],
    facts: Mapping[str, Any],
    card: str,
) -> None:
    """Write ``folder/model`` under a temporary name, then rename: it is there whole or not at all.

    Args:
        losses: of every step; ``loss.csv`` has every tenth.
        facts: for ``training.json``.
        card: ``README.md``.
    """
    temporary = folder / "model.tmp"
    rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    curve = pd.DataFrame({"step": np.arange(1, len(losses) + 1), "loss": np.round(losses, 4)})
    curve[(curve.step % 10 == 0) | (curve.step == len(losses))].to_csv(temporary / "loss.csv", index=False)
    (temporary / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    (temporary / "README.md").write_text(card, encoding="utf-8")
    temporary.rename(folder / "model")
