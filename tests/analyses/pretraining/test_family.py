"""Families: which runs there are, which settings each serves, and what is no family."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activations.errors import TwinprobeError
from analyses.pretraining.design import read_design
from analyses.pretraining.family import Family, Run, Serves, expand

STUDY = """
name = "study"
[architecture]
context = 100
[training]
batch = 10
[[data]]
kind = "prose"
path = "prose"
licence = "CC0"
[[data]]
kind = "code"
path = "code"
licence = "CC0"
[family]
shares = [0.0, 0.25, 0.5, 0.75]
seeds = [0, 1, 2]
competitive_tokens = 2_000_000
additive_prose_tokens = 500_000
"""
BY_HAND = {
    # name without the seed: share of code, tokens, settings with the share that each stands for
    "code0-2000k": (0.0, 2_000_000, {("competitive", 0.0), ("volume", 0.75)}),
    "code25-2000k": (0.25, 2_000_000, {("competitive", 0.25)}),
    "code50-2000k": (0.5, 2_000_000, {("competitive", 0.5)}),
    "code75-2000k": (0.75, 2_000_000, {("competitive", 0.75), ("additive", 0.75)}),
    "code0-500k": (0.0, 500_000, {("additive", 0.0), ("volume", 0.0)}),
    "code25-666667": (0.25, 666_667, {("additive", 0.25)}),
    "code0-666667": (0.0, 666_667, {("volume", 0.25)}),
    "code50-1000k": (0.5, 1_000_000, {("additive", 0.5)}),
    "code0-1000k": (0.0, 1_000_000, {("volume", 0.5)}),
}


def study(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    text = STUDY
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    path = tmp_path / "study.toml"
    path.write_text(text)
    return path


def served(run: Run) -> set[tuple[str, float]]:
    return {(point.setting, point.share) for point in run.serves}


def test_the_runs_of_a_study_are_those_found_by_hand(tmp_path: Path) -> None:
    design = read_design(study(tmp_path))
    runs = {run.name: (run.code_share, run.tokens, served(run), run.seed) for run in design.run}
    assert runs == {f"{name}-seed{seed}": (*of, seed) for name, of in BY_HAND.items() for seed in range(3)}
    assert [run.seed for run in design.run] == sorted(run.seed for run in design.run)
    steps = {run.name: design.steps(run) for run in design.run}
    assert (steps["code0-2000k-seed0"], steps["code25-666667-seed2"]) == (2000, 666)
    prose = {run.name: design.tokens_seen(run)["prose"] for run in design.run}
    assert all(
        prose[run.name] == pytest.approx(500_000, rel=0.002)
        for run in design.run
        if any(point.setting == "additive" for point in run.serves)
    )


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 2 / 3, 0.75, 0.9]), min_size=1, max_size=5, unique=True),
    st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
    st.one_of(st.none(), st.integers(1000, 10_000_000)),
    st.one_of(st.none(), st.integers(1000, 10_000_000)),
)
@settings(max_examples=150, deadline=None)
def test_every_setting_has_every_share_and_seed_once(
    shares: list[float], seeds: list[int], competitive: int | None, additive: int | None
) -> None:
    if competitive is None and additive is None:
        return
    family = Family(
        shares=tuple(shares), seeds=tuple(seeds), competitive_tokens=competitive, additive_prose_tokens=additive
    )
    runs = expand(family)
    assert len({run.name for run in runs}) == len(runs)
    assert len({(run.code_share, run.tokens, run.seed) for run in runs}) == len(runs), "no model is trained twice"
    points = [(point.setting, point.share, run.seed) for run in runs for point in run.serves]
    asked = (["competitive"] if competitive else []) + (["additive", "volume"] if additive else [])
    assert sorted(points) == sorted((setting, share, seed) for setting in asked for share in shares for seed in seeds)
    totals = {(setting, share): run.tokens for run in runs for setting, share in served(run)}
    for run in runs:
        assert run.tokens
        for setting, share in served(run):
            assert run.code_share == (0.0 if setting == "volume" else share)
            if setting == "competitive":
                assert run.tokens == competitive
            elif setting == "additive":
                assert run.tokens * (1 - share) == pytest.approx(additive, abs=1)
            else:
                assert run.tokens == totals["additive", share], "as much prose alone as there is text with code"


def test_one_setting_alone(tmp_path: Path) -> None:
    competitive = read_design(study(tmp_path, ("additive_prose_tokens = 500_000", ""))).run
    assert [run.name for run in competitive if run.seed == 0] == [
        f"code{percent}-2000k-seed0" for percent in (0, 25, 50, 75)
    ]
    assert {setting for run in competitive for setting, _ in served(run)} == {"competitive"}
    additive = read_design(study(tmp_path, ("competitive_tokens = 2_000_000", ""))).run
    assert {setting for run in additive for setting, _ in served(run)} == {"additive", "volume"}


def test_runs_of_their_own_stand_beside_a_family(tmp_path: Path) -> None:
    own = '[[run]]\nname = "mine"\ncode_share = 0.5\nseed = 7\ntokens = 5000\n'
    design = read_design(study(tmp_path, ("[family]", f"{own}[family]")))
    assert design.run[-1] == Run(name="mine", code_share=0.5, seed=7, tokens=5000)
    assert len(design.run) == 28


def test_a_design_is_written_and_read_again_without_growing(tmp_path: Path) -> None:
    design = read_design(study(tmp_path))
    assert type(design).model_validate_json(design.model_dump_json()) == design
    assert json.loads(design.run[0].model_dump_json())["serves"] == [
        {"setting": "competitive", "share": 0.0}, {"setting": "volume", "share": 0.75},
    ]  # fmt: skip
    assert design.run[0].serves[0] == Serves(setting="competitive", share=0.0)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("0.5, 0.75]", "0.5, 0.5]", "[family]: share 0.5 comes twice in shares; give each once"),
        ("[0, 1, 2]", "[0, 1, 0]", "[family]: seed 0 comes twice in seeds; give each once"),
        ("0.75]", "1.0]", "[family]: share 1.0 can not be additive, for no amount of code beside prose is all of the"),
        ("0.75]", "1.5]", "field 'family.shares.3': Input should be less than or equal to 1, got 1.5"),
        ("[0, 1, 2]", "[]", "field 'family.seeds': Tuple should have at least 1 item"),
        ("[0, 1, 2]", "[-1]", "field 'family.seeds.0': Input should be greater than or equal to 0, got -1"),
        ("competitive_tokens", "competitive_token", "unknown field 'family.competitive_token' (did you mean 'competit"),
        ("competitive_tokens = 2_000_000", "competitive_tokens = 0", "field 'family.competitive_tokens': Input should"),
        ('kind = "code"', 'kind = "prose"', "run 'code25-2000k-seed0' needs code data, but no [[data]] table has it"),
        ("[family]", '[[run]]\nname = "code50-1000k-seed2"\ncode_share = 0.5\nseed = 9\ntokens = 9\n[family]',
         "two runs are called 'code50-1000k-seed2'; run names must be unique"),
    ],
)  # fmt: skip
def test_what_is_no_family_gets_one_line(tmp_path: Path, old: str, new: str, expected: str) -> None:
    path = study(tmp_path, (old, new))
    with pytest.raises(TwinprobeError) as caught:
        read_design(path)
    assert str(caught.value).startswith(f"{path}: {expected}")
    assert "\n" not in str(caught.value)


def test_a_family_needs_a_setting(tmp_path: Path) -> None:
    path = study(tmp_path, ("competitive_tokens = 2_000_000\nadditive_prose_tokens = 500_000\n", ""))
    with pytest.raises(TwinprobeError, match="neither competitive_tokens nor additive_prose_tokens is given"):
        read_design(path)


def test_code_alone_can_be_competitive(tmp_path: Path) -> None:
    design = read_design(study(tmp_path, ("0.75]", "1.0]"), ("additive_prose_tokens = 500_000", "")))
    assert design.tokens_seen(design.run[3]) == {"prose": 0, "code": 2_000_000}
