"""How often the permutation tests of slopes find an effect where there is none, and how well known slopes are recovered.

Each simulated design has the shape of the mixture study (docs/MIXTURE_STUDY.md): shares 0, 0.25, 0.5, 0.75, three seeds,
12 tasks, each with a level of its own, seeds with levels of their own. Null: the share changes no score. ``correlated`` gives
the scores of one model a common part with half of the noise's variance, as models that came out well by chance have it.
Known slopes: the slope of every task is drawn from a normal distribution about 0.1 with standard deviation 0.1.

    python docs/bench/slopes.py [--designs 1000] [--trials 999]
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import time
from importlib.metadata import version

import numpy as np
import pandas as pd

from analyses.pretraining.slopes import SHUFFLED, STATISTICS, slope_tests, slopes

SHARES, SEEDS, TASKS, NOISE = (0.0, 0.25, 0.5, 0.75), 3, 12, 0.05
LEVEL = 0.05


def design(rng: np.random.Generator, known: np.ndarray, common: float) -> pd.DataFrame:
    """Scores of one design; ``known [task]`` are the slopes, ``common`` the share of variance that a model's scores share."""
    shape = (len(SHARES), SEEDS, TASKS)
    noise = np.sqrt(1 - common) * rng.normal(size=shape) + np.sqrt(common) * rng.normal(size=(*shape[:2], 1))
    level = rng.uniform(0.2, 0.8, TASKS) + 0.1 * rng.normal(size=(SEEDS, TASKS))
    score = level + np.array(SHARES)[:, None, None] * known + NOISE * noise
    index = pd.MultiIndex.from_product([SHARES, range(SEEDS), range(TASKS)], names=["share", "seed", "task"])
    table = pd.Series(score.ravel(), index, name="score").reset_index()
    return table.astype({"seed": str, "task": str})


def rejections(rng: np.random.Generator, common: float, designs: int, trials: int) -> pd.DataFrame:
    """Share of null designs with p at or below the level, per statistic and null."""
    found = [
        slope_tests(design(rng, np.zeros(TASKS), common), trials, seed=number).assign(design=number)
        for number in range(designs)
    ]
    table = pd.concat(found)
    table["found"] = table.p <= LEVEL
    return table.groupby(["statistic", "shuffled"])["found"].mean().unstack().loc[list(STATISTICS), list(SHUFFLED)]


def recovered(rng: np.random.Generator, designs: int) -> dict[str, float]:
    """Bias and spread of the error of single slopes, coverage of their intervals, and the spread that theory gives."""
    errors, covered = [], []
    for _ in range(designs):
        known = rng.normal(0.1, 0.1, TASKS)
        line = slopes(design(rng, known, 0.0)).set_index("task").loc[[str(task) for task in range(TASKS)]]
        errors.append(line.slope.to_numpy() - known)
        covered.append((line.low.to_numpy() <= known) & (known <= line.high.to_numpy()))
    error = np.array(errors)
    theory = NOISE / np.sqrt(SEEDS * np.sum((np.array(SHARES) - np.mean(SHARES)) ** 2))
    return {
        "bias": float(error.mean()),
        "standard error of the bias": float(error.std() / np.sqrt(error.size)),
        "spread": float(error.std()),
        "spread by theory": float(theory),
        "coverage of 95% intervals": float(np.mean(covered)),
    }


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--designs", type=int, default=1000, help="simulated designs of each kind (default: 1000)")
    parser.add_argument("--trials", type=int, default=999, help="permutations per test (default: 999)")
    options = parser.parse_args()
    began = time.monotonic()
    rng = np.random.default_rng(0)
    print(
        f"{datetime.date.today()}, Python {platform.python_version()}, numpy {version('numpy')}, "
        f"{len(os.sched_getaffinity(0))} cores; {options.designs} designs, {options.trials} permutations\n"
    )
    tables = {name: rejections(rng, common, options.designs, options.trials) for name, common in NOISES.items()}
    print(f"Null designs found at the {LEVEL:.0%} level, by what is permuted\n")
    columns = [f"{name}: {shuffled}" for name in NOISES for shuffled in SHUFFLED]
    print("| statistic | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for statistic in STATISTICS:
        cells = [f"{tables[name][shuffled][statistic]:.1%}" for name in NOISES for shuffled in SHUFFLED]
        print(f"| {statistic} | " + " | ".join(cells) + " |")
    print("\nKnown slopes\n")
    for name, value in recovered(rng, options.designs).items():
        print(f"{name}: {value:.4f}")
    print(f"\n{time.monotonic() - began:.0f} s")


NOISES = {"independent noise": 0.0, "correlated noise": 0.5}

if __name__ == "__main__":
    main()
