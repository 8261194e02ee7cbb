"""Lanes: the suffixes of many patched runs of one prompt, side by side in rows of one width, with none seeing another.

A short suffix shares a lane with others, so that a batch has hardly any padding. A token of a lane reads the prompt's own
keys and values of the positions before its suffix, and the earlier tokens of its suffix.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Int, Shaped


@dataclass(frozen=True, eq=False)
class Lanes:
    """What is where in a batch: for every slot its position in the prompt, its suffix's number and first position.

    Slots that nothing fills repeat the last position and have number -1.
    """

    positions: Int[torch.Tensor, "lane slot"]
    numbers: Int[torch.Tensor, "lane slot"]
    firsts: Int[torch.Tensor, "lane slot"]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, which: slice) -> Lanes:
        """Some of the lanes."""
        return Lanes(self.positions[which], self.numbers[which], self.firsts[which])

    @property
    def before(self) -> int:
        """How many of the prompt's first positions any slot can read."""
        return int(self.firsts.max())


def pack(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Indices of the suffixes that share a lane: the longest that is left, and the shortest as long as there is room."""
    left = deque(sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True))
    lanes = []
    while left:
        lane = [left.popleft()]
        room = width - lengths[lane[0]]
        while left and lengths[left[-1]] <= room:
            lane.append(left.pop())
            room -= lengths[lane[-1]]
        lanes.append(lane)
    return lanes


def lay_out(lanes: Sequence[Sequence[int]], length: int, width: int, device: torch.device) -> Lanes:
    """Lanes of suffixes, given by their first positions in a prompt of ``length`` tokens."""
    import torch

    positions, numbers, firsts = (torch.full((len(lanes), width), empty) for empty in (length - 1, -1, 0))
    for lane, starts in enumerate(lanes):
        slot = 0
        for number, first in enumerate(starts):
            filled = slice(slot, slot + length - first)
            positions[lane, filled] = torch.arange(first, length)
            numbers[lane, filled], firsts[lane, filled] = number, first
            slot = filled.stop
    return Lanes(positions.to(device), numbers.to(device), firsts.to(device))


def lane_mask(mask: Shaped[torch.Tensor, "pos pos"], lanes: Lanes) -> Shaped[torch.Tensor, "lane 1 slot before+slot"]:
    """What each slot reads of the earlier positions and of its lane, where a plain pass has ``mask``.

    ``mask`` is of booleans (true: read), or of numbers that are added to attention scores.
    """
    import torch

    positions, before = lanes.positions, lanes.before
    earlier = torch.arange(before, device=mask.device) < lanes.firsts[..., None]
    own = lanes.numbers[:, :, None] == lanes.numbers[:, None]
    seen = torch.cat([earlier, own], dim=2)
    full = torch.cat([mask[positions, :before], mask[positions[:, :, None], positions[:, None]]], dim=2)
    if mask.dtype == torch.bool:
        return (full & seen)[:, None]
    return full.masked_fill(~seen, torch.finfo(mask.dtype).min)[:, None]


def at_positions(value: Shaped[torch.Tensor, "1 pos *rest"], lanes: Lanes) -> Float[torch.Tensor, "lane slot *rest"]:
    """Rows of something that is the same for every lane but goes by position."""
    return value[0, lanes.positions]
