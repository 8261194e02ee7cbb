"""What each embedded twin can do that is worth patching, measured and written as the page docs/TWINS.md.

    python docs/bench/behaviours.py                                     # every embedded twin; minutes on one core
    python docs/bench/behaviours.py --models text runs/twins/code/model --items 120 --out /tmp/twins.md

A behaviour is a task in one form. Its items are those that ``twinprobe patch`` would take: the test items of ``--items``
drawn with ``--seed``; the texts, candidates, answers and the rule of what is retained are the patching code's own. What
stands between the two marks of the page is written by hand and kept.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import platform
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from activations.models import LoadedModel

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
os.environ["HF_HUB_OFFLINE"] = "1"

BEHAVIOURS = {
    "closers": "closers: which of two open brackets must close next (short texts)",
    "nesting": "closers among closed groups: which bracket is still pending (long texts)",
    "indentation": "indentation: how far the line after a colon is indented",
    "induction": "name copying (one statement) and induction (two or three): which name followed the same words before",
    "agreement": "agreement: the verb's number, next to its subject (0), past an adverb (1), past another noun (2)",
    "binding": "simple binding: which value a name holds after so many changes",
    "aliasing": "references: which value a name stands for after so many hops",
    "scope": "scope: which definition a name refers to, so many scopes deep",
}
"""Tasks in the order of the page, and what they ask."""
POINTS = (0.1, 0.25, 0.5, 1.0)
"""Parts of the training after which the loss is told."""
START, END = "<!-- written by hand -->", "<!-- end of what is written by hand -->"

PAGE = """\
# What the embedded twins can do

Patching explains a behaviour, so the model must have it. This page is written by `docs/bench/behaviours.py`, except for
the reading.

{measured}

## Reading

{reading}

## The twins

Held-out bits per byte are of texts that no twin was trained on; the loss is the training loss, in nats per token, after a
part of the steps.

{training}

## Share of items that can be patched

An item is retained when the model prefers the right answer among the candidates after the clean text *and* after the
corrupted text, and the two logit differences are at least {min_gap} apart: `twinprobe patch` takes these and no others.
*Guessing* is the share that a model which chooses at random in both texts would have.

{overview}

## Every behaviour

*clean*, *corrupted*: share of items where the right candidate has the highest logit, with 95% Wilson intervals; *chance*:
one over the number of candidates, on average; *gap*: mean over all items of the difference in logits between the two
answers, clean minus corrupted; *dropped*: items that can not be scored with this tokenizer. By level: share right in the
clean text / share retained, by the difficulty of the task.

The wording of `closers`, `indentation`, `induction` and `agreement` was settled after trial prompts on twins of 14 million
tokens, and the nouns and openings of `agreement` were dealt to the splits anew once after that. What such a twin scores on
these four tasks is flattered by the choice; twins trained later had no part in it.

{behaviours}
"""


@dataclass(frozen=True)
class Share:
    """A share of items with its 95% Wilson interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Measured:
    """One model on one task in one form; ``levels`` holds (difficulty, share right in the clean text, retained)."""

    items: int
    dropped: Counter[str]
    chance: float
    guessing: float
    clean: Share
    corrupted: Share
    retained: Share
    gap: float
    levels: tuple[tuple[int, float, float], ...]


def share(hits: int, of: int) -> Share:
    """``hits`` of ``of``. Items are drawn independently, so Wilson's interval holds, at 0 and 1 too."""
    from scipy.stats import binomtest

    interval = binomtest(hits, of).proportion_ci(method="wilson")
    return Share(hits / of, float(interval.low), float(interval.high))


def measure(loaded: LoadedModel, task: str, form: str, n_items: int, seed: int) -> Measured | None:
    """How the model answers the test items of a task in one form; ``None`` where no item can be scored."""
    from activations.inputs import resolve_bos
    from analyses.answers import RETAINED, retention
    from analyses.prompts import prompts
    from probes.tasks import get_task

    items = [item for item in get_task(task).generate(n_items, seed) if item.split == "test"]
    kept, dropped = prompts(loaded, items, form, resolve_bos("auto", [loaded.tokenizer]))
    if not kept:
        return None
    found = retention(loaded, kept)
    found["retained"] = found.status == RETAINED
    chances = [1 / len(prompt.candidates) for prompt in kept]
    return Measured(
        items=len(kept),
        dropped=dropped,
        chance=sum(chances) / len(kept),
        guessing=sum(chance**2 for chance in chances) / len(kept),
        clean=share(int(found.clean_right.sum()), len(kept)),
        corrupted=share(int(found.corrupted_right.sum()), len(kept)),
        retained=share(int(found.retained.sum()), len(kept)),
        gap=float(found.gap.mean()),
        levels=tuple(
            (level, float(part.clean_right.mean()), float(part.retained.mean()))
            for level in sorted({prompt.difficulty for prompt in kept})
            for part in [found[found.difficulty == level]]
        ),
    )


Results = dict[tuple[str, str], dict[str, Measured | None]]
"""By task and form, what was measured of each model."""


