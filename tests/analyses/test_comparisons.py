"""Code against base and null against base: what was put in comes out, paired row by row, with its sign and clusters."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analyses.statistics import holm, paired_comparison
from analyses.study.comparisons import MIN_ROWS, arrival, compare
from analyses.study.stages import Tables

EFFORT = {"seed": 0, "n_resamples": 300, "n_flips": 2000}
N = 120


def probe_rows(correct: dict[str, np.ndarray], target: str = "value") -> pd.DataFrame:
    """Right or wrong on N rows of N / 2 items per form."""
    parts = [
        pd.DataFrame(
            {
                "task": "binding",
                "target": target,
                "form": form,
                "site": "resid_post.3",
                "row": [f"i{n // 2}/{form}:{n % 2}" for n in range(len(values))],
                "cluster": [f"i{n // 2}" for n in range(len(values))],
                "correct": values.astype(int),
                "control_correct": 0,
            }
        )
        for form, values in correct.items()
    ]
    return pd.concat(parts, ignore_index=True)


def score_rows(shift: float, rng: np.random.Generator) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "text": [f"code-{n}" for n in range(40)],
            "group": [f"code:file{n % 10}" for n in range(40)],
            "form": "code",
            "bits_per_byte": np.linspace(1.5, 2.5, 40) + shift + rng.normal(0, 0.02, 40),
        }
    )


def behaviour(right: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {"task": "binding", "form": "prose", "item": [f"i{n}" for n in range(len(right))], "right": right.astype(float)}
    )


def study() -> dict[str, Tables]:
    """Code is right on a quarter more rows in code form and equal in prose; it needs 0.3 bits less; null is like base."""
    rng = np.random.default_rng(0)
    code_form, prose = rng.random(N) < 0.5, rng.random(N) < 0.5
    better = code_form.copy()
    better[np.flatnonzero(~code_form)[:30]] = True
    other_seed = code_form.copy()
    other_seed[np.concatenate([np.flatnonzero(code_form)[:5], np.flatnonzero(~code_form)[:5]])] ^= True
    return {
        "base": {"probe_rows": probe_rows({"code": code_form, "prose": prose}), "score_rows": score_rows(0, rng)},
        "code": {"probe_rows": probe_rows({"code": better, "prose": prose}), "score_rows": score_rows(-0.3, rng)},
        "second_seed": {
            "probe_rows": probe_rows({"code": other_seed, "prose": prose}),
            "score_rows": score_rows(0, rng),
        },
    }


@pytest.fixture(scope="module")
def tables() -> dict[str, Tables]:
    return study()


@pytest.fixture(scope="module")
def found(tables: dict[str, Tables]) -> pd.DataFrame:
    return compare(tables, **EFFORT)


def line(found: pd.DataFrame, against: str, measure: str, form: str) -> pd.Series:
    chosen = found[(found.against == against) & (found.measure == measure) & (found.form == form)]
    assert len(chosen) == 1
    return chosen.iloc[0]


def test_known_differences_come_out_with_their_sign(found: pd.DataFrame) -> None:
    assert len(found) == 6
    gain = line(found, "code", "probe", "code")
    assert gain.difference == pytest.approx(30 / N)
    assert gain.other - gain.base == pytest.approx(gain.difference)
    assert 0 < gain.low < gain.difference < gain.high
    assert gain.p_holm < 0.01
    assert gain.higher_is_better
    assert (gain.n_items, gain.n_clusters, gain.common) == (N, N // 2, 1.0)
    same = line(found, "code", "probe", "prose")
    assert (same.difference, same.low, same.high, same.p, same.p_holm) == (0, 0, 0, 1, 1)
    bits = line(found, "code", "bits per byte", "code")
    assert bits.difference == pytest.approx(-0.3, abs=0.02)
    assert bits.high < 0
    assert not bits.higher_is_better
    assert bits.n_clusters == 10, "passages of one file are one cluster"


def test_it_is_the_paired_comparison_of_the_joined_rows(tables: dict[str, Tables], found: pd.DataFrame) -> None:
    base, code = (tables[role]["score_rows"].set_index("text") for role in ("base", "code"))
    expected = paired_comparison(base.bits_per_byte, code.bits_per_byte[base.index], base.group, 0, 300, 2000)
    got = line(found, "code", "bits per byte", "code")
    for name in ("difference", "low", "high", "p", "n_items", "n_clusters", "minimum_detectable_effect"):
        assert got[name] == pytest.approx(getattr(expected, name)), name


def test_rows_are_paired_by_name_not_by_place(tables: dict[str, Tables], found: pd.DataFrame) -> None:
    shuffled = {**tables, "code": {name: part.sample(frac=1, random_state=1) for name, part in tables["code"].items()}}
    pd.testing.assert_frame_equal(compare(shuffled, **EFFORT), found)


def test_the_null_pair_is_a_family_of_its_own(tables: dict[str, Tables], found: pd.DataFrame) -> None:
    for against in ("code", "second_seed"):
        part = found[found.against == against]
        assert part.p_holm.tolist() == pytest.approx(holm(part.p.to_numpy()).tolist())
    assert (found[found.against == "second_seed"].p_holm > 0.05).all()
    alone = compare({role: tables[role] for role in ("base", "code")}, **EFFORT)
    columns = ["p", "p_holm", "difference", "low", "high"]
    pd.testing.assert_frame_equal(alone[columns], found[found.against == "code"][columns])


def test_the_null_s_difference_stands_beside_code_s(tables: dict[str, Tables], found: pd.DataFrame) -> None:
    for measure, form in (("probe", "code"), ("probe", "prose"), ("bits per byte", "code")):
        null = line(found, "second_seed", measure, form)
        assert line(found, "code", measure, form).null_difference == null.difference
        assert np.isnan(null.null_difference)
    alone = compare({role: tables[role] for role in ("base", "code")}, **EFFORT)
    assert alone.null_difference.isna().all()


def test_clusters_are_what_is_resampled(tables: dict[str, Tables]) -> None:
    """Twice the rows with the same outcome per item say nothing more: the interval must not shrink."""

    def single(values: np.ndarray) -> dict[str, Tables]:
        outcome = {"base": np.zeros(len(values)), "code": values}
        return {role: {"probe_rows": probe_rows({"code": right})} for role, right in outcome.items()}

    per_item = np.random.default_rng(1).random(40) < 0.3
    twice = single(np.repeat(per_item, 2))
    clustered = compare(twice, **EFFORT).iloc[0]
    for tables in twice.values():
        tables["probe_rows"] = tables["probe_rows"].assign(cluster=lambda table: table.row)
    independent = compare(twice, **EFFORT).iloc[0]
    assert (clustered.n_items, clustered.n_clusters) == (80, 40)
    assert (independent.n_items, independent.n_clusters) == (80, 80)
    assert clustered.high - clustered.low > 1.2 * (independent.high - independent.low)
    assert clustered.minimum_detectable_effect > 1.2 * independent.minimum_detectable_effect


def test_too_few_common_rows_are_left_out_and_the_share_is_shown() -> None:
    right = np.arange(10) % 2 == 0
    base = {"behaviour": behaviour(right)}

    def code(count: int) -> Tables:
        return {"behaviour": behaviour(~right).iloc[-count:]}

    assert compare({"base": base, "code": code(MIN_ROWS - 1)}, **EFFORT).empty
    (kept,) = compare({"base": base, "code": code(MIN_ROWS)}, **EFFORT).itertuples()
    assert (kept.n_items, kept.common) == (MIN_ROWS, 0.5)
    assert kept.difference == np.where(right[-MIN_ROWS:], -1, 1).mean()


def test_what_only_one_model_has_is_left_out(tables: dict[str, Tables]) -> None:
    del_scores = {**tables, "code": {"probe_rows": probe_rows({"code": np.ones(N)}), "extra": pd.DataFrame()}}
    found = compare(del_scores, **EFFORT)
    code = found[found.against == "code"]
    assert code[["measure", "form"]].to_numpy().tolist() == [["probe", "code"]]
    assert compare({"base": tables["base"]}, **EFFORT).empty
    assert compare({"base": {}, "code": {}}, **EFFORT).empty


def test_targets_and_sources_are_told_apart() -> None:
    """One task's rows of two targets, and transfer both ways, are four comparisons, each with its own outcome."""
    no, yes = np.zeros(20), np.ones(20)

    def roles(value: np.ndarray, role: np.ndarray) -> Tables:
        rows = pd.concat([probe_rows({"code": value}, "value"), probe_rows({"code": role}, "role")])
        moved = [probe_rows({"code": value}).assign(source="prose"), probe_rows({"prose": role}).assign(source="code")]
        return {"probe_rows": rows, "transfer_rows": pd.concat(moved)}

    found = compare({"base": roles(no, yes), "code": roles(yes, yes), "second_seed": roles(no, no)}, **EFFORT)
    code = found[found.against == "code"]
    assert code[["measure", "target", "source", "form", "difference", "null_difference"]].fillna("-").to_numpy().tolist() == [
        ["probe", "value", "-", "code", 1.0, 0.0],
        ["probe", "role", "-", "code", 0.0, -1.0],
        ["transfer", "value", "prose", "code", 1.0, 0.0],
        ["transfer", "value", "code", "prose", 0.0, -1.0],
    ]  # fmt: skip


