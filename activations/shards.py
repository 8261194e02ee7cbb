"""One shard's worth of capture: run an engine over consecutive texts and collect the rows asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from activations.engines import Engine
from activations.errors import TwinprobeError
from activations.inputs import Encoded, batches, pad
from activations.layout import INPUT_COLUMNS, ROW_COLUMNS
from activations.rows import RowRule, TextRows, selection
from activations.sites import Site
from activations.writer import Shard

if TYPE_CHECKING:
    import torch


def nothing(done: int) -> None:
    """Progress that nobody looks at."""


@dataclass(frozen=True)
class Recipe:
    """How to capture any shard of a job: what to read, which rows, as what type, in how large batches."""

    sites: tuple[Site, ...]
    rule: RowRule
    dtype: str
    batch_tokens: int
    pad_id: int


def run_shard(
    engine: Engine,
    device: torch.device,
    recipe: Recipe,
    encoded: Sequence[Encoded],
    first: int,
    advance: Callable[[int], None] = nothing,
) -> Shard:
    """Capture consecutive texts.

    Args:
        engine: what runs the model.
        device: where token ids go.
        recipe: what to capture, and how.
        encoded: the texts of this shard; they run in batches of similar length and come back in order.
        first: number of the first of them in the whole text set.
        advance: called with texts done.

    Raises:
        TwinprobeError: rows of a type that the storage type would lose bits of.
    """
    planned = [recipe.rule.plan(item) for item in encoded]
    starts = np.cumsum([0, *(len(part.counts) for part in planned)])
    landing = _Landing({site: _empty(int(starts[-1]), engine.width(site), recipe.dtype) for site in recipe.sites})
    done = 0
    for batch in batches([len(item) for item in encoded], recipe.batch_tokens):
        rows = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in batch])
        if len(rows):
            ids, mask = pad([encoded[i].tokens for i in batch], recipe.pad_id, device)
            select = selection([planned[i] for i in batch], recipe.rule.pool)
            landing.land(engine.forward(ids, mask, recipe.sites, select), rows)
        done += len(batch)
        advance(done)
    values = landing.finish()
    return Shard(_columns(encoded, planned, first), values, _inputs(encoded, first))


def _empty(rows: int, width: int, dtype: str) -> torch.Tensor:
    import torch

    kinds = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    return torch.empty((rows, width), dtype=kinds[dtype])


@dataclass
class _Landing:
    """The arrays of a shard, and the rows on their way there.

    Rows of a GPU are copied to pinned memory on a stream of their own while the next batch is computed, and are put in
    their places when that one has been launched.
    """

    values: dict[Site, torch.Tensor]
    _on_the_way: tuple[dict[Site, torch.Tensor], npt.NDArray[np.int64], list[Any]] | None = None
    _streams: dict[Any, Any] = field(default_factory=dict)

    def land(self, found: dict[Site, torch.Tensor], rows: npt.NDArray[np.int64]) -> None:
        """Take a batch's rows; the batch before it is put in place."""
        before = self._on_the_way
        copies = {site: self._copy(site, found[site]) for site in self.values}
        self._on_the_way = (copies, rows, [stream.record_event() for stream in self._streams.values()])
        self._place(before)

    def _copy(self, site: Site, rows: torch.Tensor) -> torch.Tensor:
        """``rows`` in this machine's memory, or for those of a GPU, where they will be."""
        import torch

        if self.values[site].dtype not in (rows.dtype, torch.float32):
            kind, stored = (str(dtype).removeprefix("torch.") for dtype in (rows.dtype, self.values[site].dtype))
            raise TwinprobeError(
                f"rows of {site} are {kind}, which storage dtype {stored} would lose bits of; store float32"
            )
        if rows.device.type != "cuda":
            return rows.cpu()
        if rows.device not in self._streams:
            self._streams[rows.device] = torch.cuda.Stream(rows.device)
        stream = self._streams[rows.device]
        stream.wait_stream(torch.cuda.current_stream(rows.device))
        with torch.cuda.stream(stream):
            pinned = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
            pinned.copy_(rows, non_blocking=True)
        rows.record_stream(stream)
        return pinned

    def _place(self, batch: tuple[dict[Site, torch.Tensor], npt.NDArray[np.int64], list[Any]] | None) -> None:
        import torch

        if batch is None:
            return
        found, rows, events = batch
        for event in events:
            event.synchronize()
        places = torch.from_numpy(rows)
        for site, values in self.values.items():
            values.index_copy_(0, places, found[site].to(values.dtype))

    def finish(self) -> dict[Site, npt.NDArray[Any]]:
        """Put the last batch in place; the arrays, bfloat16 as its bits."""
        import torch

        self._place(self._on_the_way)
        return {
            site: (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
            for site, tensor in self.values.items()
        }


def _columns(encoded: Sequence[Encoded], planned: Sequence[TextRows], first: int) -> dict[str, npt.NDArray[np.int64]]:
    parts = [
        (
            np.full(len(rows.counts), number),
            rows.last,
            item.tokens[rows.last],
            item.ranges[rows.first, 0],
            item.ranges[rows.last, 1],
            rows.spans,
        )
        for number, (item, rows) in enumerate(zip(encoded, planned, strict=True), start=first)
    ]
    joined = [np.concatenate(column).astype(np.int64) for column in zip(*parts, strict=True)]
    return dict(zip(ROW_COLUMNS, joined, strict=True))


def _inputs(encoded: Sequence[Encoded], first: int) -> dict[str, npt.NDArray[np.int64]]:
    texts = np.repeat(np.arange(first, first + len(encoded)), [len(item) for item in encoded])
    ranges = np.concatenate([item.ranges for item in encoded])
    columns = (texts, np.concatenate([item.tokens for item in encoded]), ranges[:, 0], ranges[:, 1])
    return {name: column.astype(np.int64) for name, column in zip(INPUT_COLUMNS, columns, strict=True)}
