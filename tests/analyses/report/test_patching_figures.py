from __future__ import annotations

import struct
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from analyses.report.patching_figures import cross_map, head_map, patching_map, role_map, token_map

FULL, NONE = (103, 0, 31), (5, 48, 97)
"""The colours of recovery 1 and -1."""


def lines(recovery: float = 0.5, *, models: tuple[str, ...] = ("base", "code"), **other: Any) -> pd.DataFrame:
    """One map of two roles and three layers, the same recovery everywhere; ``other`` columns as given."""
    about = {
        "task": "t", "form": "code", "direction": "denoising", "donor": "contrast", "site": "resid_pre", "by": "position",
        "window": 1, "head": None, "neurons": None, "recovery": recovery, "items": 3, "p_max": 0.2, **other,
    }  # fmt: skip
    return pd.DataFrame(
        [
            {"model": model, "layer": layer, "role": role, **about}
            for model, layer, role in product(models, range(3), ("last", "other"))
        ]
    )


def heads(count: int, layers: int, role: str = "all", recovery: float = 0.5) -> pd.DataFrame:
    """One map of heads, in both models."""
    about = {"role": role, "window": 1, "neurons": None, "recovery": recovery, "items": 3, "p_max": 0.2}
    cells = product(("base", "code"), range(layers), range(count))
    return pd.DataFrame([{"model": model, "layer": layer, "head": head, **about} for model, layer, head in cells])


def example(model: str, item: str, tokens: int, first: int) -> pd.DataFrame:
    """Cells of one item by position; those before ``first`` have no effect."""
    return pd.DataFrame(
        [
            {"model": model, "item": item, "layer": layer, "position": at, "token": f"Ġt{at}", "role": "other",
             "window": 1, "recovery": 0.5 * (at >= first)}
            for layer in range(2) for at in range(tokens)
        ]
    )  # fmt: skip


def size(path: Path) -> tuple[float, float]:
    """Width and height of a picture in inches."""
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    return width / 192, height / 192


def pixels(path: Path, colour: tuple[int, int, int]) -> int:
    """How many pixels are of this colour, or next to it."""
    return int((abs(imread(path)[..., :3] * 255 - np.array(colour)).max(axis=-1) < 8).sum())


def test_a_map_is_as_wide_as_its_models(tmp_path: Path) -> None:
    widths = []
    for models in (("base", "code"), ("base", "code", "second_seed")):
        assert role_map(lines(models=models), "", tmp_path / "map.png")
        widths.append(size(tmp_path / "map.png")[0])
    assert widths[1] > 1.2 * widths[0]


def test_the_colour_scale_is_the_same_for_every_map(tmp_path: Path) -> None:
    for recovery in (0.1, 1.0):
        patching_map(lines(recovery), "t", "code", tmp_path / f"{recovery}.png")
    # The colour bar holds full recovery in both; only where it was reached do cells have that colour too.
    assert 0 < pixels(tmp_path / "0.1.png", FULL) < pixels(tmp_path / "1.0.png", FULL) / 20


def test_noising_that_takes_the_answer_away_has_the_opposite_colour(tmp_path: Path) -> None:
    role_map(lines(-1.0), "", tmp_path / "map.png")
    assert pixels(tmp_path / "map.png", NONE) > 20 * pixels(tmp_path / "map.png", FULL)


def test_the_difference_is_code_minus_base(tmp_path: Path) -> None:
    base, path = lines(0.5, models=("base",)), tmp_path / "map.png"
    for recovery, colour in ((1.5, FULL), (-0.5, NONE)):
        role_map(pd.concat([base, lines(0.5, models=("code",))]), "", path)
        before = pixels(path, colour)
        role_map(pd.concat([base, lines(recovery, models=("code",))]), "", path)
        assert pixels(path, colour) > before + 10_000


def test_a_model_without_items_keeps_its_panel(tmp_path: Path) -> None:
    patching_map(lines(models=("base",)), "t", "code", tmp_path / "one.png")
    patching_map(lines(), "t", "code", tmp_path / "two.png")
    assert imread(tmp_path / "one.png").shape == imread(tmp_path / "two.png").shape


def test_cells_that_pass_the_threshold_are_outlined(tmp_path: Path) -> None:
    black = []
    for p in (0.2, 0.04):
        role_map(lines(p_max=p), "", tmp_path / "map.png")
        black.append(pixels(tmp_path / "map.png", (0, 0, 0)))
    assert black[1] > black[0] + 1000


