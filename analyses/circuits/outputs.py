"""What each sender adds to the residual stream in a run, and the graph of a model, found by running it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from activations.engines.hooks import first_tensor
from activations.engines.places import locate
from activations.errors import TwinprobeError
from activations.models import LoadedModel
from activations.sites import Site
from analyses.circuits.graph import LOGITS, Graph, Receiver, Sender
from analyses.patching.head import check_head
from analyses.patching.recording import Recording, record
from analyses.same_logits import same_logits

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float

PROJECTED = ("q", "k", "v")


@dataclass(frozen=True, eq=False)
class Contributed:
    """A run, and what each sender of the graph adds to the residual stream in it (float32).

    Biases of output projections are no sender's; they are the same in every run.
    """

    recording: Recording
    outputs: Float[torch.Tensor, "sender pos d_model"]

    def entering(self, receiver: Receiver, parallel: bool) -> Float[torch.Tensor, "pos d_model"]:
        """What a receiver reads in this run; ``parallel`` as in the graph."""
        site = receiver.site
        if site is None:
            return self.recording.stream[-1]
        name = "resid_mid" if site.name == "mlp_out" and not parallel else "resid_pre"
        return self.recording.at(Site(name, site.layer)).to(self.outputs.device)


def graph_of(loaded: LoadedModel, ids: Sequence[int]) -> Graph:
    """The graph of a decoder; whether its heads can be told apart is found by running one prompt.

    Raises:
        TwinprobeError: the model is no decoder, or its attention and MLPs are not what is added to the residual stream.
    """
    loaded.require_decoder()
    by_head = all(_has(loaded, Site("z", layer)) for layer in range(loaded.n_layers))
    split = by_head and all(_has(loaded, Site(name, layer)) for layer in range(loaded.n_layers) for name in PROJECTED)
    inside = [Site(name, layer) for layer in range(loaded.n_layers) for name in ("attn_out", "mlp_out")]
    heads = [Site("z", layer) for layer in range(loaded.n_layers)] if by_head else []
    recording = record(loaded, ids, [*inside, *heads], suffixes=False)
    check_head(loaded, recording.stream[-1, -1], recording.logits)
    for layer in range(loaded.n_layers):
        added = recording.at(Site("attn_out", layer)) + recording.at(Site("mlp_out", layer))
        if not same_logits(recording.stream[layer] + added, recording.stream[layer + 1]):
            raise TwinprobeError(
                f"{loaded.spec.name} ({type(loaded.model).__name__}) does more in layer {layer} than to add its attention "
                "and its MLP to the residual stream; circuits are of models that do nothing else"
            )
        by_head = by_head and _is_sum_of_heads(loaded, recording, layer)
    return _graph(loaded, by_head, split and by_head)


def _has(loaded: LoadedModel, site: Site) -> bool:
    try:
        locate(loaded, site)
    except TwinprobeError:
        return False
    return True


def _is_sum_of_heads(loaded: LoadedModel, recording: Recording, layer: int) -> bool:
    import torch

    with torch.inference_mode():
        z = recording.at(Site("z", layer))
        parts = head_outputs(loaded, layer, z.expand(loaded.n_heads, -1, -1), range(loaded.n_heads))
        nothing = _projected(loaded, layer, torch.zeros_like(z[None]))[0]
        return same_logits((parts.sum(0) + nothing).to(z.dtype), recording.at(Site("attn_out", layer)))


def _graph(loaded: LoadedModel, by_head: bool, split: bool) -> Graph:
    senders = [Sender("input", Site("resid_pre", 0))]
    receivers: list[Receiver] = []
    group = loaded.n_heads // loaded.n_kv_heads
    for layer in range(loaded.n_layers):
        before = len(senders)
        if by_head:
            senders += [Sender(f"a{layer}.h{head}", Site("z", layer, head)) for head in range(loaded.n_heads)]
        else:
            senders.append(Sender(f"a{layer}", Site("attn_out", layer)))
        if split:
            for name in PROJECTED:
                shared = 1 if name == "q" else group
                receivers += [
                    Receiver(
                        f"a{layer}.{name}{head}",
                        Site(name, layer, head),
                        before,
                        tuple(before + head * shared + one for one in range(shared)),
                    )
                    for head in range(loaded.n_heads // shared)
                ]
        else:
            receivers += [
                Receiver(sender.name, sender.site, before, (number,))
                for number, sender in enumerate(senders[before:], before)
            ]
        receivers.append(
            Receiver(f"m{layer}", Site("mlp_out", layer), before if loaded.parallel else len(senders), (len(senders),))
        )
        senders.append(Sender(f"m{layer}", Site("mlp_out", layer)))
    receivers.append(Receiver(LOGITS, None, len(senders), ()))
    granularity = "heads" if by_head else "attention"
    return Graph(loaded.spec.name, granularity, loaded.parallel, tuple(senders), tuple(receivers))


def sites_of(graph: Graph) -> tuple[Site, ...]:
    """Sites without heads that a run is to be recorded at, beside the residual stream between layers."""
    named = [*(sender.site for sender in graph.senders[1:]), *(r.site for r in graph.receivers if r.site is not None)]
    sites = [replace(site, head=None) for site in named]
    if not graph.parallel:
        sites += [replace(site, name="resid_mid") for site in sites if site.name == "mlp_out"]
    return tuple(dict.fromkeys(sites))


def contributed(loaded: LoadedModel, graph: Graph, ids: Sequence[int], *, suffixes: bool = False) -> Contributed:
    """Run one prompt (token ids) and take it apart into what each sender adds.

    ``suffixes``: see :func:`analyses.patching.recording.record`.
    """
    import torch

    recording = record(loaded, ids, sites_of(graph), suffixes=suffixes)
    outputs = torch.empty((len(graph.senders), *recording.stream.shape[1:]), device=recording.stream.device)
    with torch.inference_mode():
        for number, sender in enumerate(graph.senders):
            if sender.site.head is None:
                outputs[number] = recording.at(sender.site)
            elif sender.site.head == 0:
                layer = sender.site.layer
                assert layer is not None
                z = recording.at(Site("z", layer)).expand(loaded.n_heads, -1, -1)
                outputs[number : number + loaded.n_heads] = head_outputs(loaded, layer, z, range(loaded.n_heads))
    return Contributed(recording, outputs)


def head_outputs(
    loaded: LoadedModel, layer: int, z: Float[torch.Tensor, "row pos z_width"], heads: Sequence[int]
) -> Float[torch.Tensor, "row pos d_model"]:
    """What one head adds to the residual stream, for each row the head with its number in ``heads`` (float32).

    The layer's own output projection is given z with all other heads 0, whatever kind of module it is; what it makes of
    nothing at all, its bias, is taken off.
    """
    import torch

    masked = torch.zeros(len(heads) + 1, *z.shape[1:], dtype=z.dtype, device=z.device)
    for row, head in enumerate(heads):
        columns = locate(loaded, Site("z", layer, head)).columns
        masked[row, :, columns] = z[row, :, columns]
    found = _projected(loaded, layer, masked)
    return found[:-1] - found[-1]


def _projected(loaded: LoadedModel, layer: int, z: torch.Tensor) -> Float[torch.Tensor, "row pos d_model"]:
    projection = loaded.model.get_submodule(locate(loaded, Site("z", layer)).path)
    return first_tensor(projection(z)).float() * locate(loaded, Site("attn_out", layer)).scale
