"""Bits per byte of held-out text: how well a model predicts prose and code, whatever its tokenizer. Lower is better."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field

from activations.errors import TwinprobeError
from activations.texts import Text
from analyses.benchmarks.bits_per_byte import drawn_passages, passages, score
from analyses.pretraining.evaluation.inputs import decoder, steps
from analyses.pretraining.evaluation.score import Evaluation, Score
from analyses.pretraining.loop import Report
from analyses.pretraining.packing import read_tokens
from analyses.pretraining.tables import Kind


class BitsPerByte(Evaluation):
    """A ``[[bits_per_byte]]`` table: which kinds of text, and how much of each."""

    kinds: tuple[Kind, ...] = Field(("prose", "code"), min_length=1)
    prose: str | None = None
    """A JSONL file of texts from the folder of the data; without it, what the family of the model held out."""
    code: str | None = None
    passages: int = Field(60, gt=0)
    characters: int = Field(600, ge=50)
    seed: int = 0
    group: str = "bits per byte (lower is better)"


def bits_per_byte(table: BitsPerByte, model_folder: Path, data_dir: Path, scratch: Path, report: Report) -> list[Score]:
    """Bits per byte of each kind of text, over all passages: a slope below 0 means that more code helps.

    Raises:
        TwinprobeError: there is no held-out text of a kind, or the model is no decoder.
    """
    texts = {kind: _passages(table, kind, model_folder, data_dir) for kind in table.kinds}
    loaded, bos = decoder(model_folder, inside=False)
    scores = []
    for kind, of_kind in texts.items():
        found = score(loaded, of_kind, bos=bos, progress=steps(report, kind))
        bits = float(found.bits.sum() / found.bytes.sum())
        detail = {"bytes": float(found.bytes.sum()), "bits_per_token": float(found.bits.sum() / found.tokens.sum())}
        scores.append(Score(f"{table.name} {kind}", bits, kind, table.group, len(found), detail))
    return scores


def _passages(table: BitsPerByte, kind: Kind, model_folder: Path, data_dir: Path) -> list[Text]:
    path = {"prose": table.prose, "code": table.code}[kind]
    if path is not None:
        return passages(kind, str(data_dir / path), table.passages, table.characters, table.seed)
    return drawn_passages(kind, held_out(model_folder, kind), table.passages, table.characters, table.seed)


def held_out(model_folder: Path, kind: Kind) -> list[tuple[str, str]]:
    """Names and texts of the documents that the family of a model held out, from the tokens in the folder of its runs.

    ``model_folder`` is ``RUNS/<run>/model``; the tokens are in ``RUNS/data``. Names are numbers in the order of the data.

    Raises:
        TwinprobeError: there are none of this kind.
    """
    from transformers import PreTrainedTokenizerFast

    data = model_folder.parent.parent / "data"
    blocks = read_tokens(data / "held-out-", 1).get(kind)
    if blocks is None:
        raise TwinprobeError(
            f'{data} holds no held-out {kind}; name a JSONL file of texts with {kind} = "FILE", or leave {kind} out of kinds'
        )
    tokenizer = PreTrainedTokenizerFast.from_pretrained(data / "tokenizer")
    ids = blocks.ravel()
    documents = np.split(ids, np.flatnonzero(ids == tokenizer.eos_token_id))
    decoded = tokenizer.batch_decode([part.tolist() for part in documents], skip_special_tokens=True)
    # The last document ends where the last block did, maybe amid a character.
    return [(f"{number:06d}", text.rstrip("\ufffd")) for number, text in enumerate(decoded) if text]
