"""The bridge engine: TransformerLens sees what no module's input or output shows.

It works on a shell of the model: the same weights in modules of its own, which the bridge replaces and switches to
eager attention. The model itself stays as it is and no second set of weights is held. Eager attention takes memory
and time quadratic in the length of the input and, in half precision, rounds differently from other kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

from activations.engines import Select, whole
from activations.engines.hooks import run
from activations.engines.places import POST_NORM
from activations.engines.rotary import fire_rotary_hooks
from activations.engines.shells import shell
from activations.errors import TwinprobeError, did_you_mean
from activations.loaded import LoadedModel
from activations.sites import WITH_HEADS, Site

if TYPE_CHECKING:
    import torch
    from jaxtyping import Int

PROBE = (3, 5)
"""Texts and tokens of the batch that shows how each hook is laid out."""
ATTENTION = ("hook_pattern", "hook_attn_scores")


class _Stop(Exception):
    """Raised by the hook that was waited for last; nothing after it runs."""


@dataclass(frozen=True)
class _Layout:
    """How a hook's tensor becomes ``[batch, pos, *rest]``.

    ``kind`` is ``rows`` (it is so already), ``heads`` (heads come before positions), ``attention`` (likewise; ``rest`` is
    heads, keys) or ``flat`` (texts and positions in one). ``extra`` counts leading positions, and ``extra_keys`` leading
    keys, that belong to no token of the text: the start token of a decoder stack.
    """

    kind: str
    rest: tuple[int, ...]
    extra: int = 0
    extra_keys: int = 0

    @classmethod
    def of(cls, hook: str, pos_dim: int | None, shape: tuple[int, ...], most: int) -> Self | None:
        """The layout of a hook that showed ``shape`` for :data:`PROBE`; ``None`` when not by token.

        ``most`` is how many positions more than tokens there may be.
        """
        batch, tokens = PROBE
        extras = {tokens + extra: extra for extra in range(most + 1)}
        if len(shape) == 4 and hook.endswith(ATTENTION):
            if shape[0] == batch and shape[2] in extras and shape[3] in extras:
                return cls("attention", shape[1:2], extras[shape[2]], extras[shape[3]])
        elif len(shape) > 1 and shape[0] == batch and shape[1] in extras and pos_dim in (None, 1):
            return cls("rows", shape[2:], extras[shape[1]])
        elif len(shape) > 2 and shape[0] == batch and shape[2] in extras and pos_dim == 2:
            return cls("heads", (shape[1], *shape[3:]), extras[shape[2]])
        elif len(shape) > 1 and shape[0] % batch == 0 and shape[0] // batch in extras:
            return cls("flat", shape[1:], extras[shape[0] // batch])
        return None

    def arrange(self, tensor: torch.Tensor, batch: int) -> torch.Tensor:
        """``[batch, pos, *rest]`` of the positions that are tokens."""
        if self.kind == "flat":
            tensor = tensor.unflatten(0, (batch, -1))
        return (tensor if self.kind in ("rows", "flat") else tensor.transpose(1, 2))[:, self.extra :]


@dataclass(frozen=True)
class TransformerLensEngine:
    """TransformerLens' bridge as an :class:`activations.engines.Engine`.

    ``longest`` is the length of the longest input in tokens: rows of attention are that wide per head, keys beyond the
    batch's width being filled up with 0 (``pattern``) or the lowest number (attention scores), as masked keys are.
    """

    loaded: LoadedModel
    longest: int
    name: ClassVar[str] = "transformer_lens"

    @cached_property
    def _bridge(self) -> Any:
        """Built when first needed; the builder module is private to TransformerLens and may move."""
        from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

        model = shell(self.loaded.model)
        model.set_attn_implementation("eager")
        try:
            bridge = build_bridge_from_module(model, type(model).__name__, hf_config=model.config)
        except (ValueError, RuntimeError, NotImplementedError) as error:
            raise TwinprobeError(
                f"{self.loaded.spec.name} ({type(model).__name__}) does not fit TransformerLens' bridge: "
                f"{' '.join(str(error).split())[:300]}; use --engine hooks"
            ) from None
        fire_rotary_hooks(bridge)
        return bridge

    @cached_property
    def _points(self) -> dict[str, Any]:
        """Hook points by every name they have."""
        return dict(self._bridge.hook_dict)

    @cached_property
    def _fired(self) -> dict[str, torch.Tensor]:
        """What a small batch shows at every hook that is reached at all, without values, by canonical name."""
        import torch

        ids = torch.zeros(PROBE, dtype=torch.long, device=self.loaded.device)
        fired: dict[str, torch.Tensor] = {}

        def note(tensor: Any, hook: Any) -> None:
            if isinstance(tensor, torch.Tensor):
                fired.setdefault(hook.name, tensor.to("meta"))

        self._run({point.name: note for point in self._points.values()}, ids, torch.ones_like(ids))
        return fired

    def check(self, site: Site) -> None:
        """Raise TwinprobeError where the bridge has no such hook, or one that does not give one row per token."""
        self._find(site)

    def width(self, site: Site) -> int:
        """How many numbers one row of ``site`` has."""
        _, layout = self._find(site)
        rest = layout.rest if site.head is None else layout.rest[1:]
        return math.prod(rest) * (self.longest + layout.extra_keys if layout.kind == "attention" else 1)

    def forward(
        self,
        ids: Int[torch.Tensor, "batch pos"],
        mask: Int[torch.Tensor, "batch pos"],
        sites: Sequence[Site],
        select: Select = whole,
    ) -> dict[Site, torch.Tensor]:
        """Run the body, without unembedding, until the last of ``sites`` was reached; what ``select`` keeps of each.

        Raises:
            TwinprobeError: see :meth:`check`; or an input longer than ``longest``.
        """
        wanted: dict[str, list[Site]] = {}
        for site in sites:
            wanted.setdefault(self._find(site)[0], []).append(site)
        found: dict[Site, torch.Tensor] = {}

        def keep(tensor: torch.Tensor, hook: Any) -> None:
            for site in wanted[hook.name]:
                if site not in found:
                    found[site] = select(self._rows(site, tensor, ids))
            if len(found) == len(set(sites)):
                raise _Stop

        self._run(dict.fromkeys(wanted, keep), ids, mask)
        return found

    def _run(self, functions: dict[str, Callable[..., None]], ids: torch.Tensor, mask: torch.Tensor) -> None:
        import torch

        points = [self._points[name] for name in functions]
        try:
            for point, function in zip(points, functions.values(), strict=True):
                point.add_hook(function)
            with torch.inference_mode():
                run(self.loaded, self._bridge.original_model, ids, mask)
        except _Stop:
            pass
        finally:
            for point in points:
                point.remove_hooks()

    def _rows(self, site: Site, tensor: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """``[batch, pos, width]`` of what the hook gave for ``ids``."""
        import torch

        hook, layout = self._find(site)
        rows = layout.arrange(tensor, len(ids))
        if site.head is not None:
            rows = rows[:, :, site.head]
        if layout.kind == "attention":
            keys = self.longest + layout.extra_keys
            if rows.shape[-1] > keys:
                raise TwinprobeError(
                    f"site {site}: an input of {ids.shape[1]} tokens, but this engine was made for at most "
                    f"{self.longest}; make it with the length of the longest input"
                )
            masked = 0.0 if hook.endswith("hook_pattern") else torch.finfo(rows.dtype).min
            rows = torch.nn.functional.pad(rows, (0, keys - rows.shape[-1]), value=masked)
        return rows.reshape(*ids.shape, -1)

    def _find(self, site: Site) -> tuple[str, _Layout]:
        """The canonical name of a site's hook, and its layout."""
        if site not in self._found:
            self._found[site] = self._look_up(site)
        return self._found[site]

    @cached_property
    def _found(self) -> dict[Site, tuple[str, _Layout]]:
        return {}

    def _look_up(self, site: Site) -> tuple[str, _Layout]:
        written = site.name if site.is_hook else self._hook(site)
        architecture = type(self.loaded.model).__name__
        if written not in self._points:
            if site.is_hook:
                raise TwinprobeError(
                    f"site {site}: the bridge of {architecture} has no such hook{did_you_mean(written, self._points)}"
                )
            why = (
                "has no hook after a rotary embedding" if site.name in ("rot_q", "rot_k") else f"has no hook {written}"
            )
            raise TwinprobeError(f"site {site}: the bridge of {architecture} {why}; leave the site out")
        hook = str(self._points[written].name)
        if hook not in self._fired:
            raise TwinprobeError(
                f"site {site}: the body of {architecture} never comes to the bridge's {hook}; leave the site out"
            )
        shown = self._fired[hook]
        most = int(self.loaded.kind == "encoder-decoder")
        layout = _Layout.of(hook, self._points[hook].pos_dim, tuple(shown.shape), most)
        if layout is None or not shown.is_floating_point():
            raise TwinprobeError(
                f"site {site}: {hook} gives {str(shown.dtype).removeprefix('torch.')} {list(shown.shape)} for "
                f"{PROBE[0]} texts of {PROBE[1]} tokens, which is not one row of activations per token; leave the site out"
            )
        return hook, layout

    def _hook(self, site: Site) -> str:
        """The bridge's name for a site, of which :mod:`activations.engines.places` says what differs from the bridge."""
        stack = "" if site.stack is None else f"{site.stack}_"
        block = f"{stack}blocks.{site.layer}"
        decoder = site.stack == "decoder"
        attention = f"{block}.self_attn" if decoder else f"{block}.attn"
        own = {
            "embed": "embed.hook_out",
            "mlp_post": f"{block}.mlp.out.hook_in",
            "ln_final": f"{stack}ln_final.hook_out",
            "resid_mid": f"{block}.hook_resid_mid2" if decoder else f"{block}.hook_resid_mid",
        }
        if self.loaded.model.config.model_type in POST_NORM:
            own["resid_mid"] = f"{block}.{'ln2' if decoder else 'ln1'}.hook_out"
            own["attn_out"] = f"{attention}.o.hook_out"
            own["mlp_out"] = f"{block}.mlp.out.hook_out"
        part = attention if site.name in WITH_HEADS else block
        return own.get(site.name, f"{part}.hook_{site.name}")
