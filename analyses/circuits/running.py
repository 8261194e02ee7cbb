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
from analyses.circuits.graph import Graph, Kept, Receiver
from analyses.circuits.outputs import Contributed, head_outputs
from analyses.circuits.parts import few, kind_of, layer_of, read_block, read_receiver, site_of
from analyses.patching.head import head_logits

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float

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
        outputs = self.corrupted.outputs
        moved = outputs.new_zeros(len(self.kept), *outputs.shape)  # how far each output is from the corrupted run's
        moved[:, 0] = embedded - outputs[0]
        numbered = list(enumerate(self.graph.receivers))
        for (_, name), same in groupby(numbered[:-1], key=lambda one: kind_of(one[1])):
            found = list(same)
            numbers, receivers = [number for number, _ in found], [receiver for _, receiver in found]
            if name == "mlp_out":
                self._mlp(moved, numbers[0], receivers[0])
            else:
                self._attention(moved, numbers, receivers)
        number, last = numbered[-1]
        entering = self.corrupted.recording.stream[-1, -1:].float() + self._mixed(moved[:, :, -1:], [number], last)[:, 0]
        return head_logits(self.loaded, entering.to(self.corrupted.recording.stream.dtype))[:, 0]

    def _mixed(self, moved: torch.Tensor, numbers: list[int], receiver: Receiver) -> torch.Tensor:
        """What the kept edges add to the inputs of receivers ``[circuit, receiver, pos, d_model]`` of one place."""
        import torch

        kept = self.kept[:, numbers, : receiver.reads].to(moved.dtype)
        return torch.bmm(kept, moved[:, : receiver.reads].flatten(2)).unflatten(2, moved.shape[2:])

    def _attention(self, moved: torch.Tensor, numbers: list[int], receivers: list[Receiver]) -> None:
        """Set how far the outputs of a layer's attention have moved."""
        run, layer = self.corrupted.recording, layer_of(receivers[0])
        active = self.kept[:, numbers].any(-1)
        if not active.any():
            return
        circuits, which = (found.tolist() for found in active.nonzero(as_tuple=True))
        inputs = self._mixed(moved, numbers, receivers[0])[active] + run.stream[layer].float()
        sites = list(dict.fromkeys(replace(site_of(receiver), head=None) for receiver in receivers))
        values = {site: run.at(site).expand(len(moved), -1, -1).clone() for site in sites}
        for part in few(len(inputs), len(run.ids)):
            states = inputs[part].to(run.stream.dtype)
            found = read_receiver(self.loaded, run.calls[layer], sites, states, run.stream[layer])
            for row, (circuit, number) in enumerate(zip(circuits[part], which[part], strict=True)):
                site = site_of(receivers[number])
                bare, columns = replace(site, head=None), locate(self.loaded, site).columns
                values[bare][circuit, :, columns] = found[bare][row][:, columns]
        if sites[0].name == "attn_out":
            [sender] = receivers[0].feeds
            rows = [circuit for circuit, is_active in enumerate(active.any(1).tolist()) if is_active]
            moved[rows, sender] = (values[sites[0]][rows].float() - self.corrupted.outputs[sender]).to(moved.device)
            return
        z = Site("z", layer)
        if sites[0] != z:
            rows = sorted(set(circuits))
            for part in few(len(rows), len(run.ids)):
                some = rows[part]
                instead = {site: values[site][some] for site in sites}
                states = run.stream[layer].expand(len(some), -1, -1)
                found = read_block(self.loaded, layer, run.calls[layer], states, [z], instead)
                values.setdefault(z, run.at(z).expand(len(moved), -1, -1).clone())[some] = found[z]
        pairs = sorted(
            {
                (circuit, sender)
                for circuit, number in zip(circuits, which, strict=True)
                for sender in receivers[number].feeds
            }
        )
        for part in few(len(pairs), len(run.ids)):
            rows, senders = (list(column) for column in zip(*pairs[part], strict=True))
            heads = [self.graph.senders[sender].site.head or 0 for sender in senders]
            added = head_outputs(self.loaded, layer, values[z][rows], heads)
            moved[rows, senders] = added.to(moved.device) - self.corrupted.outputs[senders]

    def _mlp(self, moved: torch.Tensor, number: int, receiver: Receiver) -> None:
        """Set how far the output of a layer's MLP has moved."""
        run, layer, site = self.corrupted.recording, layer_of(receiver), site_of(receiver)
        [sender] = receiver.feeds
        rows = self.kept[:, number].any(-1).nonzero()[:, 0].tolist()
        if not rows:
            return
        entering = self.corrupted.entering(receiver, self.graph.parallel).float()
        inputs = (self._mixed(moved, [number], receiver)[rows, 0] + entering).to(run.stream.dtype)
        for part in few(len(rows), len(run.ids)):
            found = read_receiver(self.loaded, run.calls[layer], [site], inputs[part], run.stream[layer])[site]
            moved[rows[part], sender] = found.to(moved.device).float() - self.corrupted.outputs[sender]
