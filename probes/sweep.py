"""Probe every site for every problem, with the controls that make a score readable.

A *problem* is one set of labels on some rows: a target of a task in one form, for one draw of items. All problems are
probed while a site's rows are in memory; problems on the same training rows share their standardisation and decomposition,
and the logistic paths of all of them are fitted together (:mod:`probes.batched`). Strengths and layers are chosen on dev;
test rows are only ever predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activations.errors import TwinprobeError
from activations.models import check_device
from probes.baselines import Baselines, baselines
from probes.controls import control_labels, draw_control
from probes.estimators import STRENGTHS, check_labels, check_strengths
from probes.families import BILINEAR, LOGISTIC, check_family
from probes.fitting import Fitted, probe_site
from probes.result import ProbeResult
from probes.rows import SPLITS, RowLabels, Rows
from probes.softmax import one_blas_thread


@dataclass(frozen=True, eq=False)
class Problem:
    """One set of labels to probe for.

    Attributes:
        about: what is known about the rows, the same at every site.
        rows: where the rows are among those of a site, integers ``[n]``; ``[n, 2]`` for relations between two rows.
        control: control label of every control key, from :func:`probes.controls.draw_control`.
        surface: the surface baselines of these rows.
        where: what tells this problem from the others in a table: task, target, form, seed.
        names: of each row, equal in the stores of two models, strings ``[n]``; empty where nothing is to be paired.
    """

    about: RowLabels
    rows: NDArray[np.int64]
    control: Mapping[str, str]
    surface: Baselines
    where: Mapping[str, Any] = field(default_factory=dict)
    names: NDArray[np.str_] = field(default_factory=lambda: np.zeros(0, dtype=np.str_))

    @cached_property
    def trained_on(self) -> bytes:
        """Equal for problems whose training rows are the same."""
        return np.ascontiguousarray(self.rows[self.about.mask("train")]).tobytes()

    def at(self, features: NDArray[np.floating[Any]]) -> Rows:
        """This problem's rows out of all rows of a site; the two of a relation lie side by side.

        Raises:
            TwinprobeError: the site has too few rows, or they can not be probed.
        """
        if len(features) <= self.rows.max():
            raise TwinprobeError(
                f"{len(features)} feature rows for a problem that reads row {self.rows.max()}; pass the rows of its store"
            )
        return Rows(features[self.rows].reshape(len(self.rows), -1), self.about)


#: Bytes of training rows whose probes are fitted together.
TOGETHER = 2**28


def sweep_problems(
    features: Mapping[str, NDArray[np.floating[Any]]],
    problems: Sequence[Problem],
    *,
    family: str = LOGISTIC,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
    n_resamples: int = 1000,
    code_orders: int = 0,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[str, list[ProbeResult]]]:
    """Probe every site in ``features``, in its order, for every problem.

    One site's rows are in memory at a time, read once for all problems.

    Args:
        features: site name to rows ``[n, d]``; ``Problem.rows`` counts in them.
        problems: what to probe for; relations are probed by the bilinear family whatever ``family`` says.
        family: family of probes, see :mod:`probes.families`.
        strengths: inverse regularisation strengths, chosen on dev per site and problem.
        seed: seed of the bootstrap and of the codelength's orders.
        n_resamples: bootstrap resamples per interval.
        code_orders: orders of the rows that the online codelength averages over; 0 leaves it out.
        device: torch device that the logistic paths are fitted on.
        progress: called with ``(probes done, probes in all)``.

    Yields:
        Each site with one result per problem, in the order of ``problems``.

    Raises:
        TwinprobeError: no sites, no problems, an empty split, a group in two splits, or rows that can not be probed.
    """
    if not features or not problems:
        missing = "sites" if not features else "problems"
        raise TwinprobeError(
            f"no {missing} to probe; expected at least one site with captured rows, and labels for them"
        )
    check_strengths(strengths)
    check_family(family)
    for problem in problems:
        check_splits(problem.about)
    if device != "cpu":
        check_device(device)
    total, done = len(features) * len(problems), 0
    effort: dict[str, Any] = {
        "strengths": strengths, "seed": seed, "n_resamples": n_resamples, "code_orders": code_orders
    }  # fmt: skip
    for site in features:
        rows_of_site = features[site]
        results: dict[int, ProbeResult] = {}
        for together in _together(problems, rows_of_site):
            fits = _fit(together, rows_of_site, strengths, device) if family == LOGISTIC else {}
            for number, problem in together.items():
                kind = BILINEAR if problem.rows.ndim == 2 else family
                with one_blas_thread():
                    results[number] = probe_site(
                        site, problem.at(rows_of_site), problem.control, problem.surface, family=kind,
                        fitted=fits.get(number), **effort,
                    )  # fmt: skip
                done += 1
                if progress is not None:
                    progress(done, total)
        yield site, [results[number] for number in range(len(problems))]


def _together(problems: Sequence[Problem], features: NDArray[Any]) -> list[dict[int, Problem]]:
    """The problems by number, in lots of about :data:`TOGETHER` bytes of training rows; alike ones are in one lot."""
    alike: dict[bytes, dict[int, Problem]] = {}
    for number, problem in enumerate(problems):
        alike.setdefault(problem.trained_on, {})[number] = problem
    row_bytes = features.shape[1] * features.dtype.itemsize
    lots: list[dict[int, Problem]] = []
    filled = TOGETHER
    for trained_on, members in alike.items():
        size = len(trained_on) // np.dtype(np.int64).itemsize * row_bytes
        if filled + size > TOGETHER:
            lots.append({})
            filled = 0
        lots[-1] |= members
        filled += size
    return lots


def _fit(
    problems: Mapping[int, Problem], features: NDArray[np.floating[Any]], strengths: Sequence[float], device: str
) -> dict[int, Fitted]:
    """The logistic paths of all problems but relations, with one decomposition per set of training rows."""
    from probes.batched import decompose_many, fit_many  # here, as it needs torch

    alike: dict[bytes, list[int]] = {}
    for number, problem in problems.items():
        if problem.rows.ndim == 1:
            alike.setdefault(problem.trained_on, []).append(number)
    groups = list(alike.values())
    firsts = [problems[members[0]] for members in groups]
    data = decompose_many([features[problem.rows[problem.about.mask("train")]] for problem in firsts])
    label_sets = []
    for members in groups:
        of_group = []
        for problem in (problems[number] for number in members):
            train = problem.about.split("train")
            of_group += [train.labels, control_labels(train, problem.control)]
        label_sets.append(of_group)
    for labels in (labels for of_group in label_sets for labels in of_group):
        check_labels(labels)
    fitted = fit_many(data, label_sets, sorted(strengths), device=device)
    return {
        number: Fitted(data[group], fitted[group][2 * place], fitted[group][2 * place + 1])
        for group, members in enumerate(groups)
        for place, number in enumerate(members)
    }


def sweep(
    features: Mapping[str, NDArray[np.floating[Any]]],
    about: RowLabels,
    *,
    control: Mapping[str, str] | None = None,
    surface: Baselines | None = None,
    family: str = LOGISTIC,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
    n_resamples: int = 1000,
    code_orders: int = 0,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> list[ProbeResult]:
    """Probe every site in ``features``, in its order, for one set of labels.

    Args:
        features: site name to rows ``[n, d]``. One site is read at a time, so a mapping that loads on access
            keeps memory bounded.
        about: what is known about the rows, the same at every site.
        control: control labels by key; drawn from ``about`` when absent. Pass one drawn over all forms for transfer.
        surface: surface baselines, if already computed for these rows (say, for another model with the same tokenizer).
        family, strengths, seed, n_resamples, code_orders, device, progress: see :func:`sweep_problems`.

    Raises:
        TwinprobeError: no sites, an empty split, a group in two splits, or rows that can not be probed.
    """
    check_splits(about)
    check_strengths(strengths)
    control = draw_control([about], seed) if control is None else control
    with one_blas_thread():
        surface = baselines(about, strengths) if surface is None else surface
    problem = Problem(about, np.arange(len(about)), control, surface)
    found = sweep_problems(
        features, [problem], family=family, strengths=strengths, seed=seed, n_resamples=n_resamples,
        code_orders=code_orders, device=device, progress=progress,
    )  # fmt: skip
    return [result for _, [result] in found]


def check_splits(about: RowLabels) -> None:
    """Raise :class:`TwinprobeError` when a split is empty, or a group or item lies in more than one split."""
    for name in SPLITS:
        about.mask(name)
    for kind, ids in (("group", about.groups), ("item", about.items)):
        home: dict[str, str] = {}
        for name, split in zip(ids.tolist(), about.splits.tolist(), strict=True):
            if home.setdefault(name, split) != split:
                raise TwinprobeError(
                    f"{kind} {name!r} is in two splits ({home[name]} and {split}); split whole {kind}s, or scores leak"
                )


def best_layer(results: Sequence[ProbeResult]) -> ProbeResult:
    """The result with the highest dev score; of equal ones the first. Test scores play no part.

    Raises:
        TwinprobeError: there are no results.
    """
    if not results:
        raise TwinprobeError("no probe results to choose a layer from; expected at least one")
    return max(results, key=lambda result: result.dev_score)
