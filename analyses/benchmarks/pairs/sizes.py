"""How many parameters a model has, as far as it is said anywhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from activations.errors import TwinprobeError, did_you_mean
from activations.pairs import Pair

if TYPE_CHECKING:
    import pandas as pd

UNITS = {"m": 1e6, "b": 1e9}
FEWEST = 1000
"""A smaller number is a slip: 7 for 7b."""


def parse_parameters(text: str) -> float:
    """A number of parameters written as 6738000000, 6.738e9, 6.738b or 350M; raises ``ValueError`` for anything else."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([mMbB])", text.strip())
    number = float(match[1]) * UNITS[match[2].lower()] if match else float(text)
    if not FEWEST <= number < float("inf"):
        raise ValueError(text)
    return number


def parameters_in_name(name: str) -> float | None:
    """The size that stands in a model's name: 7e9 for ``meta-llama/Llama-2-7b-hf``, 3.5e8 for ``codegen-350M-nl``.

    The size is a number with M or B between separators, in the last part of the path. ``None`` where there is none, where two
    disagree, and for sizes of parts (``8x7B``, ``A2.7B``), which are not the model's. A name is a rounded claim: Llama-2-7b has
    6.7 billion, Gemma-7b 8.5.
    """
    last = re.split(r"[/\\:]", name.rstrip("/\\"))[-1]
    found = {
        float(number) * UNITS[unit.lower()]
        for number, unit in re.findall(r"(?<![A-Za-z0-9.])([0-9]+(?:\.[0-9]+)?)([mMbB])(?![A-Za-z0-9.])", last)
    }
    return found.pop() if len(found) == 1 else None


def read_sizes(options: Iterable[str], models: Iterable[str]) -> dict[str, float]:
    """Sizes given as ``MODEL=7e9``, by the model's name in lower case.

    Raises:
        TwinprobeError: it is not written like that, or the model is none of ``models``.
    """
    known, sizes = {model.casefold(): model for model in models}, {}
    for option in options:
        model, _, size = option.rpartition("=")
        if model.casefold() not in known:
            guess = did_you_mean(model.casefold(), known)
            raise TwinprobeError(
                f"--parameters {option!r} names no model with scores{guess}; expected MODEL=7e9 with one of {len(known)} models"
            )
        try:
            sizes[model.casefold()] = parse_parameters(size)
        except ValueError:
            raise TwinprobeError(f"--parameters {option!r}: {size!r} is no size; write 6738000000, 7e9 or 7b") from None
    return sizes


def add_sizes(sizes: dict[str, float], table: pd.DataFrame, path: Path) -> None:
    """Add the sizes of a per-item table's column ``parameters``, if it has one, by the model's name in lower case.

    Raises:
        TwinprobeError: one is no size, or a model has two.
    """
    if "parameters" not in table:
        return
    given = table[["model", "parameters"]].drop_duplicates()
    for model, text in given[given.parameters != ""].itertuples(index=False):
        try:
            size = parse_parameters(text)
        except ValueError:
            raise TwinprobeError(
                f"{path}: parameters {text!r} of {model} is no size; write 6738000000, 7e9 or 7b"
            ) from None
        if sizes.setdefault(model.casefold(), size) != size:
            raise TwinprobeError(
                f"{path}: {model} has {sizes[model.casefold()]:g} and {size:g} parameters; expected one size"
            )


def model_sizes(
    models: Iterable[str], pairs: Iterable[Pair], given: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Parameters of every model whose size is known, by its name in lower case.

    What is ``given`` (by names in lower case) goes first, then the registry's figure, then the size in the name.
    """
    registered = {
        name.casefold(): size * 1e9
        for pair in pairs
        for name, size in ((pair.base, pair.base_parameters), (pair.code, pair.code_parameters))
        if size is not None
    }
    found = {}
    for model in models:
        key = model.casefold()
        size = (given or {}).get(key) or registered.get(key) or parameters_in_name(model)
        if size:
            found[key] = size
    return found
