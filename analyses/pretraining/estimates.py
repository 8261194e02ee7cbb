"""What a design will take: tokens and steps of each run, time from a few steps, room on the disk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analyses.pretraining.architectures import new_model
from analyses.pretraining.design import Data, Design, Run
from analyses.pretraining.loop import loss_function
from analyses.pretraining.processes import processes

SECONDS = 5.0
"""No further step is timed after so many."""
STEPS = 3
_TEXT_PER_TOKEN = 3.0  # bytes; a low guess, for byte-level BPE of some thousand entries
_PACKED = 4.0  # text in one byte of a .tar.gz


@dataclass(frozen=True)
class Estimate:
    """Time and room for runs that are not finished.

    Attributes:
        seconds_per_step: measured on random tokens, without ``torch.compile``.
        device: where.
        seconds: of all steps; reading data, compiling and the second stage come on top.
        checkpoint_bytes: while a run is trained, one of them and its successor at once; gone when it is finished.
        model_bytes: the finished models, in bfloat16.
        data_bytes: packed tokens, and the text kept beside them while they are made; ``None`` where a source is not here.
    """

    seconds_per_step: float
    device: str
    seconds: float
    checkpoint_bytes: int
    model_bytes: int
    data_bytes: int | None


def table(design: Design, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A line per run: its name, share of code, tokens of each kind, steps, seed, and the settings that it serves."""
    lines = []
    for run in runs:
        seen = design.tokens_seen(run)
        lines.append(
            {
                "name": run.name,
                "code_share": run.code_share,
                "prose_tokens": seen["prose"],
                "code_tokens": seen["code"],
                "steps": design.steps(run),
                "seed": run.seed,
                "serves": [point.model_dump() for point in run.serves],
            }
        )
    return lines


def estimate(design: Design, runs: Sequence[Run], data_dir: Path, out: Path | None) -> Estimate:
    """Time a few steps of the model on random tokens, and add up what ``runs`` will take."""
    per_step, parameters = _time_a_step(design)
    prepared = out is not None and (out / "data").exists()
    return Estimate(
        seconds_per_step=per_step,
        device=processes().device.type,
        seconds=per_step * sum(map(design.steps, runs)),
        checkpoint_bytes=2 * 12 * parameters,  # weights and two moments in float32
        model_bytes=2 * parameters * len(runs),
        data_bytes=0 if prepared else _data_bytes(design.data, data_dir),
    )


def _time_a_step(design: Design) -> tuple[float, int]:
    """Seconds for a step of every process at once, and the number of parameters."""
    import torch

    settings, device = design.training, processes().device
    model = new_model(design.architecture, seed=0, vocab_size=design.tokenizer.vocabulary).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, fused=True)
    loss_of = loss_function(model, settings.precision)
    rows = -(-settings.batch // processes().count)
    ids = torch.randint(design.tokenizer.vocabulary, (rows, design.architecture.context))
    times: list[float] = []
    while len(times) <= STEPS and sum(times) < SECONDS:
        began = time.monotonic()
        loss = loss_of(ids, ids)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        loss.item()
        times.append(time.monotonic() - began)
    # The first step also allocates memory and picks kernels.
    return min(times[1:] or times), model.num_parameters()


def _data_bytes(sources: Sequence[Data], data_dir: Path) -> int | None:
    """Text and its packed tokens (two bytes each); ``None`` where the size of a source can not be told before it is read."""
    total = 0.0
    for data in sources:
        path = data_dir / data.path if data.path else None
        if data.characters is not None:
            total += data.characters
        elif path is None or not path.exists():
            return None
        elif path.is_dir():
            total += sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        else:
            total += path.stat().st_size * (_PACKED if path.suffix in (".gz", ".tgz") else 1)
    return round(total * (1 + 2 / _TEXT_PER_TOKEN))
