"""A linear probe of right and wrong choices, out of fold: every item's choices are scored by a probe that never saw them."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activations.errors import TwinprobeError
from activations.files import write_whole
from activations.store import ActivationStore
from probes.estimators import STRENGTHS, LogisticProbe, check_strengths
from probes.softmax import one_blas_thread

Flags = NDArray[np.bool_]
Integers = NDArray[np.int64]
Scores = NDArray[np.float64]


def best_rows(scores: Scores, owners: Integers) -> Integers:
    """The row with the highest score of each item, of equal ones the first, ``[items]``; scores and owners are ``[rows]``."""
    order = np.lexsort((-scores, owners))
    return order[np.searchsorted(owners, np.arange(owners[-1] + 1))]


def margins(scores: Scores, owners: Integers, chosen: Flags) -> Scores:
    """The highest score among an item's ``chosen`` rows minus the highest among its others, ``[items]``.

    Infinite where all or none of an item's rows are chosen.
    """
    starts = np.searchsorted(owners, np.arange(owners[-1] + 1))
    inside = np.maximum.reduceat(np.where(chosen, scores, -np.inf), starts)
    outside = np.maximum.reduceat(np.where(chosen, -np.inf, scores), starts)
    return np.asarray(inside - outside)


def out_of_fold(
    features: NDArray[np.floating[Any]],
    labels: Sequence[Flags],
    owners: Integers,
    folds: Integers,
    strengths: Sequence[float] = STRENGTHS,
) -> Scores:
    """Scores of every row by probes that were trained without its fold.

    For each fold a logistic probe per label set is trained on all but this and the next fold (the first after the last);
    on the next one, dev, the strength is chosen by how many items' right choice has the highest score (of equal ones the
    stronger penalty).

    Args:
        features: ``[rows, d]``.
        labels: label sets, each ``[rows]``: which choices are right.
        owners: item of every row, ascending from 0, ``[rows]``.
        folds: fold of every item, ``[items]``.
        strengths: inverse regularisation strengths.

    Returns:
        Logits of being right, ``[rows, label sets]``; those of an item's choices are of one probe.

    Raises:
        TwinprobeError: a strength that is not positive, or training rows that are all right or all wrong.
    """
    from probes.batched import decompose_many, fit_many  # here, as it needs torch

    check_strengths(strengths)
    of_row, count = folds[owners], int(folds.max()) + 1
    tests = [of_row == fold for fold in range(count)]
    devs = [of_row == (fold + 1) % count for fold in range(count)]
    trains = [~(test | dev) for test, dev in zip(tests, devs, strict=True)]
    found = np.full((len(owners), len(labels)), np.nan)
    with one_blas_thread():
        # A fold at a time: the training rows of all of them together are many times the features.
        for test, dev, train in zip(tests, devs, trains, strict=True):
            data = decompose_many([features[train]])
            [paths] = fit_many(data, [[labels_of[train] for labels_of in labels]], sorted(strengths))
            for column, (path, labels_of) in enumerate(zip(paths, labels, strict=True)):
                probe = _chosen(path, features[dev], labels_of[dev], owners[dev])
                found[test, column] = probe.decision_function(features[test])
    return found


def _chosen(path: Sequence[LogisticProbe], features: Any, right: Flags, owners: Integers) -> LogisticProbe:
    """The probe of a path from strong to weak penalties that picks the right choice of most items."""
    numbered = np.unique(owners, return_inverse=True)[1]
    hits = [right[best_rows(probe.decision_function(features), numbered)].sum() for probe in path]
    return path[int(np.argmax(hits))]


def site_scores(
    store: ActivationStore,
    labels: Sequence[Flags],
    owners: Integers,
    folds: Integers,
    out: Path,
    *,
    strengths: Sequence[float] = STRENGTHS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Scores]:
    """:func:`out_of_fold` at every site of a store with a row per choice; finished sites are kept in ``out``.

    Raises:
        TwinprobeError: ``out`` has probes of other rows, labels or folds, or the store other rows.
    """
    if store.n_rows != len(owners):
        raise TwinprobeError(f"{store.path} has {store.n_rows} rows for {len(owners)} choices; remove it to begin anew")
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(each).tobytes() for each in (*labels, owners, folds)))
    record = {"store": store.provenance, "labels": digest.hexdigest(), "strengths": list(strengths)}
    text = json.dumps(record, indent=1, sort_keys=True, default=str) + "\n"
    about = out / "probes.json"
    if about.exists() and about.read_text(encoding="utf-8") != text:
        raise TwinprobeError(f"{out} has probes of other activations, labels or folds; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_whole(about, text.encode())
    found = {}
    for done, site in enumerate(store.sites):
        progress(done, len(store.sites))
        kept = out / f"{site}.npy"
        if not kept.exists():
            buffer = io.BytesIO()
            np.save(buffer, out_of_fold(store.read(site), labels, owners, folds, strengths))
            write_whole(kept, buffer.getvalue())
        found[site] = np.load(kept)
    progress(len(store.sites), len(store.sites))
    return found


def expected_seconds(rows: int, width: int, sites: int, folds: int) -> float:
    """About how long the probes of a task take, from fitting two paths to random rows of one fold's size."""
    from probes.batched import decompose_many, fit_many

    rng = np.random.default_rng(0)
    shape = (max(4, rows * (folds - 2) // folds), width)
    features = rng.standard_normal(shape, dtype=np.float32)
    labels = [np.arange(shape[0]) % 4 == 0, rng.permutation(np.arange(shape[0]) % 4 == 0)]
    begun = time.monotonic()
    with one_blas_thread():
        fit_many(decompose_many([features]), [labels], STRENGTHS)
    return (time.monotonic() - begun) * folds * sites
