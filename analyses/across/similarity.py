"""How alike two models' activations are on the same tokens: CKA, Procrustes distance and cosine, with intervals.

Rows come document by document, so that only one document has to fit in memory, besides ``[a, b]`` sums. Every measure is
a function of such sums over rows. Rows of one document are not independent; intervals therefore leave out whole documents
(the delete-one-cluster jackknife, CV3 of MacKinnon, Nielsen & Webb 2023, with Student's t). A bootstrap does not do here:
a document drawn twice pairs its rows with copies of themselves, so that resamples have a higher CKA and a smaller
Procrustes distance than the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, reduce
from itertools import product
from operator import add
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student

from activations.errors import TwinprobeError
from activations.store import ActivationStore
from analyses.study.neutral import TokenPairs, pair_tokens
from probes.metrics import Interval

RANGES = {"cka": (-1.0, 1.0), "procrustes": (0.0, 2.0), "cosine": (-1.0, 1.0), "centred_cosine": (-1.0, 1.0)}
"""The measures and the values that they can take; alike is 1, for ``procrustes`` 0."""
Array = NDArray[np.float64]
Documents = Iterable[tuple[NDArray[Any], NDArray[Any]]]
"""Per document its rows in both spaces, ``[n, a]`` and ``[n, b]``; iterated more than once, so not a generator."""


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over paired rows ``x`` and ``y``, taken about one origin per space; those of parts of the rows add up."""

    rows: int
    x: Array
    y: Array
    xx: float
    yy: float
    xxyy: float
    xyy: Array
    yxx: Array
    cross: Array

    @classmethod
    def of(cls, x: Array, y: Array) -> Sums:
        """Sums over the rows ``[n, a]`` and ``[n, b]``."""
        xx, yy = np.einsum("ij,ij->i", x, x), np.einsum("ij,ij->i", y, y)
        return cls(
            len(x), x.sum(axis=0), y.sum(axis=0), float(xx.sum()), float(yy.sum()), float(xx @ yy), yy @ x, xx @ y, x.T @ y
        )  # fmt: skip

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    def __sub__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, each.name) - getattr(other, each.name) for each in fields(self)))

    def hsic(self) -> float:
        """The unbiased estimate of HSIC with linear kernels (Song et al. 2012); NaN below 4 rows.

        The same number as from the ``[n, n]`` kernel matrices, and so what minibatches (Nguyen, Raghu & Kornblith 2021)
        only approach. It does not depend on the origin.
        """
        if self.rows < 4:
            return float("nan")
        n = self.rows
        products = float(np.sum(self.cross**2)) - self.xxyy
        totals = (float(self.x @ self.x) - self.xx) * (float(self.y @ self.y) - self.yy)
        mixed = float(self.x @ self.cross @ self.y - self.x @ self.xyy - self.y @ self.yxx) + self.xxyy
        return (products + totals / ((n - 1) * (n - 2)) - 2 * mixed / (n - 2)) / (n * (n - 3))

    def covariance(self) -> Array:
        """Cross-covariance ``[a, b]`` of the rows, each space scaled to a summed variance of 1; NaN if one has none."""
        n = max(self.rows, 1)
        spread = (self.xx - float(self.x @ self.x) / n) * (self.yy - float(self.y @ self.y) / n)
        if self.rows < 2 or spread <= 0:
            return np.full_like(self.cross, np.nan)
        covariance: Array = (self.cross - np.outer(self.x, self.y) / n) / np.sqrt(spread)
        return covariance


def hsic(documents: Documents) -> Array:
    """Unbiased HSIC (see :meth:`Sums.hsic`) of all rows, then without each of ``d`` documents: ``[1 + d]``.

    Raises:
        TwinprobeError: no documents, rows that do not pair up, or numbers that are not finite.
    """
    return np.array([sums.hsic() for sums in _leave_one_out(documents)])