def test_a_report_shows_the_residual_stream_denoised_by_position(tmp_path: Path) -> None:
    others = [{"direction": "noising"}, {"donor": "random"}, {"site": "z", "head": 0}, {"by": "role"}, {"window": 2}]
    mixed = pd.concat([lines(), *(lines(-1.0, **other) for other in others)])
    assert patching_map(lines(), "t", "code", tmp_path / "alone.png")
    assert patching_map(mixed, "t", "code", tmp_path / "mixed.png")
    assert (tmp_path / "alone.png").read_bytes() == (tmp_path / "mixed.png").read_bytes()
    assert not patching_map(lines(site="z"), "t", "code", tmp_path / "none.png")


@pytest.mark.parametrize(("layers", "count"), [(4, 1), (48, 32)])
def test_maps_of_heads_stay_within_a_page(tmp_path: Path, layers: int, count: int) -> None:
    assert head_map(heads(count, layers), "z", tmp_path / "heads.png")
    width, height = size(tmp_path / "heads.png")
    assert 6 < width < 11
    assert 1.5 < height < 4


def test_every_role_that_matters_has_its_row(tmp_path: Path) -> None:
    heights = []
    for recovery in (0.04, 0.06):
        head_map(pd.concat([heads(4, 6, "last"), heads(4, 6, "query", recovery)]), "z", tmp_path / "heads.png")
        heights.append(size(tmp_path / "heads.png")[1])
    assert heights[1] > 1.6 * heights[0]
    assert head_map(heads(4, 6, "query", 0.01), "z", tmp_path / "faint.png")


def test_groups_of_neurons_are_drawn_as_heads_are(tmp_path: Path) -> None:
    table = heads(4, 6)
    assert head_map(table, "", tmp_path / "heads.png")
    assert head_map(table.assign(neurons=table["head"] * 64, head=None), "", tmp_path / "neurons.png")
    assert imread(tmp_path / "heads.png").shape == imread(tmp_path / "neurons.png").shape


def test_an_example_begins_where_a_patch_matters(tmp_path: Path) -> None:
    widths = []
    for first in (0, 40):
        assert token_map(example("base", "i", 50, first), "", tmp_path / "tokens.png")
        widths.append(size(tmp_path / "tokens.png")[0])
    assert widths[0] > 1.2 * widths[1]


def test_the_example_is_one_that_both_models_have(tmp_path: Path) -> None:
    """Item ``a`` is long, ``b`` short: were ``a`` drawn for base, the picture would be wider."""
    base = pd.concat([example("base", "a", 60, 0), example("base", "b", 20, 0)])
    for name, table in {"both": base, "b": base[base["item"] == "b"]}.items():
        token_map(pd.concat([table, example("code", "b", 20, 0)]), "", tmp_path / f"{name}.png")
    assert (tmp_path / "both.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert token_map(pd.concat([base, example("code", "c", 20, 0)]), "", tmp_path / "apart.png")
    assert size(tmp_path / "apart.png")[0] > size(tmp_path / "both.png")[0]


def test_a_map_across_shows_both_ways_and_their_controls(tmp_path: Path) -> None:
    """Only what code brings to base is all of the gap; neither the identity nor another control is drawn."""
    path, about = tmp_path / "cross.png", {"site": "resid_post", "window": 1, "head": None, "neurons": None, "items": 3}
    known = {("base", "code", "other"): 1.0, ("base", "second_seed", "other"): -1.0, ("base", "code", "identity"): -1.0}
    ways = [*known, ("code", "base", "other"), ("code", "base", "random"), ("base", "code", "random")]
    table = pd.DataFrame(
        [
            {"receiver": receiver, "donor_model": giver, "donor": donor, "layer": layer, "role": role, **about,
             "recovery": known.get((receiver, giver, donor), 0.0), "recovery_low": -0.1, "recovery_high": 0.1}
            for receiver, giver, donor in ways for layer in range(3) for role in ("last", "other")
        ]
    )  # fmt: skip
    assert cross_map(table, "", path)
    full = pixels(path, FULL)
    assert full > 20 * pixels(path, NONE)
    assert cross_map(table[table.donor_model != "second_seed"], "", path)
    assert pixels(path, FULL) == full
    black = pixels(path, (0, 0, 0))
    assert cross_map(table.assign(recovery_low=0.1), "", path)
    assert pixels(path, (0, 0, 0)) > black + 1000


def test_nothing_to_draw_writes_nothing(tmp_path: Path) -> None:
    path, empty = tmp_path / "none.png", pd.DataFrame()
    assert not patching_map(lines(), "t", "prose", path)
    assert not role_map(empty, "", path) and not head_map(empty, "", path) and not token_map(empty, "", path)
    assert not path.exists()
