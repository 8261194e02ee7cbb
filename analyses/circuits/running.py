"""Running circuits: every receiver reads the kept edges from the clean run and all others from the corrupted run.

A receiver's input is the corrupted run's, plus what the senders of its kept edges give in the circuit's own run minus
what they give in the corrupted run (Conmy et al. 2023; Hanna et al. 2024). Only receivers with a kept edge are computed,
each on an input of its own; of everything else the corrupted run is known. Many circuits of one prompt run together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from activations.engines.places import locate
from activations.models import LoadedModel
from activations.sites import Site
from analyses.circuits.graph import Graph, Kept
from analyses.circuits.outputs import Contributed, head_outputs
from analyses.circuits.parts import by_site, few, read_block, read_receiver
from analyses.patching.head import head_logits

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float

Received = tuple[Site | None, list[int]]
"""A site and the numbers of the receivers there, see :func:`analyses.circuits.parts.by_site`."""
MAX_NUMBERS = 2**26
"""Numbers in the outputs of all senders of the circuits that run together, a quarter of a gigabyte."""


def circuit_logits(
    loaded: LoadedModel, graph: Graph, clean: Contributed, corrupted: Contributed, circuits: Sequence[Kept]
) -> Float[torch.Tensor, "circuit vocab"]:
    """Logits at the last position of the clean prompt, once per circuit.

    Args:
        loaded: the model of the graph; it is left as it was found, also after an error.
        graph: its graph.
        clean: the run that circuits take their input from.
        corrupted: the run that all edges outside a circuit come from.
        circuits: the edges that are kept.
    """
    import torch

    size = max(1, MAX_NUMBERS // clean.outputs.numel())
    parts = []
    with torch.inference_mode():
        for start in range(0, len(circuits), size):
            kept = torch.from_numpy(np.stack(circuits[start : start + size])).to(clean.outputs.device)
            parts.append(_Running(loaded, graph, corrupted, kept).logits(clean.outputs[0]))
    return torch.cat(parts) if parts else corrupted.recording.logits[None][:0]


@dataclass(frozen=True, eq=False)
class _Running:
    """Circuits ``kept [circuit, receiver, sender]`` on their way through the layers."""

    loaded: LoadedModel
    graph: Graph
    corrupted: Contributed
    kept: torch.Tensor

    def logits(self, embedded: torch.Tensor) -> torch.Tensor:
        run, outputs = self.corrupted.recording, self.corrupted.outputs
        moved = outputs.new_zeros(len(self.kept), *outputs.shape)  # how far each output is from the corrupted run's
        moved[:, 0] = embedded - outputs[0]
        for _, sites in groupby(by_site(self.graph.receivers[:-1]), key=lambda one: one[0] and one[0].layer):
            *attention, mlp = sites
            self._attention(moved, attention)
            self._whole(moved, mlp)
        change = self._mixed(moved[:, :, -1:], [len(self.graph.receivers) - 1])[:, 0]
        logits = head_logits(self.loaded, (run.stream[-1, -1:].float() + change).to(run.stream.dtype))[:, 0]
        # A circuit that nothing comes through leaves the corrupted run as it is, to the last bit.
        return logits.where(change.any(-1).to(logits.device), run.logits)

    def _attention(self, moved: torch.Tensor, sites: Sequence[Received]) -> None:
        """Set how far the outputs of a layer's attention have moved."""
        if sites[0][0] is not None and sites[0][0].name == "attn_out":
            self._whole(moved, sites[0])
            return
        values: dict[Site, torch.Tensor] = {}
        fed: set[tuple[int, int]] = set()
        for site, numbers in sites:
            assert site is not None
            values[site], more = self._received(moved, site, numbers)
            fed |= more
        if fed:
            self._heads(moved, values, sorted(fed))

    def _whole(self, moved: torch.Tensor, received: Received) -> None:
        """Set how far the output of a layer's MLP, or of its attention as a whole, has moved."""
        site, numbers = received
        assert site is not None
        values, fed = self._received(moved, site, numbers)
        for circuit, sender in fed:
            moved[circuit, sender] = values[circuit].float().to(moved.device) - self.corrupted.outputs[sender]

    def _received(
        self, moved: torch.Tensor, site: Site, numbers: list[int]
    ) -> tuple[Float[torch.Tensor, "circuit pos width"], set[tuple[int, int]]]:
        """What the receivers at a site make of their inputs, and the circuits and senders that are computed from it.

        Receivers without a kept edge are as in the corrupted run.
        """
        run, layer, receivers = self.corrupted.recording, site.layer, [self.graph.receivers[n] for n in numbers]
        assert layer is not None
        values = run.at(site).expand(len(moved), -1, -1).clone()
        active = self.kept[:, numbers].any(-1)
        if not active.any():
            return values, set()
        circuits, which = (found.tolist() for found in active.nonzero(as_tuple=True))
        inputs = (
            self._mixed(moved, numbers)[active] + self.corrupted.entering(receivers[0], self.graph.parallel).float()
        )
        columns = [slice(None) if one.site is None else locate(self.loaded, one.site).columns for one in receivers]
        for part in few(len(inputs), len(run.ids)):
            states = inputs[part].to(run.stream.dtype)
            found = read_receiver(self.loaded, run.calls[layer], site, states, run.stream[layer])
            for row, (circuit, number) in enumerate(zip(circuits[part], which[part], strict=True)):
                values[circuit, :, columns[number]] = found[row][:, columns[number]]
        fed = {(c, sender) for c, number in zip(circuits, which, strict=True) for sender in receivers[number].feeds}
        return values, fed

    def _mixed(self, moved: torch.Tensor, numbers: list[int]) -> Float[torch.Tensor, "circuit receiver pos d_model"]:
        """What the kept edges add to the inputs of receivers that read the same senders."""
        import torch

        reads = self.graph.receivers[numbers[0]].reads
        kept = self.kept[:, numbers, :reads].to(moved.dtype)
        return torch.bmm(kept, moved[:, :reads].flatten(2)).unflatten(2, moved.shape[2:])

    def _heads(self, moved: torch.Tensor, values: dict[Site, torch.Tensor], fed: list[tuple[int, int]]) -> None:
        """Set how far heads have moved, from a layer's queries, keys and values, or its z, in every circuit."""
        import torch

        run = self.corrupted.recording
        z, layer = replace(next(iter(values)), name="z"), next(iter(values)).layer
        assert layer is not None
        if z not in values:
            rows = run.stream[layer].repeat(len(moved), 1, 1)
            values[z] = torch.cat(
                [
                    read_block(
                        self.loaded,
                        run.calls[layer],
                        rows[part],
                        z,
                        {site: found[part] for site, found in values.items()},
                    )
                    for part in few(len(moved), len(run.ids))
                ]
            )
        for part in few(len(fed), len(run.ids)):
            circuits, senders = (list(column) for column in zip(*fed[part], strict=True))
            heads = [self.graph.senders[sender].site.head or 0 for sender in senders]
            added = head_outputs(self.loaded, layer, values[z][circuits], heads)
            moved[circuits, senders] = added.to(moved.device) - self.corrupted.outputs[senders]
