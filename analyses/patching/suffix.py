"""Exact patching by suffixes: of every patched run, only what the patch can change is computed.

A patch at a layer and a position changes that layer and those above it, from that position on; earlier positions' keys
and values are those of the run that is patched. The suffixes of all cells climb through the blocks in one batch, packed
into lanes of one width, which each joins at its layer. Only last positions are unembedded, and a cell that puts in what
the run has there anyway has the run's own logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any

from activations.engines.hooks import Edit, editing, first_tensor, input_tensor
from activations.models import LoadedModel
from activations.sites import Site
from analyses.patching.cells import Cell, Climber, Put, climbers_of
from analyses.patching.head import head_logits
from analyses.patching.lanes import lay_out, pack
from analyses.patching.recording import STREAM, Recording

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float

MAX_TOKENS = 16_384
"""Slots of the lanes in one block call, empty ones included; bounds memory however many cells are asked for."""
MAX_SEEN = 65_536
"""Keys in one block call, every lane's copy of the earlier ones included; bounds memory where a long prompt ends in short
suffixes."""
MAX_LOGITS = 2**26
"""Numbers in the logits of the cells that are run together, a quarter of a gigabyte in float32."""
BEFORE_MLP = ("attn_out", "z", "q", "k", "v")
"""Sites whose patching leaves the shape of what the MLP is given and gives alone."""


@dataclass(frozen=True, eq=False)
class _Placed:
    """A patch of a suffix in a batch: its lane, and how far its slots are from its positions."""

    put: Put
    row: int
    offset: int


def suffix_logits(loaded: LoadedModel, patched: Recording, cells: Sequence[Cell]) -> Float[torch.Tensor, "cell vocab"]:
    """Logits at the last position of the patched prompt, once per cell; arguments and errors as of :func:`suffix_batches`."""
    out = patched.logits.repeat(len(cells), 1)
    for numbers, logits in suffix_batches(loaded, patched, cells):
        out[numbers] = logits
    return out


def suffix_batches(
    loaded: LoadedModel, patched: Recording, cells: Sequence[Cell]
) -> Iterator[tuple[list[int], Float[torch.Tensor, "cell vocab"]]]:
    """Numbers of cells and the logits at the last position of the prompt after each, in no particular order.

    Cells that put in what the run has there anyway are left out: theirs are the run's own logits.

    Args:
        loaded: the model; it is left as it was found, also after an error.
        patched: the run that is patched, recorded at the sites of the cells.
        cells: what is replaced; each is a run of its own.

    Raises:
        TwinprobeError: a site cannot be patched or was not recorded, or values do not fit there.
    """
    climbers = climbers_of(loaded, patched, cells)
    width = len(patched.ids) - min((climber.first for climber in climbers), default=0)
    for batch in _batches(_lanes(climbers, len(patched.ids), width), patched, width):
        yield [climber.number for lane in batch for climber in lane], _climb(loaded, patched, batch, width)


def _batches(lanes: Sequence[list[Climber]], patched: Recording, width: int) -> Iterator[list[list[Climber]]]:
    """Lanes that are run together, as many as the limits allow; at least one."""
    size = max(1, min(MAX_TOKENS // width, MAX_SEEN // (len(patched.ids) + width)))
    room = MAX_LOGITS // patched.logits.shape[-1]
    batch: list[list[Climber]] = []
    for lane in lanes:
        if batch and (len(batch) == size or sum(map(len, batch)) + len(lane) > room):
            yield batch
            batch = []
        batch.append(lane)
    if batch:
        yield batch


def _lanes(climbers: Sequence[Climber], length: int, width: int) -> list[list[Climber]]:
    """Suffixes that share a lane, which all join under one block; lanes in the order in which they join."""
    lanes = []
    for _, group in groupby(sorted(climbers, key=lambda one: one.depth), key=lambda one: one.depth):
        joining = list(group)
        packed = pack([length - climber.first for climber in joining], width)
        lanes += [[joining[index] for index in lane] for lane in packed]
    return lanes


def _climb(loaded: LoadedModel, patched: Recording, batch: Sequence[Sequence[Climber]], width: int) -> torch.Tensor:
    """Take lanes of suffixes through the blocks; the logits are in the order of the lanes and of their suffixes."""
    import torch

    length, device = len(patched.ids), patched.stream.device
    lanes = lay_out([[climber.first for climber in lane] for lane in batch], length, width, device)
    ends = [list(accumulate(length - climber.first for climber in lane)) for lane in batch]
    placed: dict[int, list[_Placed]] = {}
    for row, lane in enumerate(batch):
        for climber, end in zip(lane, ends[row], strict=True):
            for put in climber.puts:
                placed.setdefault(put.depth, []).append(_Placed(put, row, end - length))
    lasts = [(row, end - 1) for row, line in enumerate(ends) for end in line]
    states = patched.stream[:0, :width]
    with torch.inference_mode():
        for depth in range(batch[0][0].depth, loaded.n_layers + 1):
            if rows := [row for row, lane in enumerate(batch) if lane[0].depth == depth]:
                states = torch.cat([states, patched.stream[depth][lanes.positions[rows]]])
            here = placed.get(depth, [])
            if inside := [one for one in here if one.put.site.name in STREAM]:
                states = states.clone()
                _put(states, inside)
            if depth < loaded.n_layers:
                within = [one for one in here if one.put.site.name not in STREAM]
                with ExitStack() as stack:
                    if (
                        patched.past
                        and depth == loaded.n_layers - 1
                        and all(one.put.site.name in BEFORE_MLP for one in within)
                    ):
                        joined = [slot for slot in lasts if slot[0] < len(states)]
                        stack.enter_context(_mlp_of(loaded, joined))
                    stack.enter_context(_inside(loaded, within))
                    states = patched.block(loaded, depth, states, lanes[: len(states)])
        return head_logits(loaded, states[tuple(zip(*lasts, strict=True))][:, None])[:, 0]


@contextmanager
def _mlp_of(loaded: LoadedModel, slots: Sequence[tuple[int, int]]) -> Iterator[None]:
    """While active, the last block's MLP is run for these lanes and slots only; it gives zeros for all others.

    An MLP treats every position by itself, and of the last block's results only those of last positions are read.
    """
    path = loaded.path(f"blocks.{loaded.n_layers - 1}.mlp")
    if path is None:
        yield
        return
    chosen = tuple(zip(*slots, strict=True))
    shape: list[int] = []

    def narrow(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        states = input_tensor(args, kwargs)
        shape[:] = states.shape[:2]
        rows = states[chosen][:, None]
        return ((rows, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": rows})

    def widen(_module: torch.nn.Module, _args: Any, result: Any) -> Any:
        rows = first_tensor(result)
        full = rows.new_zeros(*shape, rows.shape[-1])
        full[chosen] = rows[:, 0]
        return (full, *result[1:]) if isinstance(result, tuple) else full

    module = loaded.model.get_submodule(path)
    handles = [module.register_forward_pre_hook(narrow, with_kwargs=True), module.register_forward_hook(widen)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _put(states: torch.Tensor, placed: Sequence[_Placed]) -> None:
    """Put patches of one site or stream in, all with the same columns at once."""
    import torch

    groups: dict[tuple[Site, int | None, int | None], list[_Placed]] = {}
    for one in placed:
        groups.setdefault((one.put.site, one.put.columns.start, one.put.columns.stop), []).append(one)
    for group in groups.values():
        rows = [one.row for one in group for _ in one.put.positions]
        slots = [one.offset + at for one in group for at in one.put.positions]
        values = torch.cat([one.put.values for one in group])
        states[rows, slots, group[0].put.columns] = values.to(states)


@contextmanager
def _inside(loaded: LoadedModel, placed: Sequence[_Placed]) -> Iterator[None]:
    """While active, a block's activations at other sites than the residual stream are patched, suffix by suffix."""

    def edit(chosen: Sequence[_Placed]) -> Edit:
        def put(tensor: torch.Tensor) -> torch.Tensor:
            changed = tensor.clone()
            _put(changed, chosen)
            return changed

        return put

    with ExitStack() as stack:
        for site in {one.put.site for one in placed}:
            stack.enter_context(editing(loaded, site, edit([one for one in placed if one.put.site == site])))
        yield
