"""How the share of code changes over a stage: uniform, stepwise increase, stepwise decrease, cosine.

Ma et al. 2024 ("At Which Training Stage Does Code Data Help LLMs Reasoning?", arXiv 2309.16298, section 3.3.4 and table 5)
compare three of them in instruction tuning, in four phases of text:code: ``uniform`` 5:3 throughout, ``increase`` 7:3, 7:3,
6:4, 5:5, and ``decrease`` 5:5, 6:4, 7:3, 7:3. All three see the same share of code in all, three eighths. Section 3.3.4
does not say how examples are ordered within a phase; the even spreading here is this lab's. ``cosine`` is not in the paper: it
is the same idea without steps.

Everything follows from one function of the place in the stage, :func:`expected_code`: among the first ``place`` examples,
as many are code as the shares up to there add up to, rounded down. So the share holds at every point to within one example,
and two schedules with the same ratios in another order see equally many code examples in all.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Literal

from activations.errors import TwinprobeError
from analyses.pretraining.tables import Kind

Schedule = Literal["uniform", "increase", "decrease", "cosine"]


def code_share(ratio: str) -> Fraction:
    """The share of code that a ratio ``prose:code`` stands for, exactly: 3/10 for ``7:3``.

    Raises:
        TwinprobeError: it is not two whole numbers of which one at least is above zero.
    """
    match = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,9})", ratio)
    prose, code = (int(part) for part in match.groups()) if match else (0, 0)
    if not prose + code:
        raise TwinprobeError(
            f"ratio {ratio!r} is not prose:code in whole numbers; write 7:3 for 70% prose and 30% code"
        )
    return Fraction(code, prose + code)


def check_ratios(schedule: Schedule, ratios: Sequence[str]) -> None:
    """Refuse ratios that do not make the schedule they are given for.

    They are read in the order given and never sorted: a file that says one thing and does another would be worse than an
    error. A ratio may come again, as 7:3 does in the paper.

    Raises:
        TwinprobeError: a ratio can not be read, there are too many or too few, or the share of code goes the other way.
    """
    shares = [code_share(ratio) for ratio in ratios]
    given = ", ".join(ratios) or "none"
    if schedule == "uniform":
        if len(shares) != 1:
            raise TwinprobeError(f"a uniform schedule has exactly one ratio; got {given}")
        return
    if len(set(shares)) < 2:
        raise TwinprobeError(f"schedule {schedule!r} needs ratios that differ, or it would be uniform; got {given}")
    if schedule == "cosine":
        if len(shares) != 2:
            raise TwinprobeError(f"a cosine schedule goes from a first ratio to a last; expected two, got {given}")
        return
    ascending = schedule == "increase"
    if any((after < before) if ascending else (after > before) for before, after in pairwise(shares)):
        way = "falls" if ascending else "rises"
        raise TwinprobeError(
            f"the share of code {way} somewhere in {given}, but the schedule is {schedule!r}; change the order or the name"
        )


def expected_code(schedule: Schedule, shares: Sequence[Fraction], count: int, place: int) -> Fraction:
    """The sum of the shares of code of the first ``place`` of ``count`` examples.

    Phases are of equal length, ``count / len(shares)``, whole or not. A cosine's share at ``t`` is
    ``first + (last - first) * (1 - cos(pi * t / count)) / 2``, which is summed by its integral.
    """
    if schedule == "cosine":
        first, last = shares
        bend = count / (2 * math.pi) * math.sin(math.pi * place / count)
        # Rounded to be exact at the end and the same on every machine.
        return (first + last) / 2 * place - (last - first) * Fraction(round(bend * 10**9), 10**9)
    length = Fraction(count, len(shares))
    whole = place * len(shares) // count
    begun = shares[whole] * (place - whole * length) if whole < len(shares) else Fraction(0)
    return sum(shares[:whole], Fraction(0)) * length + begun


def kinds(schedule: Schedule, ratios: Sequence[str], count: int) -> list[Kind]:
    """The kind of each of ``count`` examples: code as soon as :func:`expected_code` calls for one more."""
    shares = [code_share(ratio) for ratio in ratios]
    order: list[Kind] = []
    codes = 0
    for place in range(1, count + 1):
        kind: Kind = "code" if math.floor(expected_code(schedule, shares, count, place)) > codes else "prose"
        codes += kind == "code"
        order.append(kind)
    return order


def phases(schedule: Schedule, ratios: Sequence[str], count: int) -> list[tuple[str, range]]:
    """Name and places of each phase; a place belongs to the phase that it begins in. A cosine is one phase."""
    names = [" to ".join(ratios)] if schedule == "cosine" else list(ratios)
    edges = [math.ceil(Fraction(count * index, len(names))) for index in range(len(names) + 1)]
    return [(name, range(*edge)) for name, edge in zip(names, pairwise(edges), strict=True)]
