"""The self-check: on a few tokens, that every site of a loaded model is where it is thought to be.

TransformerLens' table says which module carries a site; a checkpoint may still differ from what the table was made for.
So each site's shape is looked at, and noise put in at the site must change the stream that leaves its block and what the
model says, but not the stream that enters its block.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from activations.engines.hooks import Edit, editing, forward, reading
from activations.engines.places import served, width
from activations.errors import TwinprobeError
from activations.loaded import LoadedModel
from activations.sites import Site

if TYPE_CHECKING:
    import torch

TOKENS = 4
LINES = 64
"""Most lines of a batch, each of which is patched at a site of its own."""
LOGITS = 2**24
"""Most logits of a batch; bounds memory where the vocabulary is large."""
LARGE = 10**9
"""Parameters from which on only the first, the middle and the last layer are checked."""


@dataclass(frozen=True)
class _Change:
    """How far each line of a batch is from its first; the last is the first's equal, so its distance is rounding."""

    distances: list[float]
    precision: float

    @classmethod
    def of(cls, activation: torch.Tensor) -> Self:
        import torch

        distances = (activation.float() - activation[:1].float()).abs().flatten(1).amax(1).tolist()
        return cls(distances, 16 * torch.finfo(activation.dtype).eps * float(activation[0].abs().max()))

    def any(self, line: int) -> bool:
        """Whether the line differs at all."""
        return self.distances[line] > 4 * self.distances[-1]

    def clear(self, line: int) -> bool:
        """Whether the line differs by more than its place in the batch could make it."""
        return self.distances[line] > 4 * self.distances[-1] + self.precision


def self_check(loaded: LoadedModel, sites: Sequence[Site] | None = None) -> None:
    """Make sure that ``sites`` (all that plain hooks serve) hold what they should, and that patches there have an effect.

    The model is left as it was found.

    Raises:
        TwinprobeError: a site has another shape than expected or values that are not finite, or a patch at it does not
            change what it should, or changes what it should not.
    """
    import torch

    chosen = _chosen(loaded) if sites is None else list(sites)
    size = loaded.tokenizer.backend_tokenizer.get_vocab_size(with_added_tokens=False)
    ids = torch.tensor([[size * (i + 1) // (TOKENS + 2) for i in range(TOKENS)]], device=loaded.device)
    _check_shapes(loaded, ids.expand(2, -1), chosen)
    lines = _lines(loaded)
    # From the end: what breaks the way to the output fails all sites before it, and the last of them is the nearest.
    chosen = chosen[::-1]
    for start in range(0, len(chosen), lines):
        _check_patches(loaded, ids, chosen[start : start + lines])


def _chosen(loaded: LoadedModel) -> list[Site]:
    """The sites to check, in the order of the forward pass."""
    sites = served(loaded)
    if loaded.model.num_parameters() >= LARGE:
        kept = {stack: {0, shape.layers // 2, shape.layers - 1} for stack, shape in loaded.shapes.items()}
        sites = [site for site in sites if site.layer is None or site.layer in kept[site.stack]]
    return sorted(sites, key=lambda site: (site.stack == "decoder", site.position(loaded.shapes[site.stack].layers)))


def _lines(loaded: LoadedModel) -> int:
    """How many sites are patched at once."""
    if loaded.kind == "encoder":
        return LINES - 2
    kept = 1 if _keeps_last(loaded) else TOKENS + 1
    vocabulary = loaded.model.config.get_text_config().vocab_size
    return max(1, min(LINES, LOGITS // (kept * vocabulary)) - 2)


def _keeps_last(loaded: LoadedModel) -> bool:
    return "logits_to_keep" in inspect.signature(loaded.model.forward).parameters


def _check_shapes(loaded: LoadedModel, ids: torch.Tensor, sites: Sequence[Site]) -> None:
    import torch

    try:
        found = forward(loaded, ids, torch.ones_like(ids), sites)
    except TwinprobeError as error:
        raise TwinprobeError(f"self-check: {error}, or skip the check with --no-self-check") from None
    for site in sites:
        expected = (*ids.shape, width(loaded, site))
        if tuple(found[site].shape) != expected:
            raise _failure(loaded, site, f"gave the shape {list(found[site].shape)}, expected {list(expected)}")
        if not bool(found[site].isfinite().all()):
            dtype = str(found[site].dtype).removeprefix("torch.")
            raise _failure(loaded, site, f"gave {dtype} values that are not finite", "--dtype float32 may avoid that")


def _check_patches(loaded: LoadedModel, ids: torch.Tensor, sites: Sequence[Site]) -> None:
    """Patch line ``i + 1`` of a batch at site ``i``; the first and the last line stay as they are, to compare with."""
    import torch

    batch = ids.expand(len(sites) + 2, -1)
    mask = torch.ones_like(batch)
    streams = {
        Site(name, site.layer, stack=site.stack)
        for site in sites
        if site.layer is not None
        for name in ("resid_pre", "resid_post")
    }
    changes: dict[Site, _Change] = {}

    def compare(site: Site, activation: torch.Tensor) -> None:
        changes[site] = _Change.of(activation)

    with torch.inference_mode(), ExitStack() as stack:
        for line, site in enumerate(sites, 1):
            stack.enter_context(editing(loaded, site, _noise(line)))
        stack.enter_context(reading(loaded, sorted(streams, key=str), compare))
        said = _Change.of(_output(loaded, batch, mask))
    for line, site in enumerate(sites, 1):
        if site.layer is not None:
            before = Site("resid_pre", site.layer, stack=site.stack)
            after = Site("resid_post", site.layer, stack=site.stack)
            if site != before and changes[before].clear(line):
                raise _failure(loaded, site, f"changed {before} when it was patched, which comes before it")
            if not changes[after].any(line):
                raise _failure(loaded, site, f"did not change {after} when it was patched, though that comes after it")
        if not said.any(line):
            output = "last hidden state" if loaded.kind == "encoder" else "logits"
            raise _failure(loaded, site, f"did not change the {output} when it was patched")


def _output(loaded: LoadedModel, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """What the model says: logits, or an encoder's last hidden state, as its head may be missing from the checkpoint."""
    inputs: dict[str, Any] = loaded.inputs(ids, mask)
    if loaded.kind == "encoder":
        hidden: torch.Tensor = loaded.model.base_model(**inputs).last_hidden_state
        return hidden
    logits: torch.Tensor = loaded.model(**inputs, **({"logits_to_keep": 1} if _keeps_last(loaded) else {})).logits
    return logits


def _noise(line: int) -> Edit:
    """Noise as large as the activation itself, on one line of the batch."""
    import torch

    def edit(activation: torch.Tensor) -> torch.Tensor:
        clean = activation[line].float()
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(line)).to(clean.device)
        rms = clean.square().mean().sqrt()
        changed = activation.clone()
        changed[line] = (clean + noise * torch.where(rms > 0, rms, 1.0)).to(activation.dtype)
        return changed

    return edit


def _failure(
    loaded: LoadedModel,
    site: Site,
    what: str,
    meaning: str = "the sites of this checkpoint are not where they are thought to be",
) -> TwinprobeError:
    return TwinprobeError(
        f"self-check of {loaded.spec.name} ({type(loaded.model).__name__}): site {site} {what}; {meaning}, "
        "--no-self-check loads it all the same"
    )
