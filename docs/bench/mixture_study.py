"""The tables and pictures of docs/MIXTURE_STUDY.md, from the models and scores of a mixture design.

    twinprobe pretrain analyses/pretraining/mixture.toml --data-dir DATA --out runs/mixture
    twinprobe evaluate analyses/pretraining/mixture_evaluation.toml --models runs/mixture --data-dir DATA --out runs/scores
    python docs/bench/mixture_study.py runs/mixture runs/scores/scores.csv

Writes scores, slopes and tests as CSV and the pictures into docs/mixture/, and puts the tables between the markers of
docs/MIXTURE_STUDY.md; the words around them are written by hand.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from analyses.pretraining.scores import read_scores
from analyses.pretraining.slopes import TRIALS, slope_tests, slopes
from analyses.report.slope_figures import all_slopes, best_fits

DOCS = Path(__file__).resolve().parents[1]
PAGE, FOLDER = DOCS / "MIXTURE_STUDY.md", DOCS / "mixture"
BEGIN, END = "<!-- {name}: written by docs/bench/mixture_study.py -->\n", "<!-- end -->"
NET = "additive - volume"
BITS = "bits per byte (lower is better)"
"""The group that pooled tests leave out: its slopes have another unit, and the other sign."""


def models(runs: Path) -> str:
    """A line per trained model."""
    rows = []
    for path in sorted(runs.glob("*/model/training.json")):
        facts = json.loads(path.read_text())
        run, bits = facts["run"], facts["held_out_bits_per_byte"]
        serves = ", ".join(f"{each['setting']} {each['share']:g}" for each in run["serves"])
        code = round(run["code_share"] * facts["tokens"])
        rows.append(
            (
                run["seed"],
                facts["tokens"] - code,
                code,
                serves,
                f"{bits['prose']:.3f}",
                f"{bits['code']:.3f}",
                run["name"],
            )
        )
    table = pd.DataFrame(
        sorted(rows),
        columns=["seed", "prose tokens", "code tokens", "settings", "bits/byte prose", "bits/byte code", "run"],
    )
    cells = ["prose tokens", "code tokens", "settings"]
    lines = []
    for (prose, code, settings), part in table.groupby(cells, sort=False):
        values = [" / ".join(part[name]) for name in ("bits/byte prose", "bits/byte code")]
        lines.append(f"| {prose / 1e6:.2f} | {code / 1e6:.2f} | {settings} | {values[0]} | {values[1]} |")
    head = "| prose, M tokens | code, M tokens | serves (setting, share) | bits per byte by seed: prose | code |"
    return "\n".join([head, "|---" * 5 + "|", *lines]) + "\n"


def with_net(scores: pd.DataFrame) -> pd.DataFrame:
    """The scores, and as one more setting what the added code is worth beyond as much more prose, seed by seed."""
    keys = ["task", "share", "seed"]
    both = scores[scores.setting == "additive"].merge(
        scores.loc[scores.setting == "volume", [*keys, "score"]], on=keys, suffixes=("", "_volume")
    )
    net = both.assign(setting=NET, score=both.score - both.score_volume).drop(columns="score_volume")
    return pd.concat([scores, net], ignore_index=True)


def means(scores: pd.DataFrame) -> str:
    """Mean score over seeds per task, setting and share."""
    shares = sorted(scores.share.unique())
    lines = [
        "| task | setting | " + " | ".join(f"m = {share:g}" for share in shares) + " |",
        "|---" * (len(shares) + 2) + "|",
    ]
    for (task, setting), part in scores[scores.setting != NET].groupby(["task", "setting"], sort=False):
        by = part.groupby("share").score.mean()
        lines.append(f"| {task} | {setting} | " + " | ".join(f"{by[share]:.3f}" for share in shares) + " |")
    return "\n".join(lines) + "\n"


def slope_lines(table: pd.DataFrame) -> str:
    """Slope and interval per task, settings side by side."""
    settings = list(dict.fromkeys(table.setting))
    lines = ["| task | " + " | ".join(settings) + " |", "|---" * (len(settings) + 1) + "|"]
    for task, part in table.groupby("task", sort=False):
        found = part.set_index("setting")
        cells = [
            f"{found.slope[s]:+.3f} ({found.low[s]:+.3f} to {found.high[s]:+.3f})" if s in found.index else ""
            for s in settings
        ]
        lines.append(f"| {task} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def test_lines(table: pd.DataFrame) -> str:
    """The permutation tests per setting and kind of task, under both nulls."""
    lines = [
        "| setting | tasks | statistic | value | chance, 95% | p, tasks | p, models | p (Holm), models |",
        "|---" * 8 + "|",
    ]
    for (setting, by, name, statistic), part in table.groupby(["setting", "by", "name", "statistic"], sort=False):
        rows = part.set_index("shuffled")
        nulls = rows.loc["models" if "models" in rows.index else "tasks"]
        p = [f"{rows.p[which]:.3f}" if which in rows.index else "" for which in ("tasks", "models")]
        which = "all" if by == "all" else f"{by} {name}"
        chance = f"{nulls.null_low:.4g} to {nulls.null_high:.4g}"
        cells = [
            setting,
            f"{which} ({nulls.tasks})",
            statistic,
            f"{nulls.value:.4g}",
            chance,
            *p,
            f"{nulls.p_holm:.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def put(page: str, name: str, table: str) -> str:
    """The page with ``table`` between its markers."""
    begin = BEGIN.format(name=name)
    head, found, rest = page.partition(begin)
    if not found or END not in rest:
        raise SystemExit(f"{PAGE} lacks the markers {begin.strip()} and {END}")
    return head + begin + "\n" + table + "\n" + rest[rest.index(END) :]


def main() -> None:
    """Write tables, pictures and the tables of the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("scores", type=Path)
    options = parser.parse_args()
    scores = read_scores(options.scores)
    everything = with_net(scores)
    fitted, tests = slopes(everything), slope_tests(everything[everything.group != BITS], TRIALS, seed=0)
    FOLDER.mkdir(exist_ok=True)
    for name, table in (("scores", scores), ("slopes", fitted), ("slope_tests", tests)):
        table.round(6).to_csv(FOLDER / f"{name}.csv", index=False)
    best_fits(scores, slopes(scores), FOLDER / "fits.png")
    # Their slopes have another unit and would drown the others, and the mean that the picture tells.
    all_slopes(slopes(scores[scores.group != BITS]), FOLDER / "slopes.png")
    machine = (
        f"{datetime.date.today()}, Python {platform.python_version()}, torch {version('torch')}, transformers "
        f"{version('transformers')}, {len(os.sched_getaffinity(0))} cores\n"
    )
    page = PAGE.read_text()
    for name, text in (
        ("machine", machine), ("models", models(options.runs)), ("means", means(scores)),
        ("slopes", slope_lines(fitted)), ("tests", test_lines(tests[tests.by == "all"])),
        ("groups", test_lines(tests[(tests.by == "group") & (tests.statistic == "mean")])),
    ):  # fmt: skip
        page = put(page, name, text)
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
