from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from test_figures import colour, size
from tiny import make_tables

from analyses.report.across_figures import alike, brought

CODE, SEED, RANDOM = (0xD5, 0x5E, 0), (0x7A, 0x7A, 0x7A), (0, 0x9E, 0x73)


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return make_tables()


def test_nothing_across_writes_nothing(tables: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    path, cross = tmp_path / "none.png", tables["cross"]
    assert not brought(pd.DataFrame(), path) and not alike(pd.DataFrame(), path)
    assert not brought(cross[cross.role != "last"], path)
    assert not alike(tables["similarity"][tables["similarity"].measure != "cka"], path)
    assert not path.exists()


def test_both_ways_and_the_second_seed_have_their_curves(tables: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    path, cross = tmp_path / "across.png", tables["cross"]
    assert brought(cross, path)
    whole = {name: colour(path, *rgb) for name, rgb in (("code", CODE), ("seed", SEED))}
    assert brought(cross[cross.donor_model != "second_seed"], path)
    assert colour(path, *SEED) < whole["seed"]
    assert brought(cross[cross.donor_model != "code"], path)
    assert colour(path, *CODE) == 0 < whole["code"]


def test_a_control_is_drawn_and_identity_is_not(tables: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    pictures = []
    for left_out in (None, "random", "identity"):
        brought(tables["cross"][tables["cross"].donor != left_out], tmp_path / "across.png")
        pictures.append((tmp_path / "across.png").read_bytes())
    assert pictures[0] == pictures[2] != pictures[1]


def test_every_task_form_has_its_panel_within_the_page(tables: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    path, cross = tmp_path / "across.png", tables["cross"]
    many = pd.concat([cross.assign(form=f"form ${number}") for number in range(5)])
    heights = []
    for table in (cross, many):
        assert brought(table.assign(effect_low=None, effect_high=None), path)
        heights.append(size(path)[1])
    assert heights[0] < heights[1] and size(path)[0] <= 11


def test_likeness_has_a_panel_per_kind_and_a_curve_per_pair(tables: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    path, similarity = tmp_path / "alike.png", tables["similarity"]
    assert alike(similarity, path)
    both = colour(path, *CODE)
    assert colour(path, *RANDOM) and colour(path, *SEED)
    assert alike(similarity[similarity.kind == "code"], path)
    assert 0 < colour(path, *CODE) < both
    assert alike(similarity[similarity.model_b == "code"].assign(low=None, high=None), path)
    assert colour(path, *RANDOM) == 0
