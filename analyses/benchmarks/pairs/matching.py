"""Which pairs the models of a table of scores make up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from activations.errors import TwinprobeError, did_you_mean
from activations.pairs import Pair, custom_pair, load_pairs


@dataclass(frozen=True)
class Matched:
    """Which pairs the models of a file make up.

    Attributes:
        pairs: both models have scores.
        half: pairs of which one model has scores, with the model that has none.
        unpaired: models with scores that belong to no pair at all.
    """

    pairs: tuple[Pair, ...]
    half: tuple[tuple[Pair, str], ...]
    unpaired: tuple[str, ...]


def match_pairs(models: Iterable[str], pairs: Iterable[Pair]) -> Matched:
    """Find the pairs whose models have scores. Ids are compared as the hub does, without regard to case."""
    known = {model.casefold(): model for model in models}
    whole, half, used = [], [], set()
    for pair in pairs:
        has = [name.casefold() in known for name in (pair.base, pair.code)]
        used |= {name.casefold() for name in (pair.base, pair.code)}
        if all(has):
            whole.append(pair)
        elif any(has):
            half.append((pair, pair.code if has[0] else pair.base))
    return Matched(tuple(whole), tuple(half), tuple(model for key, model in known.items() if key not in used))


def known_pairs(named: Iterable[tuple[str, str]] = ()) -> dict[tuple[str, str], Pair]:
    """The registry and the pairs ``named`` by their models (base, code), each by its models' ids in lower case."""
    known = {(pair.base.casefold(), pair.code.casefold()): pair for pair in load_pairs().values()}
    for base, code in named:
        known.setdefault((base.casefold(), code.casefold()), custom_pair(base, code))
    return known


def require_scores(named: Iterable[tuple[str, str]], models: Sequence[str], where: str) -> None:
    """Raise TwinprobeError where a model of a pair named with ``--pair`` has no score in ``where``."""
    scored = {model.casefold(): model for model in models}
    unscored = [name for both in named for name in both if name.casefold() not in scored]
    if unscored:
        guess = did_you_mean(unscored[0].casefold(), scored)
        raise TwinprobeError(
            f"{unscored[0]!r} of --pair has no score in {where}{guess}; expected one of its {len(models)} models"
        )
