"""Fitting probes beside a plain loop over scikit-learn: seconds, and how close both come to the best known optimum.

Rows are made like those of a residual stream: strongly correlated, variances falling as a power, four huge features. Six
label sets over the same rows have 2 to 8 classes; one is random, the others follow noisy linear rules. Every layer is
split into 5 folds, every label set fitted at 5 strengths. The loop standardises the rows of the training folds and fits
``LogisticRegression(C=...)`` with its defaults but for ``max_iter``, one job of joblib per layer and fold, on all cores.
Ours is ``decompose_many`` and ``fit_many``.

Both run in turn, in three rounds. Unless ``--full`` is given the loop gets two layer-folds of a round, drawn at random, and
its time is scaled up to all of them. The best known optimum is the lowest loss of the loop, ours, and ours in float64
with a tolerance of 1e-7. The second line of the table is the size of the embedded study: 300 rows, 128 wide.

    python docs/bench/probe_fits.py [--full] [--device cuda] [--layers 12] [--rows 4000] [--width 768]
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TypeVar

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from probes.batched import decompose_many, fit_many
from probes.estimators import STRENGTHS, LogisticProbe

CLASSES, RANDOM, FOLDS, ROUNDS, SAMPLED = (2, 2, 3, 4, 6, 8), 1, 5, 3, 2
CORES = len(os.sched_getaffinity(0))
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Unit:
    """One layer and fold: training rows and held-out rows ``[n, d]``, and both parts of every label set."""

    train: NDArray[np.float32]
    held: NDArray[np.float32]
    train_sets: list[NDArray[np.int64]]
    held_sets: list[NDArray[np.int64]]


@dataclass
class Agreement:
    """How close fits come to the best known: loss above it, relative, and the share of equal held-out predictions."""

    excess: list[float] = field(default_factory=list)
    equal: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{max(self.excess):.0e} | {np.mean(self.equal):.2%} ({min(self.equal):.2%})"


def make_units(layers: int, rows: int, width: int, seed: int = 0) -> list[Unit]:
    """All layers and folds. The layers share the rows' latent variables, and so the labels."""
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((rows, width))
    used = min(64, width)
    sets = []
    for index, k in enumerate(CLASSES):
        logits = latent[:, :used] @ (rng.standard_normal((used, k)) * np.arange(1, used + 1)[:, None] ** -0.3)
        logits *= 0.0 if index == RANDOM else (4.0, 2.0)[index % 2] / logits.std()
        sets.append((logits + rng.gumbel(size=logits.shape)).argmax(axis=1))
    fold = rng.permutation(rows) % FOLDS
    units = []
    for _ in range(layers):
        rotation, _ = np.linalg.qr(rng.standard_normal((width, width)))
        stream = (latent * np.arange(1, width + 1) ** -0.75) @ rotation + rng.standard_normal(width)
        huge = rng.choice(width, 4, replace=False)
        stream[:, huge] = 50.0 * stream[:, huge] + 200.0
        features = stream.astype(np.float32)
        for held in (fold == number for number in range(FOLDS)):
            units.append(Unit(features[~held], features[held], [y[~held] for y in sets], [y[held] for y in sets]))
    return units


def loop(unit: Unit) -> list[list[LogisticProbe]]:
    """What people write today; the fits are handed back in the units of the raw features."""
    scaler = StandardScaler().fit(unit.train)
    rows = scaler.transform(unit.train)
    fits = []
    for labels in unit.train_sets:
        path = []
        for strength in STRENGTHS:
            fitted = LogisticRegression(C=strength, max_iter=10_000).fit(rows, labels)
            probe = LogisticProbe(C=strength)
            probe.classes_, probe.n_features_in_ = fitted.classes_, rows.shape[1]
            probe.coef_ = fitted.coef_ / scaler.scale_
            probe.intercept_ = fitted.intercept_ - probe.coef_ @ scaler.mean_
            path.append(probe)
        fits.append(path)
    return fits


def ours(units: Sequence[Unit], device: str, **options: float) -> list[list[list[LogisticProbe]]]:
    """All fits of the units in one call."""
    data = decompose_many([unit.train for unit in units])
    return fit_many(data, [unit.train_sets for unit in units], STRENGTHS, device=device, **options)


