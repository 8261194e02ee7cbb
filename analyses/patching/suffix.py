"""Exact patching by suffixes: of every patched run, only what the patch can change is computed.

A patch at a layer and a position changes that layer and those above it, from that position on; earlier positions' keys
and values are the corrupted run's. The suffixes of all cells climb through the blocks in one batch, packed into lanes of
one width, which each joins at its layer. Only last positions are unembedded, and a cell that puts in what the corrupted
run has there anyway has the corrupted run's logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import TYPE_CHECKING

from activations.engines.hooks import Edit, editing
from activations.engines.places import locate
from activations.errors import TwinprobeError
from activations.models import LoadedModel
from activations.sites import Site
from analyses.last_position import KERNELS
from analyses.patching.lanes import lay_out, pack
from analyses.patching.recording import STREAM, NoSuffixes, Recording, record
from analyses.patching.runs import head_logits
from analyses.same_logits import same_logits

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float

MAX_TOKENS = 16_384
"""Slots of the lanes in one block call, empty ones included; bounds memory however many cells are asked for."""
MAX_SEEN = 65_536
"""Keys in one block call, every lane's copy of the earlier ones included; bounds memory where a long prompt ends in short
suffixes."""
SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z", "q", "k", "v", "mlp_post")
READ_LATER = ("resid_pre", "k", "v")
"""Sites that the last position of the same layer reads at earlier positions; others of the last layer nothing reads."""


@dataclass(frozen=True, eq=False)
class SiteCell:
    """One patch: the activation at ``site`` (or at one head of it) is replaced at ``positions`` by ``values``."""

    site: Site
    positions: tuple[int, ...]
    values: Float[torch.Tensor, "pos width"]


@dataclass(frozen=True, eq=False)
class _Climber:
    """What a cell changes, and where its run departs from the corrupted one: at position ``first``, under block ``depth``.

    ``site`` is without a head, whose columns are ``columns``.
    """

    number: int
    site: Site
    columns: slice
    positions: tuple[int, ...]
    values: torch.Tensor
    first: int
    depth: int


@dataclass(frozen=True, eq=False)
class _Joining:
    """A suffix in a batch: its lane, and how far its slots are from its positions."""

    climber: _Climber
    row: int
    offset: int


def suffix_logits(
    loaded: LoadedModel, corrupted: Recording, cells: Sequence[SiteCell]
) -> Float[torch.Tensor, "cell vocab"]:
    """Logits at the last position of the corrupted prompt, once per cell.

    Args:
        loaded: the model; it is left as it was found, also after an error.
        corrupted: the run that is patched, recorded at the sites of the cells.
        cells: the patches; each is a run of its own.

    Raises:
        TwinprobeError: a cell's site cannot be patched or was not recorded, or its values do not fit there.
    """
    import torch

    out = corrupted.logits.repeat(len(cells), 1)
    climbers = [found for number, cell in enumerate(cells) if (found := _climber(loaded, corrupted, number, cell))]
    with torch.inference_mode():
        width = len(corrupted.ids) - min((climber.first for climber in climbers), default=0)
        lanes = _lanes(climbers, len(corrupted.ids), width)
        size = max(1, min(MAX_TOKENS // width, MAX_SEEN // (len(corrupted.ids) + width)))
        for start in range(0, len(lanes), size):
            batch = lanes[start : start + size]
            numbers = [climber.number for lane in batch for climber in lane]
            out[numbers] = _climb(loaded, corrupted, batch, width)
    return out


def full_logits(loaded: LoadedModel, ids: Sequence[int], cell: SiteCell) -> Float[torch.Tensor, "... vocab"]:
    """The same for one cell by a plain forward pass over the prompt with a hook, to check against."""
    import torch

    columns = locate(loaded, cell.site).columns

    def put(tensor: torch.Tensor) -> torch.Tensor:
        changed = tensor.clone()
        changed[:, list(cell.positions), columns] = cell.values.to(tensor)
        return changed

    tokens = torch.tensor([list(ids)], device=loaded.device)
    with torch.inference_mode(), editing(loaded, replace(cell.site, head=None), put):
        return loaded.model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits[0, -1]


def has_suffixes(loaded: LoadedModel, ids: Sequence[int]) -> bool:
    """Whether this model's blocks, run from some position on, give what full forward passes give.

    To be asked with the longest prompt. Where it is false (recurrent layers, attention that goes by where keys lie and not
    by a mask), runs are to be recorded without suffixes, and every cell computes all positions.
    """
    import torch

    if loaded.model.config._attn_implementation not in KERNELS:
        return False
    try:
        shared = record(loaded, ids, suffixes=True)
        last = len(ids) - 1
        places = sorted({min(1, last), len(ids) // 2, last})  # the later two share a lane
        cells = [
            SiteCell(Site("resid_pre", layer), (at,), -shared.stream[layer, [at]])
            for layer in sorted({0, loaded.n_layers // 2})
            for at in places
        ]
        found = suffix_logits(loaded, shared, cells)
    except (NoSuffixes, AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        return False  # an error that is not of this route's making comes up again in whole runs
    expected = torch.stack([full_logits(loaded, ids, cell) for cell in cells])
    return same_logits(found, expected)


def _climber(loaded: LoadedModel, corrupted: Recording, number: int, cell: SiteCell) -> _Climber | None:
    """What a cell changes; ``None`` where its last position is that of the corrupted run.

    Raises:
        TwinprobeError: see :func:`suffix_logits`.
    """
    site, layer = replace(cell.site, head=None), cell.site.layer
    if layer is None or site.name not in SITES or layer >= loaded.n_layers:
        raise TwinprobeError(
            f"cell at {cell.site}: expected {', '.join(SITES)} of one of {loaded.n_layers} layers, such as resid_pre.0"
        )
    columns = locate(loaded, cell.site).columns
    before = _current(corrupted, site, cell.positions)[:, columns]
    if cell.values.shape != before.shape:
        received, expected = ("{} positions × width {}".format(*each.shape) for each in (cell.values, before))
        raise TwinprobeError(f"cell at {cell.site}: received values of {received}, expected {expected}")
    read = site.name in READ_LATER or layer < loaded.n_layers - 1
    differs = (cell.values.to(before) != before).any(-1).tolist()
    last = len(corrupted.ids) - 1
    kept = [i for i, at in enumerate(cell.positions) if differs[i] and (read or at == last)]
    if not kept:
        return None
    positions = tuple(cell.positions[i] for i in kept)
    first = min(positions) if corrupted.past else 0
    return _Climber(number, site, columns, positions, cell.values[kept], first, layer + (site.name == "resid_post"))


def _current(corrupted: Recording, site: Site, positions: Sequence[int]) -> torch.Tensor:
    """What the corrupted run has at some positions."""
    length = len(corrupted.ids)
    if not all(0 <= at < length for at in positions):
        raise TwinprobeError(f"cell at {site}: positions {list(positions)} are not all in a prompt of {length} tokens")
    try:
        return corrupted.at(site)[list(positions)]
    except KeyError:
        raise TwinprobeError(f"cell at {site}: the corrupted run was not recorded there; add it to its sites") from None


def _lanes(climbers: Sequence[_Climber], length: int, width: int) -> list[list[_Climber]]:
    """Suffixes that share a lane, which all join under one block; lanes in the order in which they join."""
    lanes = []
    for _, group in groupby(sorted(climbers, key=lambda one: one.depth), key=lambda one: one.depth):
        joining = list(group)
        packed = pack([length - climber.first for climber in joining], width)
        lanes += [[joining[index] for index in lane] for lane in packed]
    return lanes


def _climb(loaded: LoadedModel, corrupted: Recording, batch: Sequence[Sequence[_Climber]], width: int) -> torch.Tensor:
    """Take lanes of patched suffixes through the blocks; the logits are in the order of the lanes and of their suffixes."""
    import torch

    length, device = len(corrupted.ids), corrupted.stream.device
    lanes = lay_out([[climber.first for climber in lane] for lane in batch], length, width, device)
    ends = [list(accumulate(length - climber.first for climber in lane)) for lane in batch]
    states = corrupted.stream[:0, :width]
    for depth in range(batch[0][0].depth, loaded.n_layers + 1):
        rows = [row for row, lane in enumerate(batch) if lane[0].depth == depth]
        joining = [_Joining(c, row, end - length) for row in rows for c, end in zip(batch[row], ends[row], strict=True)]
        if rows:
            states = torch.cat([states, corrupted.stream[depth][lanes.positions[rows]]])
            _put(states, [one for one in joining if one.climber.site.name in STREAM])
        if depth < loaded.n_layers:
            with _inside(loaded, joining):
                states = corrupted.block(loaded, depth, states, lanes[: len(states)])
    lasts = [(row, end - 1) for row, line in enumerate(ends) for end in line]
    return head_logits(loaded, states[tuple(zip(*lasts, strict=True))][:, None])[:, 0]


def _put(states: torch.Tensor, joining: Sequence[_Joining]) -> None:
    for each in joining:
        climber = each.climber
        slots = [each.offset + at for at in climber.positions]
        states[each.row, slots, climber.columns] = climber.values.to(states)


@contextmanager
def _inside(loaded: LoadedModel, joining: Sequence[_Joining]) -> Iterator[None]:
    """While active, a block's activations at other sites than the residual stream are patched, suffix by suffix."""

    def edit(chosen: Sequence[_Joining]) -> Edit:
        def put(tensor: torch.Tensor) -> torch.Tensor:
            changed = tensor.clone()
            _put(changed, chosen)
            return changed

        return put

    with ExitStack() as stack:
        for site in {one.climber.site for one in joining if one.climber.site.name not in STREAM}:
            chosen = [one for one in joining if one.climber.site == site]
            stack.enter_context(editing(loaded, site, edit(chosen)))
        yield
