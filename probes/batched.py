"""Many logistic probes at once: all label sets and strengths of many decompositions, in shared matrix products.

The optima are those of :func:`probes.estimators.fit_path`. A single fit has few columns and mostly waits for memory;
here the columns of all label sets on the same rows go through one product, and decompositions that are small (on a GPU:
any of one kind) through one batch of products. :mod:`probes.batched_lbfgs` is the optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from activations.errors import TwinprobeError
from probes.batched_lbfgs import Paths, PathSolver
from probes.columns import class_basis
from probes.estimators import STRENGTHS, LogisticProbe, check_strengths, fitted_probe
from probes.softmax import Decomposition, FloatArray, Solution, decompose, one_blas_thread

#: Bytes of rows in one batch: what a core has of the cache, or a part of a GPU's memory.
CPU_BATCH, DEVICE_BATCH = 4 * 2**20, 4 * 2**30

Given = TypeVar("Given")
Result = TypeVar("Result")

Coded = tuple[NDArray[Any], NDArray[np.int64]]
"""The sorted labels of a label set, and the class index of every row."""


def fit_many(
    data: Sequence[Decomposition],
    problems: Sequence[Sequence[NDArray[Any]]],
    strengths: Sequence[float] = STRENGTHS,
    *,
    tol: float = 2e-5,
    max_iter: int = 1000,
    device: str = "cpu",
) -> list[list[list[LogisticProbe]]]:
    """Fit a path of probes for every label set of every decomposition.

    On the CPU ``torch.get_num_threads()`` batches run side by side; the result does not depend on that number.

    Args:
        data: decomposed training rows, of any sizes.
        problems: for every decomposition its label sets, each ``[n]``.
        strengths: inverse regularisation strengths, any order.
        tol: stop when no entry of the gradient of the mean loss, divided by the square root of the curvature along its
            axis, exceeds this. At the default the loss of docs/bench/probe_fits.py is within 1e-5 of the best known.
        max_iter: most steps per strength; ``converged_`` of a probe that needs more is False.
        device: torch device of the products.

    Returns:
        ``[decomposition][label set][strength]``, everything in the order given.

    Raises:
        TwinprobeError: a strength that is not positive, or a label set with fewer than two labels or of another length
            than its rows.
    """
    check_strengths(strengths)
    coded = [[_coded(labels, len(rows.scores)) for labels in sets] for rows, sets in zip(data, problems, strict=True)]
    most = CPU_BATCH if torch.device(device).type == "cpu" else DEVICE_BATCH
    batches = _batches(data, coded, most)

    def solve(batch: list[int]) -> list[list[list[Solution]]]:
        return _solve([data[i] for i in batch], [coded[i] for i in batch], strengths, tol, max_iter, device)

    probes: list[list[list[LogisticProbe]]] = [[] for _ in data]
    for batch, solved in zip(batches, _side_by_side(solve, batches, device), strict=True):
        for index, sets in zip(batch, solved, strict=True):
            probes[index] = [
                [fitted_probe(found, classes, C, tol, max_iter) for C, found in zip(strengths, path, strict=True)]
                for (classes, _), path in zip(coded[index], sets, strict=True)
            ]
    return probes


def decompose_many(features: Sequence[FloatArray]) -> list[Decomposition]:
    """:func:`probes.softmax.decompose` for every ``[n, d]``, as many at a time as torch has threads."""
    return _side_by_side(decompose, features, "cpu")


def _coded(labels: NDArray[Any], n_rows: int) -> Coded:
    classes, codes = np.unique(labels, return_inverse=True)
    if len(codes) != n_rows or len(classes) < 2:
        raise TwinprobeError(
            f"a label set has {len(codes)} labels, {len(classes)} different, for {n_rows} rows; "
            "expected one label per row and at least two different ones"
        )
    return classes, codes


def _batches(data: Sequence[Decomposition], coded: Sequence[Sequence[Coded]], most: int) -> list[list[int]]:
    """Indices of decompositions to solve together: equal numbers of classes and dtypes, ``most`` bytes in all."""
    alike: dict[tuple[Any, ...], list[list[int]]] = {}
    bytes_in: dict[tuple[Any, ...], int] = {}
    for index in sorted(range(len(data)), key=lambda index: data[index].scores.shape):  # little filling up
        if not coded[index]:
            continue
        scores = data[index].scores
        kind = (scores.dtype, *sorted(len(classes) for classes, _ in coded[index]))
        bytes_in[kind] = bytes_in.get(kind, most) + scores.nbytes
        if bytes_in[kind] > most:
            alike.setdefault(kind, []).append([])
            bytes_in[kind] = scores.nbytes
        alike[kind][-1].append(index)
    return [batch for batches in alike.values() for batch in batches]


def _solve(
    batch: Sequence[Decomposition],
    coded: Sequence[Sequence[Coded]],
    strengths: Sequence[float],
    tol: float,
    max_iter: int,
    device: str,
) -> list[list[list[Solution]]]:
    """Solutions ``[decomposition][label set][strength]`` of one batch."""
    orders = [np.argsort([len(classes) for classes, _ in sets], kind="stable") for sets in coded]
    n_classes = [len(coded[0][i][0]) for i in orders[0]]
    targets = [[sets[i][1] for i in order] for sets, order in zip(coded, orders, strict=True)]
    upward = np.argsort(strengths, kind="stable")
    paths = PathSolver(batch, targets, n_classes, [strengths[i] for i in upward], tol, max_iter, device).run()
    levels = np.argsort(upward)
    return [
        [_raw(paths, data, member, problem, n_classes[problem], levels) for problem in np.argsort(order)]
        for member, (data, order) in enumerate(zip(batch, orders, strict=True))
    ]


def _raw(
    paths: Paths, data: Decomposition, member: int, problem: int, n_classes: int, levels: NDArray[np.int64]
) -> list[Solution]:
    """The path of one problem, in the order of ``levels``, in the units of the raw features."""
    basis = class_basis(n_classes)
    solutions = []
    for level in levels:
        columns = basis @ paths.columns[level, member, paths.owners == problem]
        weights = columns[:, : len(data.variances)] @ data.axes.T / data.scale
        at = level, member, problem
        solutions.append(
            Solution(weights, columns[:, -1] - weights @ data.mean, int(paths.n_iter[at]), bool(paths.converged[at]))
        )
    return solutions


def _side_by_side(call: Callable[[Given], Result], items: Sequence[Given], device: str) -> list[Result]:
    """``call`` on every item; on the CPU on as many threads as torch has, each with one thread of its own."""
    workers = torch.get_num_threads() if torch.device(device).type == "cpu" else 1
    with one_blas_thread(), _one_torch_thread(), ThreadPoolExecutor(workers) as pool:
        return list(pool.map(call, items))


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Hold torch to one thread per caller; threads that begin inside take that over."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
