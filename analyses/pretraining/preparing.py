"""Tokenizer and packed tokens, made once for all runs of a design."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

from activations.errors import TwinprobeError
from analyses.pretraining.corpora import read_corpora
from analyses.pretraining.decontamination import EvaluationSets, decontaminate
from analyses.pretraining.design import Design, Kind
from analyses.pretraining.loop import Report
from analyses.pretraining.packing import Blocks, read_tokens, sample, train_tokenizer, write_tokens
from analyses.pretraining.processes import processes
from analyses.pretraining.spool import Spool

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Prepared:
    """Tokenizer and packed data, shared by all runs."""

    tokenizer: PreTrainedTokenizerFast
    training: dict[Kind, Blocks]
    held_out: dict[Kind, Blocks]
    bytes_per_token: dict[Kind, float]
    """Of the held-out text."""
    removed: dict[str, int]
    """Characters of training text cut out because an evaluation set has them too, by the set's path."""


def prepare(design: Design, data_dir: Path, out: Path, report: Report) -> Prepared:
    """Read the corpora, train the tokenizer and pack the tokens into ``out/data``, or read what is there.

    Documents are read and decontaminated once, one at a time, and kept in a file until they have become tokens.

    Raises:
        TwinprobeError: data is missing or damaged, or does not fill a block of a kind that a run needs.
    """
    from transformers import PreTrainedTokenizerFast

    folder, context = out / "data", design.architecture.context
    crowd = processes()
    if crowd.first and not folder.exists():
        temporary = out / "data.tmp"
        rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _write(design, data_dir, temporary, report)
        temporary.rename(folder)
    crowd.wait()
    facts = json.loads((folder / "facts.json").read_text())
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
    training, held_out = (read_tokens(folder / part, context) for part in ("training-", "held-out-"))
    bytes_per_token = {kind: facts["held_out_bytes"][kind] / held_out[kind].size for kind in held_out}
    return Prepared(tokenizer, training, held_out, bytes_per_token, facts["removed"])


def _write(design: Design, data_dir: Path, folder: Path, report: Report) -> None:
    against = design.decontamination
    sets = EvaluationSets(against.against, data_dir, against.words) if against.against else None
    removed: dict[str, int] = {}
    training, held_out = Spool(folder / "training.jsonl"), Spool(folder / "held-out.jsonl")
    count = 0
    with training, held_out:
        for count, (document, is_held_out) in enumerate(read_corpora(design.data, data_dir), start=1):
            if is_held_out:
                held_out.write(document)
            else:
                for piece in decontaminate(document, sets, against.margin, removed) if sets else [document]:
                    training.write(piece)
            report("reading data", count, count + 1, "")
    report("reading data", count, count, "")
    context = design.architecture.context
    tokenizer = train_tokenizer(
        _sampled(training, design.tokenizer.bytes_per_kind, report), design.tokenizer.vocabulary
    )
    tokenizer.model_max_length = context
    tokenizer.save_pretrained(folder / "tokenizer")
    stages = {"training-": (training, "tokenising"), "held-out-": (held_out, "tokenising what is held out")}
    for part, (spool, what) in stages.items():
        blocks = write_tokens(spool.read(what, report), tokenizer, context, folder / part)
        if spool is training:
            _check_blocks(design, data_dir, blocks)
        spool.path.unlink()
    held_out_bytes = {kind: sum(sizes) for kind, sizes in held_out.sizes.items()}
    facts = {"held_out_bytes": held_out_bytes, "removed": removed}
    (folder / "facts.json").write_text(json.dumps(facts, indent=2) + "\n")


def _sampled(spool: Spool, bytes_per_kind: int, report: Report) -> Iterator[str]:
    """The texts that the tokenizer is trained on."""
    chosen = sample(spool.sizes, bytes_per_kind, seed=0)
    place: Counter[Kind] = Counter()
    for document in spool.read("training the tokenizer", report):
        if place[document.kind] in chosen[document.kind]:
            yield document.text
        place[document.kind] += 1


def _check_blocks(design: Design, data_dir: Path, blocks: dict[Kind, int]) -> None:
    context = design.architecture.context
    for run in design.run:
        for kind, share in (("prose", 1 - run.code_share), ("code", run.code_share)):
            if share > 0 and kind not in blocks:
                raise TwinprobeError(
                    f"{data_dir}: the {kind} to train on does not fill one block of {context} tokens, but run "
                    f"{run.name!r} needs some; give more data or hold out less"
                )
