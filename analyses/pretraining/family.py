"""Which models a family has: shares of code × seeds, at a fixed total (competitive) or with fixed prose (additive).

The settings are those of Petty et al. 2024 ("How Does Code Pretraining Affect Language Model Task Performance?",
arXiv 2409.04556, section 3.1): in ``competitive`` the tokens in all are fixed and code takes the place of prose; in
``additive`` the prose is fixed and code comes on top, until it is ``share`` of all; ``volume`` is prose alone, as many
tokens of it as the additive run of that share has in all, and tells the effect of code from that of more text.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from activations.errors import TwinprobeError
from analyses.pretraining.tables import Table

Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Serves(Table):
    """A point that a run stands for: a setting, and the share of code that its scores count for there."""

    setting: str
    share: Share


class Run(Table):
    """One model: its share of code and the seed of its initial weights and data order."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    code_share: Share
    seed: Seed
    tokens: int | None = Field(None, gt=0)
    """Tokens in all, prose and code; those of ``[training]`` without it."""
    serves: tuple[Serves, ...] = ()


class Family(Table):
    """Runs of every share with every seed."""

    shares: tuple[Share, ...] = Field(min_length=1)
    seeds: tuple[Seed, ...] = Field(min_length=1)
    competitive_tokens: int | None = Field(None, gt=0)
    """Tokens in all of each competitive run."""
    additive_prose_tokens: int | None = Field(None, gt=0)
    """Tokens of prose of each additive run."""


def expand(family: Family) -> tuple[Run, ...]:
    """The runs of a family, all of one seed before those of the next; one that serves several settings exists once.

    Raises:
        TwinprobeError: a share or a seed comes twice, no setting is asked for, or additive runs would be all code.
    """
    _check(family)
    points: dict[tuple[float, int], list[Serves]] = {}
    for share in family.shares if family.competitive_tokens else ():
        assert family.competitive_tokens is not None
        points.setdefault((share, family.competitive_tokens), []).append(Serves(setting="competitive", share=share))
    for setting in ("additive", "volume") if family.additive_prose_tokens else ():
        assert family.additive_prose_tokens is not None
        for share in family.shares:
            tokens = round(family.additive_prose_tokens / (1 - share))
            own_share = share if setting == "additive" else 0.0
            points.setdefault((own_share, tokens), []).append(Serves(setting=setting, share=share))
    return tuple(
        Run(name=_name(share, tokens, seed), code_share=share, seed=seed, tokens=tokens, serves=tuple(served))
        for seed in family.seeds
        for (share, tokens), served in points.items()
    )


def _name(share: float, tokens: int, seed: int) -> str:
    return f"code{100 * share:.6g}-{f'{tokens // 1000}k' if tokens % 1000 == 0 else tokens}-seed{seed}"


def _check(family: Family) -> None:
    for what, values in (("share", family.shares), ("seed", family.seeds)):
        again = [value for value in values if values.count(value) > 1]
        if again:
            raise TwinprobeError(f"[family]: {what} {again[0]} comes twice in {what}s; give each once")
    if family.competitive_tokens is None and family.additive_prose_tokens is None:
        raise TwinprobeError(
            "[family]: neither competitive_tokens nor additive_prose_tokens is given; expected one of them or both"
        )
    if family.additive_prose_tokens is not None and 1.0 in family.shares:
        raise TwinprobeError(
            "[family]: share 1.0 can not be additive, for no amount of code beside prose is all of the text; "
            "leave out the share or additive_prose_tokens"
        )
