"""The tables of a small study on difficulty, capacity, what carries over, and what changes the answer; made up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Place = tuple[str, str, str]
Lines = list[dict[str, Any]]
DIRECTIONS = (("base", "code"), ("code", "base"), ("base", "second_seed"))
WHY = "answers do not settle the label (7)"


def evidence(roles: Sequence[str], places: Sequence[Place]) -> dict[str, Lines]:
    """The tables, for these models, and for these tasks, targets and forms."""
    at = [dict(zip(("task", "target", "form"), place, strict=True)) for place in places]
    causal = [role for role in roles if role != "random"]
    return {
        "difficulty": [{"model": role, **where, **_level(level)} for role in roles for where in at for level in (1, 3)],
        "capacity": [
            {"model": role, **where, "family": family, "score": 0.5, "control": 0.125, "selectivity": 0.375}
            for role in roles for where in at for family in ("logistic", "mlp")
        ],
        "layers": [{"model": role, **where, **_read()} for role in roles for where in at],
        "left_out": [{"model": role, **at[0], **_held()} for role in roles],
        "mapped": [
            {"source_model": source, "target_model": target, **where, **_mapped(target, where["form"])}
            for source, target in DIRECTIONS if {source, target} <= set(roles) for where in at
        ],
        "interventions": [
            {"model": role, **where, "site": "resid_post.0", "kind": kind, **_edit(role, kind, where["task"])}
            for role in causal for where in at for kind in ("remove", "steer")
        ],
    }  # fmt: skip


def _level(level: int) -> dict[str, Any]:
    return {
        "difficulty": level, "n_test": 5, "n_items": 5, "score": 0.75 / level, "low": 0.125, "high": 0.8125, "control": 0.25,
    }  # fmt: skip


def _read() -> dict[str, Any]:
    return {
        "source_site": "resid_post.0", "target_site": "embed", "score": 0.3125, "low": 0.25, "high": 0.375, "in_form": 0.5,
        "chance": 0.25,
    }  # fmt: skip


def _held() -> dict[str, Any]:
    return {
        "source_forms": "prose, formal", "site": "resid_post.0", "score": 0.4375, "low": 0.375, "high": 0.5, "auroc": 0.6875,
        "in_form": 0.5625, "chance": 0.25, "control": 0.125, "ratio": 0.59, "ratio_low": 0.3, "ratio_high": 0.9,
        "n_test": 10, "n_dropped": 0,
    }  # fmt: skip


def _mapped(target: str, form: str) -> dict[str, Any]:
    """Code is read in the code form, not above the best control map in prose; base has no such site in prose."""
    if (target, form) == ("base", "prose"):
        return {"left_out": "base has no resid_post.0"}
    score = 0.5 if form == "code" else 0.375
    return {
        "source_site": "resid_post.0", "score": score, "low": 0.3, "high": 0.7, "own": 0.75, "chance": 0.25, "random": 0.25,
        "shuffled": 0.28, "controls_high": 0.4375, "unmapped": 0.21, "floor": 0.28, "ratio": 0.47, "ratio_low": 0.2,
        "ratio_high": 0.8, "control": 0.26, "explained": 0.34, "n_test": 10, "left_out": None,
    }  # fmt: skip


def _edit(role: str, kind: str, task: str) -> dict[str, Any]:
    """Binding has no prompt. A removal fools the probe and lowers code's answers only; steering hardly fools it."""
    if task == "binding":
        return {"prompts": 0, "dropped": 7, "why_dropped": WHY}
    change = -0.5 if role == "code" else 0.0
    after = 0.75 if kind == "remove" else 0.21
    return {
        "prompts": 12, "change": change, "low": change - 0.2, "high": change + 0.2, "control": 0.1,
        "difference": change - 0.1, "diff_low": change - 0.3, "diff_high": change + 0.1, "accuracy_before": 0.58,
        "accuracy_after": 0.42, "accuracy_control": 0.57, "fooled_before": 0.19, "fooled": after, "fooled_control": 0.2,
        "dropped": 0, "why_dropped": None,
    }  # fmt: skip
