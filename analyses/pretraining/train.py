"""Train the runs of a design."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from activations.errors import TwinprobeError, did_you_mean
from activations.files import write_whole
from analyses.pretraining.architectures import new_model, vocabulary_of
from analyses.pretraining.card import model_card
from analyses.pretraining.design import Design, Kind, Run
from analyses.pretraining.finished import write_model
from analyses.pretraining.loop import Batch, Report, loss_function, optimise
from analyses.pretraining.packing import mixture
from analyses.pretraining.preparing import Prepared, prepare
from analyses.pretraining.processes import processes
from analyses.pretraining.provenance import provenance
from analyses.pretraining.tuning import check_instructions, tune_design

if TYPE_CHECKING:
    from transformers import PreTrainedModel

EVALUATION_BLOCKS = 256
"""Of each kind, drawn from all that is held out: the first would be of one book."""


def train_run(design: Design, run: Run, prepared: Prepared, out: Path, report: Report, command: str = "") -> Path:
    """Train one run into ``out/<run name>``; return the folder of the finished model.

    Args:
        command: what was typed, for the model card.
    """
    import torch

    folder = out / run.name
    finished = folder / "model"
    if (finished / "model.safetensors").exists():
        return finished
    folder.mkdir(parents=True, exist_ok=True)
    settings = design.training
    model = new_model(design.architecture, run.seed, **vocabulary_of(prepared.tokenizer))
    steps = design.steps(run)
    blocks = {kind: len(rows) for kind, rows in prepared.training.items()}
    order = mixture(blocks, run.code_share, steps * settings.batch, run.seed)
    checkpoint = folder / "checkpoint.pt"

    def batch_at(step: int) -> Batch:
        chosen = order[step * settings.batch : (step + 1) * settings.batch]
        ids = torch.from_numpy(np.stack([prepared.training[kind][row] for kind, row in chosen]).astype(np.int64))
        return Batch(ids, ids)

    losses = optimise(model, batch_at, steps, settings, checkpoint, run.name, report)
    crowd = processes()
    crowd.wait()  # until all have read the checkpoint that the first one is to remove
    if crowd.first:
        model = model.to(torch.bfloat16)
        held_out = {kind: round(_bits_per_byte(model, prepared, kind), 4) for kind in prepared.held_out}
        facts = {**_facts(design, run, prepared, losses), "held_out_bits_per_byte": held_out, **provenance(command)}
        facts["parameters"] = sum(parameter.numel() for parameter in model.parameters())
        write_model(folder, model, prepared.tokenizer, losses, facts, model_card(design, facts, losses))
        checkpoint.unlink(missing_ok=True)
    crowd.wait()
    return finished


def _facts(design: Design, run: Run, prepared: Prepared, losses: list[float]) -> dict[str, Any]:
    """What ``training.json`` says of a run, but for what is measured on the finished model."""
    seen = design.tokens_seen(run)
    return {
        "design": design.name,
        "run": {**run.model_dump(mode="json"), "tokens": run.tokens or design.training.tokens},
        "architecture": design.architecture.kind,
        "tokens": sum(seen.values()),
        "tokens_seen": seen,
        "steps": len(losses),
        "epochs": {kind: round(seen[kind] / blocks.size, 3) for kind, blocks in prepared.training.items()},
        "decontamination": {**design.decontamination.model_dump(mode="json"), "characters_cut": prepared.removed},
        "final_loss": round(float(np.mean(losses[-100:])), 4),
    }


def _bits_per_byte(model: PreTrainedModel, prepared: Prepared, kind: Kind) -> float:
    """Bits per byte of the finished bfloat16 weights, computed in float32, on held-out blocks."""
    import torch

    loss = loss_function(model.float(), "float32")
    blocks = prepared.held_out[kind]
    drawn = np.sort(np.random.default_rng(0).permutation(len(blocks))[:EVALUATION_BLOCKS])
    rows = torch.from_numpy(blocks[drawn].astype(np.int64))
    with torch.inference_mode():
        nats = float(np.mean([loss(part, part).item() for part in rows.split(16)]))
    model.to(torch.bfloat16)
    return nats / math.log(2) / prepared.bytes_per_token[kind]


def train_design(
    design: Design, data_dir: Path, out: Path, report: Report, only: Sequence[str] = (), command: str = ""
) -> dict[str, Path]:
    """Train every run of the design, or those named in ``only``, through both stages; return the folder of each model.

    With several processes (see :mod:`analyses.pretraining.processes`) the first one writes and reports.

    Args:
        command: what was typed, for the model cards.

    Raises:
        TwinprobeError: ``only`` names an unknown run, ``out`` holds another design, or see :func:`prepare`.
    """
    runs = chosen_runs(design, only)
    report = report if processes().first else lambda *_: None
    out.mkdir(parents=True, exist_ok=True)
    _record(design, out)
    check_instructions(design, data_dir, out, runs)
    prepared: Prepared | None = None
    left = unfinished(out, runs)
    processes().wait()  # until all have looked: where only the end was missing, the first one is there at once
    for run in left:
        prepared = prepared or prepare(design, data_dir, out, report)
        train_run(design, run, prepared, out, report, command)
    return {run.name: out / run.name / "model" for run in runs} | tune_design(
        design, data_dir, out, report, runs, command
    )


def chosen_runs(design: Design, only: Sequence[str]) -> list[Run]:
    """The runs named in ``only``, or all.

    Raises:
        TwinprobeError: a name that no run has.
    """
    known = [run.name for run in design.run]
    for name in only:
        if name not in known:
            raise TwinprobeError(
                f"run {name!r} is not in the design {design.name!r}{did_you_mean(name, known)}; "
                f"its runs are {', '.join(known)}"
            )
    return [run for run in design.run if not only or run.name in only]


def unfinished(out: Path, runs: Sequence[Run]) -> list[Run]:
    """Those of ``runs`` whose models are not there yet."""
    return [run for run in runs if not (out / run.name / "model" / "model.safetensors").exists()]


def _record(design: Design, out: Path) -> None:
    """Note the design whose runs ``out`` holds, or check that it is still the same; runs may have come to it."""
    record, text = out / "design.json", design.model_dump_json(indent=2, exclude={"tuning"})
    if record.exists() and not _continues(record.read_text(), design):
        raise TwinprobeError(f"{out} holds runs of another design; choose another --out or remove the folder")
    if processes().first and not (record.exists() and record.read_text() == text):
        write_whole(record, text.encode())


def _continues(record: str, design: Design) -> bool:
    """Whether all is as it was but for runs that came or went; the second stage keeps a record of its own."""
    try:
        before = Design.model_validate_json(record)
    except ValidationError:
        return False
    apart = {"run", "family", "tuning"}
    runs = {run.name: run for run in design.run}
    return before.model_dump(exclude=apart) == design.model_dump(exclude=apart) and all(
        runs.get(run.name, run) == run for run in before.run
    )