def test_benchmark_items_are_known_by_subject_and_number() -> None:
    """Subjects number their items alike; a subject is a cluster."""

    def scored(*shift: float) -> Tables:
        parts = [
            pd.DataFrame(
                {
                    "task": "mmlu",
                    "subject": name,
                    "item": range(10),
                    "group": name,
                    "score": np.linspace(0, 0.5, 10) + up,
                }
            )
            for name, up in zip("abc", shift, strict=True)
        ]
        return {"benchmark_items": pd.concat(parts)}

    [line] = compare({"base": scored(0, 0, 0), "code": scored(0.1, 0.2, 0.3)}, **EFFORT).to_dict("records")
    assert (line["measure"], line["task"], line["n_items"], line["n_clusters"]) == ("benchmark", "mmlu", 30, 3)
    assert line["difference"] == pytest.approx(0.2) and line["p"] == 0.25 and line["higher_is_better"]


def test_arrival_is_the_last_token_s_recovery_over_layers() -> None:
    cells = pd.DataFrame(
        {
            "task": "binding",
            "form": "prose",
            "item": ["a"] * 4 + ["b"] * 2,
            "layer": [0, 0, 1, 1, 0, 1],
            "role": ["last", "other", "last", "definition", "last", "last"],
            "recovery": [0.0, 9.0, 0.5, 9.0, 0.2, 1.0],
            "site": "resid_pre",
            "by": "position",
            "direction": "denoising",
        }
    )
    others = [{"site": "z", "by": "role"}, {"by": "role"}, {"direction": "noising"}]
    table = arrival(pd.concat([cells, *(cells.assign(**other, recovery=7.0) for other in others)]))
    assert table["item"].tolist() == ["a", "b"]
    assert table.recovery.tolist() == pytest.approx([0.25, 0.6])
    assert arrival(cells[:0]).empty
    six = pd.concat([table.assign(item=[f"{name}{n}" for name in "ab"]) for n in range(3)])
    found = compare({"base": {"arrival": six}, "code": {"arrival": six.assign(recovery=six.recovery + 0.1)}}, **EFFORT)
    assert found[["measure", "n_items", "difference"]].to_numpy().tolist() == [["arrival", 6, pytest.approx(0.1)]]
