"""The table of benchmark scores of a small study; made up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

TASKS = ("generated_navigate", "generated_arithmetic", "written")
CHANCE = {"generated_navigate": 0.5, "generated_arithmetic": 0.25, "written": None}


def benchmarks(roles: Sequence[str]) -> list[dict[str, Any]]:
    """Code is better at arithmetic and as good elsewhere; answers of the last task are written, and its scores no 0 or 1."""
    return [_line(role, task, "second_seed" in roles) for task in TASKS for role in roles if role != "random"]


def _line(role: str, task: str, null: bool) -> dict[str, Any]:
    better = role == "code" and task == "generated_arithmetic"
    score = 0.75 if better else 0.5 if task == "generated_navigate" else 0.3125
    tests = dict.fromkeys((
        "difference", "difference_low", "difference_high", "p_permutation", "p_permutation_holm", "only_base", "only_other",
        "p_mcnemar", "p_mcnemar_holm", "minimum_detectable_effect", "null_difference",
    ))  # fmt: skip
    if role != "base":
        singly = None if task == "written" else 0.003 if better else 1.0
        tests |= {
            "difference": 0.4375 if better else 0.0, "difference_low": 0.31 if better else -0.12,
            "difference_high": 0.56 if better else 0.12, "p_permutation": 0.002 if better else 1.0,
            "p_permutation_holm": 0.006 if better else 1.0, "only_base": 1, "only_other": 1, "p_mcnemar": singly,
            "p_mcnemar_holm": singly, "minimum_detectable_effect": 0.0 if task == "generated_navigate" else 0.21875,
            "null_difference": 0.0 if role == "code" and null else None,
        }  # fmt: skip
    return {
        "task": task, "model": role, "shots": 1, "metric": "acc", "items": 48, "subjects": 1, "clusters": 48, "score": score,
        "standard_error": 0.0625, "low": score - 0.125, "high": score + 0.125, "chance": CHANCE[task],
        "mean_of_subjects": score, "cut": 0.25 if task == "written" else 0.0, **tests,
    }  # fmt: skip