def loss(probe: LogisticProbe, rows: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The objective that is minimised, over the number of rows, in float64."""
    exact = rows.astype(np.float64)
    logits = exact @ probe.coef_.T + probe.intercept_
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    codes = np.searchsorted(probe.classes_, labels)
    entropy = -log_softmax(logits, axis=1)[np.arange(len(rows)), codes].mean()
    return float(entropy + 0.5 * np.square(probe.coef_ * exact.std(axis=0)).sum() / (probe.C * len(rows)))


def compare(unit: Unit, candidates: Sequence[list[list[LogisticProbe]]], into: Sequence[Agreement]) -> None:
    """Set each of the first candidates beside the best of all."""
    for index, labels in enumerate(unit.train_sets):
        for level in range(len(STRENGTHS)):
            probes = [fits[index][level] for fits in candidates]
            losses = [loss(probe, unit.train, labels) for probe in probes]
            best = int(np.argmin(losses))
            answer = probes[best].predict(unit.held)
            for probe, value, agreement in zip(probes, losses, into, strict=False):
                agreement.excess.append(value / losses[best] - 1.0)
                agreement.equal.append(float((probe.predict(unit.held) == answer).mean()))


def timed(call: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds that one call takes, and what it gives."""
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result


def measure(name: str, units: list[Unit], full: bool, device: str, seed: int = 0) -> None:
    """One line of the table."""
    order = np.random.default_rng(seed).permutation(len(units))
    theirs, mine, measured = [], [], 0
    plain, batched = Agreement(), Agreement()
    pool = Parallel(n_jobs=CORES)
    pool(delayed(loop)(unit) for unit in make_units(1, 60, 8)[:CORES])  # start the workers
    ours(units[:1], device)
    for chosen in np.array_split(order, ROUNDS):
        group = [units[index] for index in chosen]
        sample = group if full else group[:SAMPLED]
        seconds, slow = timed(lambda sample=sample: pool(delayed(loop)(unit) for unit in sample))
        theirs.append(seconds * len(group) / len(sample))
        measured += len(sample)
        seconds, quick = timed(lambda group=group: ours(group, device))
        mine.append(seconds)
        unit = group[0]
        exact = Unit(unit.train.astype(np.float64), unit.held, unit.train_sets, unit.held_sets)
        [tight] = ours([exact], device, tol=1e-7)
        compare(unit, [slow[0], quick[0], tight], [plain, batched])
    ratios = ", ".join(f"{slow / quick:.1f}" for slow, quick in zip(theirs, mine, strict=True))
    fits = len(units) * len(CLASSES) * len(STRENGTHS)
    scaled = "" if full or measured == len(units) else f" (scaled from {measured} of {len(units)} layer-folds)"
    print(
        f"| {name}, {fits:,} fits | {sum(theirs):.1f} s{scaled} | {sum(mine):.1f} s | "
        f"{sum(theirs) / sum(mine):.1f} ({ratios}) | {plain} | {batched} |",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="run the whole scikit-learn loop")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--width", type=int, default=768)
    chosen = parser.parse_args()
    torch.set_num_threads(CORES)
    where = torch.cuda.get_device_name(chosen.device) if chosen.device.startswith("cuda") else "CPU"
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "scikit-learn", "numpy", "joblib"))
    print(
        f"`fit_many` on {where}; {CORES} cores of {processor()}; Python {platform.python_version()}, {packages}; "
        f"{datetime.datetime.now(datetime.UTC).date()}. Ratio: in all (per round). Agreement with the best known: largest "
        f"relative excess of the loss; equal held-out predictions on average (least), in {ROUNDS} layer-folds.\n"
    )
    print(
        "| fits | scikit-learn loop | fit_many | ratio | loop: excess | loop: equal | fit_many: excess | fit_many: equal |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    shape = f"{chosen.layers} layers, {chosen.rows} × {chosen.width}"
    measure(shape, make_units(chosen.layers, chosen.rows, chosen.width), chosen.full, chosen.device)
    measure("12 layers, 375 × 128", make_units(12, 375, 128), True, chosen.device)


def processor() -> str:
    """The processor's name as the system gives it."""
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
