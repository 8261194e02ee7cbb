"""The benchmarks on their authors' files: counts, prompts, and known answers through the path that a model's take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analyses.benchmarks.local import generated
from analyses.benchmarks.local.grading import summary
from analyses.benchmarks.local.questions import Part, Prompt, asked
from analyses.benchmarks.local.run import Job, scored
from analyses.benchmarks.local.tasks import TASKS, Setting, presets
from analyses.benchmarks.multiple_choice import Item

ROOTS = [Path(__file__).parents[depth] / "shared" / "data" for depth in (4, 5)]
COUNTS = {
    "mmlu": (57, 14_042),
    "arc_challenge": (1, 1172),
    "arc_easy": (1, 2376),
    "hellaswag": (1, 1000),
    "winogrande": (1, 1267),
    "truthfulqa_mc1": (38, 817),
    "truthfulqa_mc2": (38, 817),
    "logiqa": (1, 651),
    "agieval": (10, 4991 - 1),  # one question of JEC-QA has no right option
    "scienceqa_image_subset": (1, 1000),
    "bigbench": (34, 22_226),  # of 30,411 examples: with choices, and each once
    "bbh": (27, 6511),
    "gsm8k": (1, 1319),
    **{name: (1, 240) for name in generated.DRAWS},
}
"""Subjects and questions, as the data's descriptions have them."""
LIKELY, UNLIKELY = 0.0, -1000.0


@cache
def parts(task: str) -> list[Part]:
    for root in ROOTS:
        if root.exists() or not TASKS[task].needs_data:
            return TASKS[task].read(root)
    pytest.skip(f"real data absent: neither {ROOTS[0]} nor {ROOTS[1]} is there")


def job(task: str, limit: int | None = None) -> Job:
    return Job(Setting(task=task, shots=0, metric=TASKS[task].metric), tuple(asked(parts(task), 0, limit=limit)))


def likelihoods(items: Sequence[Item], of: Callable[[Item, int], float]) -> pd.DataFrame:
    """The table that a model's scores come in, with a log-likelihood for every choice."""
    found = [(item, number) for item in items for number in range(len(item.choices))]
    return pd.DataFrame(
        {
            "subject": [item.subject for item, _ in found],
            "item": [item.id for item, _ in found],
            "choice": [number for _, number in found],
            "gold": [number in item.gold for item, number in found],
            "log_likelihood": [of(item, number) for item, number in found],
            "tokens": 1,
            "bytes": [len(item.choices[number].encode()) for item, number in found],
            "cut": 0,
        }
    )


def table_of(of: Job, likelihood: Callable[[Item, int], float], answer: Callable[[Prompt], str]) -> pd.DataFrame:
    """What a model's answers are made into, with those of a table in their place."""
    return scored(
        of,
        lambda items, _report: likelihoods(items, likelihood),
        lambda prompts, _tokens, _report: [answer(prompt) for prompt in prompts],
        "planted",
        lambda _done, _total: None,
    )


@pytest.mark.parametrize("task", TASKS)
def test_known_answers_have_known_scores(task: str) -> None:
    """All questions are there; right answers score 1, the first choice what its share of right answers is."""
    assert (len(parts(task)), sum(len(part.questions) for part in parts(task))) == COUNTS[task]
    assert all(part.questions for part in parts(task))

    of = job(task, limit=max(30, 1500 // len(parts(task))))
    right = table_of(of, lambda item, number: LIKELY if number in item.gold else UNLIKELY, lambda prompt: prompt.answer)
    assert len(right) == len(of.asked)
    assert right.score.tolist() == pytest.approx([1.0] * len(right), abs=1e-12)
    assert summary(right)["low"] > 0.98

    first = table_of(of, lambda _item, number: UNLIKELY if number else LIKELY, lambda _prompt: "no number at all")
    expected = [float(isinstance(one.what, Item) and 0 in one.what.gold) for one in of.asked]
    assert first.score.mean() == pytest.approx(np.mean(expected))
    assert first.score.mean() < 1 or task.startswith("truthfulqa")


def test_indifference_has_the_share_of_true_answers_as_its_mc2() -> None:
    of = job("truthfulqa_mc2")
    table = table_of(of, lambda _item, _number: LIKELY, lambda _prompt: "")
    expected = [len(item.gold) / len(item.choices) for item in of.items]
    np.testing.assert_allclose(table.score, expected)
    np.testing.assert_allclose(table.score, table.chance)


def test_the_authors_own_letters_are_right() -> None:
    """MMLU's answers, counted in the files with nothing of ours."""
    lines = Counter(int(item.gold[0]) for item in job("mmlu").items)
    root = next(root for root in ROOTS if root.exists())
    plain: Counter[int] = Counter()
    for path in (root / "mmlu" / "test").glob("*.csv"):
        answers = pd.read_csv(path, keep_default_na=False)["answer"]
        plain.update(int(answer) for answer in answers)
    assert lines == plain


@pytest.mark.parametrize("setting", presets()["open-llm-leaderboard"].tasks, ids=lambda setting: setting.task)
def test_every_prompt_of_the_leaderboard_has_its_examples(setting: Setting) -> None:
    few = asked(parts(setting.task), setting.shots, limit=3)
    none = asked(parts(setting.task), 0, limit=3)
    by_subject = {part.subject: part for part in parts(setting.task)}
    for long, short in zip(few, none, strict=True):
        assert long.group == short.group
        text, own = (one.what.context if isinstance(one.what, Item) else one.what.text for one in (long, short))
        part = by_subject[long.what.subject]
        question = own.removeprefix(part.description)
        assert text.startswith(part.description)
        assert text.endswith(question)
        examples = text.removeprefix(part.description).removesuffix(question)
        pool = part.pool or part.questions
        shown = [f"{example.text}{example.answer}\n\n" for example in pool]
        assert sum(examples.count(example) for example in set(shown) if example in examples) == setting.shots
        assert not question or question not in examples
