"""Floor 1: models and pairs, sites, tokenised inputs, engines, capture and the HDF5 store.

The names below load on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from activations.capturing import capture as capture
    from activations.errors import TwinprobeError as TwinprobeError
    from activations.models import ModelSpec as ModelSpec
    from activations.models import load_model as load_model
    from activations.models import wrap as wrap
    from activations.sites import parse_sites as parse_sites
    from activations.store import ActivationStore as ActivationStore
    from activations.texts import Span as Span
    from activations.texts import Text as Text
    from activations.texts import read_texts as read_texts

_HOMES = {
    "ActivationStore": "store",
    "ModelSpec": "models",
    "Span": "texts",
    "Text": "texts",
    "TwinprobeError": "errors",
    "capture": "capturing",
    "load_model": "models",
    "parse_sites": "sites",
    "read_texts": "texts",
    "wrap": "models",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'activations' has no attribute {name!r}")
    return getattr(import_module(f"activations.{_HOMES[name]}"), name)
