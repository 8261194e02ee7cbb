"""The tables of a small study on heads, and on the two models together; made up."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

Lines = list[dict[str, Any]]
AT = {"task": "nesting", "form": "code"}
STREAM = [(layer, None, role) for layer in (0, 1) for role in ("opener", "last")]
CROSS = [("resid_post", "role", *cell) for cell in STREAM]
CROSS += [("resid_post", "all", layer, None, "all") for layer in (0, 1)]
CROSS += [("z", "all", layer, head, "all") for layer in (0, 1) for head in (0, 1)]
UPPERMOST = ("resid_post", "role", 1, None, "last")
NOT_ALIGNED = "token counts differ (7)"


def heads() -> Lines:
    """Patched heads of base: head 0 of layer 1 decides at the last token, both ways; no other head does anything."""
    lines = []
    for direction, layer, head, role in product(("denoising", "noising"), (0, 1), (0, 1), ("last", "opener")):
        decides = (layer, head, role) == (1, 0, "last")
        share = 0.75 * decides if direction == "denoising" else -0.625 * decides
        lines.append(
            {"model": "base", **AT, "direction": direction, "donor": "contrast", "site": "z", "by": "role", "window": 1,
             "layer": layer, "head": head, "neurons": None, "role": role, "recovery": share, "low": share - 0.125,
             "high": share + 0.125, "effect": 2 * share, "items": 8, "p_max": 0.015625 if decides else 1.0,
             "threshold": 1.0}
        )  # fmt: skip
    return lines


def across(roles: Sequence[str]) -> dict[str, Lines]:
    """The tables on both models together. Binding has no prompt, and of nesting only the code form was patched."""
    return {
        "cross_retention": _retention(),
        "cross": _cross(roles),
        "overlap": _overlap(roles),
        "similarity": _similarity(roles),
    }


def _retention() -> Lines:
    counts = {
        "prompts": 10, "base_right": 2, "code_right": 5, "both_right": 1, "either_right": 6, "none_right": 4, "patched": 6,
        "not_aligned": 0, "why_not_aligned": None, "checked": 9, "max_error": 3e-6,
    }  # fmt: skip
    none = dict.fromkeys(("base_right", "code_right", "both_right", "either_right", "patched", "checked"), 0)
    return [
        {**counts, **AT},
        {**counts, **none, "none_right": 10, "task": "nesting", "form": "prose"},
        {"prompts": 0, "not_aligned": 7, "why_not_aligned": NOT_ALIGNED, "task": "binding", "form": "code"},
    ]


def _cross(roles: Sequence[str]) -> Lines:
    """Code's uppermost residual stream brings base 1.5 of 4 logits; base's own costs code 2, another item's as much."""
    lines = []
    ways = [("base", "code"), ("code", "base"), *[("base", "second_seed")] * ("second_seed" in roles)]
    for (receiver, donor_model), donor in product(ways, ("other", "identity", "random")):
        for cell in CROSS:
            effect = _effect(donor_model, donor, cell)
            reach, gap = (
                0.0 if donor == "identity" else 0.5,
                {"code": 4.0, "base": -4.0, "second_seed": 0.05}[donor_model],
            )
            site, by, layer, head, role = cell
            known = donor_model != "second_seed"
            lines.append(
                {"receiver": receiver, "donor_model": donor_model, "donor": donor, "site": site, "by": by, "window": 1,
                 "layer": layer, "head": head, "neurons": None, "role": role, "items": 3 if donor == "random" else 6,
                 "effect": effect, "effect_low": effect - reach, "effect_high": effect + reach,
                 "recovery": effect / gap if known else None, "recovery_low": (effect - reach) / gap if known else None,
                 "recovery_high": (effect + reach) / gap if known else None, "dropped": 0 if known else 6, "gap": gap,
                 "accuracy_before": 0.0, "accuracy_after": 0.25, **AT}
            )  # fmt: skip
    return lines


def _effect(donor_model: str, donor: str, cell: tuple[Any, ...]) -> float:
    if donor == "identity" or donor_model == "second_seed" or cell != UPPERMOST:
        return 0.0
    if donor_model == "base":
        return -2.0
    return 1.5 if donor == "other" else 0.125


def _overlap(roles: Sequence[str]) -> Lines:
    """Base and code have no map of noising to compare."""
    lines = []
    for other, direction in product(
        [role for role in ("code", "second_seed") if role in roles], ("denoising", "noising")
    ):
        about = {
            **AT, "direction": direction, "other": other, "null": "layer", "cells": 8, "heads": 4, "items_base": 8,
            "items_code": 6, "items_shared": 5, "items_left_out": 0, "expected": 0.125, "p": 0.09375, "reason": None,
        }  # fmt: skip
        rho = {"measure": "spearman", "top": None, "estimate": 0.25, "low": 0.1875, "high": 0.5}
        if (other, direction) == ("code", "noising"):
            rho |= {"estimate": None, "low": None, "high": None, "reason": "all effects of code are equal"}
        lines += [
            {**about, **rho},
            {**about, "measure": "jaccard", "top": 5, "estimate": 0.375, "low": None, "high": None},
        ]
    return lines


def _similarity(roles: Sequence[str]) -> Lines:
    """In prose base and code are as alike as two seeds, in code they are less so."""
    lines = []
    sites, measures = ("embed", "resid_post.0"), ("cka", "procrustes", "cosine", "centred_cosine")
    for role, kind, site, measure in product(
        [role for role in roles if role != "base"], ("code", "prose"), sites, measures
    ):
        value = {"second_seed": 0.875, "random": 0.125, "code": 0.5 if kind == "code" else 0.875}[role]
        value -= 0.0625 * (site == "embed")
        lines.append(
            {"model_a": "base", "model_b": role, "kind": kind, "site_a": site, "site_b": site, "measure": measure,
             "value": value, "low": value - 0.05, "high": value + 0.05, "n": 120, "n_documents": 4, "n_unpaired": 2}
        )  # fmt: skip
    return lines