def measure_all(models: Sequence[str], n_items: int, seed: int, report: Callable[[str], None]) -> Results:
    """Every behaviour of every model; ``models`` are names as :func:`activations.models.load_model` takes them."""
    from activations.models import load_model
    from probes.tasks import get_task

    forms = {
        task: dict.fromkeys(form for own in get_task(task).targets.values() for form in own) for task in BEHAVIOURS
    }
    results: Results = {(task, form): {} for task in BEHAVIOURS for form in forms[task]}
    for model in models:
        loaded = load_model(model, check=False)
        for (task, form), found in results.items():
            report(f"{model}: {task}, {form}")
            found[model] = measure(loaded, task, form, n_items, seed)
    return results


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines))


def overview(results: Results, names: dict[str, str]) -> str:
    """One line per behaviour and form, one column per model."""
    lines = []
    for (task, form), found in results.items():
        known = [one for one in found.values() if one]
        guessing = f"{known[0].guessing:.2f}" if known else "–"
        lines.append(
            [f"`{task}`", form, guessing, *(f"{one.retained.value:.2f}" if one else "–" for one in found.values())]
        )
    return table(["task", "form", "guessing", *names.values()], lines)


def behaviours(results: Results, names: dict[str, str]) -> str:
    """One section per task, with a line per form and model."""
    sections = []
    for task in dict.fromkeys(task for task, _ in results):
        lines = []
        for (_, form), found in ((key, found) for key, found in results.items() if key[0] == task):
            for model, one in found.items():
                if one is None:
                    lines.append([form, names[model], "0", *["–"] * 6])
                    continue
                levels = ", ".join(f"{level}: {right:.2f} / {kept:.2f}" for level, right, kept in one.levels)
                items = f"{one.items}" + (f" ({one.dropped.total()} dropped)" if one.dropped else "")
                lines.append(
                    [form, names[model], items, f"{one.chance:.2f}", str(one.clean), str(one.corrupted), str(one.retained),
                     f"{round(one.gap, 2) + 0:.2f}", levels]
                )  # fmt: skip
        head = ["form", "model", "items", "chance", "clean", "corrupted", "retained", "gap", "by level"]
        sections.append(f"### `{task}`\n\n{BEHAVIOURS[task].capitalize()}.\n\n{table(head, lines)}")
    return "\n\n".join(sections)


def training(folders: dict[str, Path]) -> str:
    """What the models were trained on, how well they predict held-out texts, and how the loss fell."""
    lines = []
    for name, folder in folders.items():
        if not (folder / "training.json").exists():
            lines.append([name, *["–"] * (4 + len(POINTS))])
            continue
        facts = json.loads((folder / "training.json").read_text())
        with (folder / "loss.csv").open(newline="") as file:
            losses = {int(line["step"]): float(line["loss"]) for line in csv.DictReader(file)}
        steps = [min(losses, key=lambda step: abs(step - part * facts["steps"])) for part in POINTS]
        bits = facts["held_out_bits_per_byte"]
        lines.append(
            [name, f"{facts['run']['code_share']:.0%}", f"{facts['tokens'] / 1e6:.1f}", *(f"{bits[kind]:.3f}" if kind in bits
             else "–" for kind in ("prose", "code")), *(f"{losses[step]:.2f}" for step in steps)]
        )  # fmt: skip
    head = ["twin", "share of code", "million tokens", "bits per byte, prose", "bits per byte, code"]
    return table([*head, *(f"loss at {part:.0%}" for part in POINTS)], lines)


def kept_reading(page: Path) -> str:
    """What stands between the marks of the page as it is, with the marks."""
    old = page.read_text(encoding="utf-8") if page.exists() else ""
    inside = old.split(START, 1)[1].split(END, 1)[0] if START in old and END in old else "\n"
    return f"{START}{inside}{END}"


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def short_names(models: Sequence[str]) -> dict[str, str]:
    """What the tables call each model: a twin by its name, a folder of a run by the run's."""
    parts = {model: Path(model.removeprefix("embedded:")).parts for model in models}
    return {model: part[-2] if part[-1] == "model" and len(part) > 1 else part[-1] for model, part in parts.items()}


def main() -> None:
    """Measure and write the page."""
    from transformers.utils import logging

    from activations.models import ModelSpec, embedded_twins, resolve
    from analyses.answers import MIN_GAP

    logging.disable_progress_bar()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", metavar="NAME", help="names of twins, or model folders; every twin")
    parser.add_argument("--items", type=int, default=600, help="items drawn per task; the test items are used")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "TWINS.md")
    chosen = parser.parse_args()
    twins = embedded_twins()
    models = [f"embedded:{name}" if name in twins else name for name in chosen.models or twins]
    names = short_names(models)
    results = measure_all(models, chosen.items, chosen.seed, lambda line: print(line, file=sys.stderr, flush=True))
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    measured = (
        f"Measured in float32 on {processor()}, Python {platform.python_version()}, {packages}, "
        f"{datetime.datetime.now(datetime.UTC).date()}; {chosen.items} items drawn per task with seed {chosen.seed}, of which "
        "the test items are used; a BOS before each text."
    )
    folders = {names[model]: Path(resolve(ModelSpec(model))) for model in models}
    page = PAGE.format(
        measured=measured,
        reading=kept_reading(chosen.out),
        training=training(folders),
        min_gap=MIN_GAP,
        overview=overview(results, names),
        behaviours=behaviours(results, names),
    )
    chosen.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
