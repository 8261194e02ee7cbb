"""Which rows a text gives: all its tokens, its last one, chosen positions, or its labelled spans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from activations.errors import TwinprobeError
from activations.inputs import Encoded

if TYPE_CHECKING:
    import torch

ROWS = ("tokens", "last", "positions", "spans")
POOLS = ("last", "first", "mean", "max")

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RowRule:
    """How texts become rows.

    ``rows`` is ``tokens`` (every token of the text's own), ``last`` (the last of them), ``positions`` (those counted in
    ``positions``, from 0 or, if negative, from the end) or ``spans`` (one row per span). ``pool`` says how a span of
    several tokens becomes one row: its ``last`` or ``first`` token, or the ``mean`` or ``max`` over its tokens and
    nothing else. BOS and other added tokens never count.
    """

    rows: str = "tokens"
    pool: str = "last"
    positions: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.rows not in ROWS:
            raise TwinprobeError(f"rows {self.rows!r} is not known; expected one of {', '.join(ROWS)}")
        if self.pool not in POOLS:
            raise TwinprobeError(f"pool {self.pool!r} is not known; expected one of {', '.join(POOLS)}")
        if self.pool != "last" and self.rows != "spans":
            raise TwinprobeError(f"pool {self.pool!r} goes with rows 'spans'; rows {self.rows!r} are single tokens")
        if (self.rows == "positions") != bool(self.positions):
            raise TwinprobeError(
                f"rows {self.rows!r} with positions {list(self.positions)}; positions such as 0,-1 and rows 'positions' "
                "go together"
            )
        if len(set(self.positions)) < len(self.positions):
            raise TwinprobeError(f"positions {list(self.positions)} name one twice")

    @property
    def averaged(self) -> bool:
        """Whether rows are means, which are taken in float32."""
        return self.pool == "mean"

    def plan(self, encoded: Encoded) -> TextRows:
        """The rows of one text, in order of position (``tokens``), as chosen (``positions``), or of its spans.

        Raises:
            TwinprobeError: the text is too short for a position, or no token covers one of its spans.
        """
        if self.rows == "spans":
            found = [self._pooled(encoded.positions(span)) for span in encoded.text.spans]
            positions = np.array([place for places in found for place in places], dtype=np.int64)
            counts = np.array([len(places) for places in found], dtype=np.int64)
            return TextRows(positions, counts, np.arange(len(found)))
        own = np.arange(encoded.own.start, encoded.own.stop)
        if self.rows == "tokens":
            positions = own
        elif self.rows == "last":
            positions = own[-1:]
        else:
            positions = own[[_place(encoded, position) for position in self.positions]]
        return TextRows(positions, np.ones(len(positions), dtype=np.int64), np.full(len(positions), -1))

    def _pooled(self, positions: list[int]) -> list[int]:
        return {"last": positions[-1:], "first": positions[:1]}.get(self.pool, positions)


def _place(encoded: Encoded, position: int) -> int:
    if not -len(encoded.own) <= position < len(encoded.own):
        raise TwinprobeError(
            f"text {encoded.text.id!r} has {len(encoded.own)} tokens and so no position {position}; "
            "leave that position or that text out"
        )
    return position


@dataclass(frozen=True, eq=False)
class TextRows:
    """The rows of one text: ``positions`` of their tokens, row after row ``[pooled]``; how many of them each row has
    ``[rows]``; the span each row stands for, -1 for none ``[rows]``.
    """

    positions: Integers
    counts: Integers
    spans: Integers

    @property
    def first(self) -> Integers:
        """The first position of each row."""
        return self.positions[np.cumsum(self.counts) - self.counts]

    @property
    def last(self) -> Integers:
        """The last position of each row."""
        return self.positions[np.cumsum(self.counts) - 1]


def selection(planned: Sequence[TextRows], pool: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function that takes the rows of a batch of texts out of ``[batch, pos, width]``, on that tensor's device.

    It returns ``[rows, width]``, text after text. Means are over a row's own tokens, in float32.
    """
    import torch

    counts = np.concatenate([part.counts for part in planned])
    lines = torch.from_numpy(np.repeat(np.arange(len(planned)), [len(part.positions) for part in planned]))
    positions = torch.from_numpy(np.concatenate([part.positions for part in planned]))
    single = bool((counts == 1).all())  # none at all counts too
    lengths = torch.from_numpy(counts)
    moved: dict[Any, Any] = {}

    def select(activation: torch.Tensor) -> torch.Tensor:
        device = activation.device
        if device not in moved:
            moved[device] = (lines.to(device), positions.to(device), lengths.to(device))
        line, position, length = moved[device]
        found = activation.flatten(0, 1).index_select(0, line * activation.shape[1] + position)
        if single:
            return found.float() if pool == "mean" else found
        pooled = torch.segment_reduce(found.float(), "mean" if pool == "mean" else "max", lengths=length, axis=0)
        return pooled if pool == "mean" else pooled.to(found.dtype)

    return select
