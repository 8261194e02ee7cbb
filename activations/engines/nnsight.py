"""The nnsight engine: reaches models that do not fit here, spread over several GPUs or run on NDIF.

It reads the sites that modules carry, the same places as the hooks engine. Locally nnsight wraps a shell of the model:
the same weights in modules of its own, as it leaves a wrapper on every module. On NDIF (``remote``) it needs the
model's name only.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from activations.engines import Select, whole
from activations.engines.places import Place, locate, width
from activations.engines.shells import shell
from activations.errors import TwinprobeError
from activations.loaded import LoadedModel
from activations.sites import Site

if TYPE_CHECKING:
    import torch
    from jaxtyping import Int

ORDER = (
    *("embed", "resid_pre", "q", "k", "v", "z", "attn_out", "cross_attn_out", "resid_mid"),
    *("mlp_post", "mlp_out", "resid_post", "ln_final"),
)
"""Sites in the order in which a block comes to them: nnsight has to ask for them in that order."""


@dataclass(frozen=True)
class NnsightEngine:
    """nnsight as an :class:`activations.engines.Engine`.

    ``remote`` runs the model on NDIF, where ``select`` is applied before anything is sent back; ``local`` does all of
    that but for the sending: the request is packed, unpacked without access to this package, and run here on the
    weights at the model's name.
    """

    loaded: LoadedModel
    remote: bool | str = False
    name: ClassVar[str] = "nnsight"

    @cached_property
    def _model(self) -> Any:
        nnsight = _nnsight()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Module .* has a submodule named")  # reached by path, not by name
            if not self.remote:
                return nnsight.NNsight(shell(self.loaded.model))
            nnsight.register("activations")  # what select needs travels with the request
            return self._skeleton(nnsight)

    def _skeleton(self, nnsight: Any) -> Any:
        """The model by its name alone; its weights stay where it runs."""
        spec = self.loaded.spec
        try:
            return nnsight.TransformersModel(
                spec.name,
                revision=spec.revision,
                task={"decoder": "text-generation", "encoder": "fill-mask"}[self.loaded.kind],
                tokenizer=copy.deepcopy(self.loaded.tokenizer),
                dtype=self.loaded.model.dtype,
                attn_implementation=self.loaded.model.config._attn_implementation,
                trust_remote_code=spec.trust_remote_code,
            )
        except Exception as error:
            raise self._failed(error) from None

    @cached_property
    def _envoys(self) -> dict[str, Any]:
        """nnsight's handles by module path: as attributes some are hidden (BERT has modules called ``output``)."""
        return {envoy.path.partition(".")[2]: envoy for envoy in self._model.modules()}

    def check(self, site: Site) -> None:
        """Raise TwinprobeError where no module carries the site, or the model can not be run where it is to run."""
        nnsight, name = _nnsight(), self.loaded.spec.name
        locate(self.loaded, site)
        if self.remote and self.loaded.kind == "encoder-decoder":
            raise TwinprobeError(f"{name} is an encoder-decoder, which nnsight can not run remotely; run it here")
        if self.remote is not True:
            return
        if name.startswith("embedded:") or Path(name).expanduser().exists():
            raise TwinprobeError(
                f"model {name!r} is on this machine, but NDIF runs models of the Hub; use a name like org/name"
            )
        if not nnsight.CONFIG.API.APIKEY:
            raise TwinprobeError("NDIF needs a key and none is set; set NDIF_API_KEY or call nnsight.login()")

    def width(self, site: Site) -> int:
        """How many numbers one row of ``site`` has."""
        return width(self.loaded, site)

    def forward(
        self,
        ids: Int[torch.Tensor, "batch pos"],
        mask: Int[torch.Tensor, "batch pos"],
        sites: Sequence[Site],
        select: Select = whole,
    ) -> dict[Site, torch.Tensor]:
        """Run the model until the last of ``sites`` was read; what ``select`` keeps of each.

        Raises:
            TwinprobeError: the model has no such site; nnsight is not installed; NDIF did not do it.
        """
        import torch

        for site in sites:
            self.check(site)
        ordered = sorted(dict.fromkeys(sites), key=_rank)
        places = [locate(self.loaded, site) for site in ordered]
        with torch.inference_mode():
            kept = self._trace(places, self.loaded.inputs(ids, mask), select)
        return dict(zip(ordered, kept, strict=True))

    def _trace(self, places: Sequence[Place], inputs: dict[str, Any], select: Select) -> list[torch.Tensor]:
        import nnsight
        from nnsight.intervention.interleaver import OutOfOrderError

        model, where = self._model, {"remote": self.remote} if self.remote else {}
        plan = [(self._envoys[p.path], p.output, p.skip, p.columns, p.scale) for p in places]
        try:
            # What is in this block may run elsewhere: it must not name anything of this package.
            with model.trace(**inputs, **where) as tracer:
                kept = []
                for envoy, output, skip, columns, scale in plan:
                    value = envoy.output if output else envoy.input
                    value = (value[0] if isinstance(value, tuple) else value).detach()
                    value = value[..., skip:, columns]
                    kept.append(select(value if scale == 1.0 else value * scale))
                nnsight.save(kept)
                tracer.stop()
        except OutOfOrderError as error:
            raise TwinprobeError(
                f"nnsight: {_line(error)}; this architecture comes to the sites in another order, "
                "ask for them one at a time or use --engine hooks"
            ) from None
        except Exception as error:
            if self.remote is not True or isinstance(error, TwinprobeError):
                raise
            raise self._failed(error) from None
        return kept

    def _failed(self, error: Exception) -> TwinprobeError:
        return TwinprobeError(
            f"NDIF did not run {self.loaded.spec.name}: {_line(error)}; see nnsight.status() for the models it runs and "
            "nnsight.whoami() for your key"
        )


def _rank(site: Site) -> tuple[bool, float, int]:
    """Where a site comes in the forward pass."""
    outside = {"embed": -1.0, "ln_final": float("inf")}
    layer = outside[site.name] if site.layer is None else float(site.layer)
    return site.stack == "decoder", layer, ORDER.index(site.name)


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _nnsight() -> Any:
    try:
        import nnsight
    except ImportError:
        raise TwinprobeError("the nnsight engine needs nnsight, which is not installed; pip install nnsight") from None
    return nnsight