def cka(between: Array, first: Array, second: Array) -> Array:
    """Linear CKA (Kornblith et al. 2019) from HSIC between two spaces and of each with itself, elementwise.

    The estimate lies in -1 to 1 (HSIC is an inner product of U-centred kernels, Székely & Rizzo 2014) and is around 0
    for unrelated spaces if rows are independent, however few. Rows of one document are not, so that few documents leave
    some of the upward bias, in a floor as well. NaN where a space does not vary.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: Array = between / np.sqrt(first * second)
    return ratio


def procrustes(documents: Documents) -> Array:
    """Normalised Procrustes distance of all rows, then without each of ``d`` documents: ``[1 + d]``, in 0 to 2.

    The squared distance that the best turn leaves between rows that are centred and scaled to norm 1 (Ding, Denain &
    Steinhardt 2021); its root is the metric of Williams et al. 2021. The turn is fitted once, on all rows: the distance
    at its minimum changes only in second order with it. With few rows per dimension even independent rows seem
    close, so that a floor needs as many rows.

    Raises:
        TwinprobeError: as :func:`hsic`.
    """
    parts = _leave_one_out(documents)
    whole = next(parts).covariance()
    if not np.isfinite(whole).all():
        return np.array([np.nan, *(np.nan for _ in parts)])
    left, values, right = np.linalg.svd(whole, full_matrices=False)
    turn = left @ right
    without = [2 - 2 * float(np.sum(sums.covariance() * turn)) for sums in parts]
    return np.array([2 - 2 * float(values.sum()), *without])


def cosine(documents: Documents, *, centred: bool = False) -> Array:
    """Mean cosine of paired rows of equal width, of all rows, then without each of ``d`` documents: ``[1 + d]``.

    A row of zeros counts 0. Without ``centred`` a direction that all rows share dominates.

    Args:
        documents: rows ``[n, a]`` and ``[n, a]``.
        centred: subtract each space's mean over all rows first.

    Raises:
        TwinprobeError: the widths differ, or as :func:`hsic`.
    """
    means: tuple[Array | float, Array | float] = _means(documents) if centred else (0.0, 0.0)
    sums = []
    for rows in _checked(documents):
        x, y = (each - mean for each, mean in zip(rows, means, strict=True))
        if x.shape != y.shape:
            raise TwinprobeError(f"rows are {x.shape[1]} and {y.shape[1]} wide; a cosine needs one width for both")
        lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
        products = np.einsum("ij,ij->i", x, y)
        sums.append((float(np.divide(products, lengths, out=np.zeros_like(lengths), where=lengths > 0).sum()), len(x)))
    parts = np.array(sums)
    kept = np.concatenate([parts.sum(axis=0, keepdims=True), parts.sum(axis=0) - parts])
    with np.errstate(invalid="ignore"):
        means_of_parts: Array = kept[:, 0] / kept[:, 1]
    return means_of_parts


def jackknife(values: Array, low: float, high: float) -> Interval:
    """95% interval from a value of all rows and those without each of ``d`` documents, ``[1 + d]``, cut to a range.

    The bounds are NaN with one document, or where the value is not defined without one of them.
    """
    value, count = float(np.clip(values[0], low, high)), len(values) - 1  # rounding may step over the range
    if count < 2:
        return Interval(value, float("nan"), float("nan"))
    error = np.sqrt((count - 1) * np.var(values[1:]))
    reach = float(student.ppf(0.975, count - 1) * error)
    return Interval(value, *(float(np.clip(bound, low, high)) for bound in (value - reach, value + reach)))


def similarity_table(
    stores: Mapping[str, ActivationStore],
    pairs: Sequence[tuple[str, str]],
    sites: Sequence[str],
    *,
    every_site_pair: bool = False,
) -> pd.DataFrame:
    """Compare models at the same sites, for every kind of text; floors and ceilings are pairs like any other.

    Args:
        stores: by role, all tokens of the same texts, whose groups are ``KIND/DOCUMENT`` (``code/...``, ``prose/...``).
        pairs: roles to compare.
        sites: sites that all those stores have.
        every_site_pair: also CKA of every site of one model with every other site of the other, for a map.

    Returns:
        Columns model_a, model_b, kind, site_a, site_b, measure (see :data:`RANGES`; cosines only where the widths
        agree), value, low, high (see :func:`jackknife`), n (paired tokens), n_documents, n_unpaired (tokens of the kind
        that are in no pair).

    Raises:
        TwinprobeError: an unknown role or site, texts that differ, or a group without a kind.
    """
    lines: list[dict[str, Any]] = []
    for model_a, model_b in pairs:
        missing = sorted({model_a, model_b} - set(stores))
        if missing:
            raise TwinprobeError(f"no store for {', '.join(missing)}; there are stores for {', '.join(stores)}")
        tokens = pair_tokens(stores[model_a], stores[model_b])
        for kind, chosen in _kinds(tokens).items():
            who = {"model_a": model_a, "model_b": model_b, "kind": kind}
            count = sum(len(numbers) for numbers in chosen)
            known = sum(int(store.rows.group.map(_kind).eq(kind).sum()) for store in (tokens.source, tokens.target))
            counts = {"n": count, "n_documents": len(chosen), "n_unpaired": known - 2 * count}
            for (site_a, site_b), measure, values in _measured(tokens, chosen, sites, every_site_pair):
                found = jackknife(values, *RANGES[measure])
                where = {"site_a": site_a, "site_b": site_b, "measure": measure}
                bounds = {"value": found.estimate, "low": found.low, "high": found.high}
                lines.append({**who, **where, **bounds, **counts})
    return pd.DataFrame(lines)


def _measured(
    tokens: TokenPairs, chosen: Sequence[NDArray[np.int64]], sites: Sequence[str], every_site_pair: bool
) -> Iterator[tuple[tuple[str, str], str, Array]]:
    """Site pairs, measures and their values ``[1 + d]``."""
    first, second = (
        {site: _Side(store, [rows[numbers] for numbers in chosen], site) for site in sites}
        for store, rows in ((tokens.source, tokens.source_rows), (tokens.target, tokens.target_rows))
    )
    for site_a, site_b in product(sites, sites) if every_site_pair else zip(sites, sites, strict=True):
        a, b, place = first[site_a], second[site_b], (site_a, site_b)
        both = _Stored(a, b)
        yield place, "cka", cka(hsic(both), a.own_hsic, b.own_hsic)
        if site_a == site_b:
            yield place, "procrustes", procrustes(both)
            if a.store.width(site_a) == b.store.width(site_b):
                yield place, "cosine", cosine(both)
                yield place, "centred_cosine", cosine(both, centred=True)


@dataclass(frozen=True, eq=False)
class _Side:
    """The rows of every document at one site of a store; one object per site, so that ``own_hsic`` is computed once."""

    store: ActivationStore
    documents: Sequence[NDArray[np.int64]]
    site: str

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return (self.store.read(self.site, rows) for rows in self.documents)

    @cached_property
    def own_hsic(self) -> Array:
        return hsic(_Stored(self, self))


@dataclass(frozen=True, eq=False)
class _Stored:
    """Paired rows of two sites, read anew whenever they are iterated."""

    a: _Side
    b: _Side

    def __iter__(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        return zip(self.a, self.b, strict=True)


def _kinds(tokens: TokenPairs) -> dict[str, list[NDArray[np.int64]]]:
    """Numbers of the token pairs of every document, by kind of text."""
    kinds: dict[str, list[NDArray[np.int64]]] = {}
    documents, codes = np.unique(tokens.ids, return_inverse=True)
    for number, document in enumerate(documents):
        kinds.setdefault(_kind(str(document)), []).append(np.flatnonzero(codes == number))
    return kinds


def _kind(group: str) -> str:
    kind, slash, _ = group.partition("/")
    if not (kind and slash):
        raise TwinprobeError(f"a text has group {group!r}; expected KIND/DOCUMENT, such as code/NAME or prose/NAME")
    return kind


def _leave_one_out(documents: Documents) -> Iterator[Sums]:
    """Sums over all rows, then those without each document, one at a time.

    The origin lies among the rows, as sums about a far one would lose digits; rows that do not vary sum to exactly 0.
    """
    x, y = next(_checked(documents))
    origins = [rows[0] + (rows - rows[0]).mean(axis=0) for rows in (x, y)]

    def parts() -> Iterator[Sums]:
        return (Sums.of(x - origins[0], y - origins[1]) for x, y in _checked(documents))

    whole = reduce(add, parts())
    yield whole
    yield from (whole - part for part in parts())


def _means(documents: Documents) -> tuple[Array, Array]:
    parts = [(x.sum(axis=0), y.sum(axis=0), len(x)) for x, y in _checked(documents)]
    sums_x, sums_y, counts = zip(*parts, strict=True)
    return sum(sums_x) / sum(counts), sum(sums_y) / sum(counts)


def _checked(documents: Documents) -> Iterator[tuple[Array, Array]]:
    """The rows of each document as float64."""
    number = 0
    for number, (first, second) in enumerate(documents, start=1):
        x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not len(x):
            raise TwinprobeError(
                f"document {number} has rows {x.shape} and {y.shape}; expected [n, a] and [n, b], n > 0"
            )
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise TwinprobeError(f"document {number} has rows that are not finite; capture it anew in a wider dtype")
        yield x, y
    if not number:
        raise TwinprobeError("there are no documents to compare rows of; pass a list of at least one")
