"""Two models' weights in one forward pass: some parts of a host taken from a donor, whole or in shares.

A mixed model is a shell (:mod:`activations.engines.shells`): modules of its own around the host's parameters. Whenever
one of its parts is called, the part's parameters are exchanged for the mixed ones, and put back when it is done. Neither
model is ever altered, and beside the two there are at no time more weights than those of the part that is running.

Parts: ``embed`` (tokens, positions, and all else outside the others), ``blocks.0``, ``blocks.1``, ..., and ``unembed``
(``ln_final`` with it, whose gain belongs to what the unembedding reads). Where a model ties its embeddings, grafting one of
the two ends unties them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from activations.engines.shells import shell
from activations.errors import TwinprobeError
from activations.models import LoadedModel
from analyses.across.compatibility import check_compatible
from analyses.last_logits import last_logits
from analyses.same_logits import same_logits

if TYPE_CHECKING:
    import torch

Parts = dict[str, dict[str, list[str]]]
"""The modules of each part by path, each with the full names of the parameters that its call reads."""
_NOT_COMPUTING = ("_name_or_path", "architectures", "dtype", "initializer_range", "transformers_version", "use_cache")
"""Fields of a configuration that no logit depends on."""


def parts(loaded: LoadedModel) -> Parts:
    """All parts of a decoder in the order of the forward pass; every parameter belongs to exactly one."""
    blocks = [f"blocks.{layer}" for layer in range(loaded.n_layers)]
    owners = {loaded.path(block): block for block in blocks}
    owners |= {loaded.path(canonical): "unembed" for canonical in ("ln_final", "unembed")}
    found: Parts = {part: {} for part in ("embed", *blocks, "unembed")}
    for name, _ in loaded.model.named_parameters(remove_duplicate=False):
        path = next((path for path in owners if path and name.startswith(f"{path}.")), name.rpartition(".")[0])
        found[owners.get(path, "embed")].setdefault(path, []).append(name)
    return found


def mix(host: LoadedModel, donor: LoadedModel, shares: Mapping[str, float]) -> LoadedModel:
    """The host with each part of ``shares`` replaced by ``(1 - share) * host + share * donor``.

    At share 1 the part is the donor's to the last bit, and at 0 the host's. The mixed model is for running only: its
    parameters are the host's own, and it must not be trained, moved or cast.

    Raises:
        TwinprobeError: the models are not compatible, a part is not known, a share lies outside 0 to 1, or weights are
            quantised, offloaded or of different types.
    """
    check_compatible(host, donor)
    known = parts(host)
    model = shell(host.model)
    own, other = (dict(each.named_parameters(remove_duplicate=False)) for each in (model, donor.model))
    for part, share in shares.items():
        if part not in known:
            raise TwinprobeError(f"part {part!r} is not known; expected one of {', '.join(known)}")
        if not 0 <= share <= 1:
            raise TwinprobeError(f"share {share} of part {part!r} lies outside 0 to 1; 0 is the host, 1 the donor")
        for path, names in known[part].items() if share else ():
            for name in names:
                _check_weight(name, own[name], other[name])
            _exchange(
                model.get_submodule(path),
                [_Slot(*_kept(model, name), own[name], other[name], share) for name in names],
            )
    return replace(host, model=model)


def check_mixing(host: LoadedModel, donor: LoadedModel, ids: Sequence[int]) -> None:
    """Make sure that the models differ in their weights alone: all parts of the donor in the host answer as the donor.

    Raises:
        TwinprobeError: they do not (positions rotated by another base, other caps), or what :func:`mix` raises.
    """
    [(_, found)] = last_logits(mix(host, donor, dict.fromkeys(parts(host), 1.0)), [ids])
    [(_, expected)] = last_logits(donor, [ids])
    if not same_logits(found, expected.to(found.device)):
        raise TwinprobeError(
            f"all weights of {donor.spec.name} in {host.spec.name} do not give the logits of {donor.spec.name}; expected "
            f"models that differ in their weights alone, but their configurations differ in {_settings(host, donor)}"
        )


def _settings(host: LoadedModel, donor: LoadedModel) -> str:
    ours, theirs = (loaded.model.config.get_text_config().to_dict() for loaded in (host, donor))
    differing = [name for name in sorted({**ours, **theirs}) if ours.get(name) != theirs.get(name)]
    return ", ".join(name for name in differing if name not in _NOT_COMPUTING) or "nothing"


@dataclass(frozen=True, eq=False)
class _Slot:
    """Where the shell keeps a parameter, and what it is mixed of."""

    parameters: dict[str, Any]
    name: str
    host: torch.nn.Parameter
    donor: torch.Tensor
    share: float

    def fill(self) -> None:
        import torch

        taken = self.donor.detach().to(self.host.device)
        mixed = taken if self.share == 1 else self.host.detach().lerp(taken, self.share)
        # Which kernel multiplies can depend on whether the weight wants gradients, and rounding on the kernel.
        self.parameters[self.name] = torch.nn.Parameter(mixed, requires_grad=self.host.requires_grad)

    def empty(self) -> None:
        self.parameters[self.name] = self.host


def _kept(model: torch.nn.Module, name: str) -> tuple[dict[str, Any], str]:
    """The dictionary that holds a parameter, and its key there."""
    path, _, key = name.rpartition(".")
    return model.get_submodule(path)._parameters, key


def _exchange(module: torch.nn.Module, slots: Sequence[_Slot]) -> None:
    """Have the slots filled during every call of the module, also one that fails, and at no other time."""

    def before(_module: torch.nn.Module, _args: Any) -> None:
        for slot in slots:
            slot.fill()

    def after(_module: torch.nn.Module, _args: Any, _result: Any) -> None:
        for slot in slots:
            slot.empty()

    module.register_forward_pre_hook(before)
    module.register_forward_hook(after, always_call=True)


def _check_weight(name: str, host: torch.Tensor, donor: torch.Tensor) -> None:
    if host.dtype != donor.dtype:
        types = " and ".join(str(weight.dtype).removeprefix("torch.") for weight in (host, donor))
        raise TwinprobeError(f"{name} is {types} in the two models; load both with one --dtype")
    if not host.is_floating_point():
        raise TwinprobeError(f"{name} is quantised, and such weights can not be mixed; load both models without it")
    if host.is_meta or donor.is_meta:
        raise TwinprobeError(f"{name} is offloaded and can not be mixed; load both models onto devices that hold them")
