from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.image import imread
from tiny import make_tables

from analyses.report.figures import layers, patching_map, transfer
from analyses.report.intervals import comparisons, scores


def cells(models: tuple[str, ...], recovery: float) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "model": model,
                "task": "t",
                "form": "code",
                "layer": layer,
                "role": role,
                "recovery": recovery,
                "items": 3,
            }
            for model in models
            for layer in range(3)
            for role in ("last", "other")
        ]
    )


def reds(path: Path) -> int:
    """How many pixels are of the deep red of full recovery."""
    red, green, blue = (np.moveaxis(imread(path), -1, 0)[:3] * 255).round()
    return int(((red > 90) & (red < 115) & (green < 10) & (blue > 20) & (blue < 45)).sum())


def test_a_map_is_as_wide_as_its_models(tmp_path: Path) -> None:
    widths = []
    for models in (("base", "code"), ("base", "code", "second_seed")):
        assert patching_map(cells(models, 0.5), "t", "code", tmp_path / "map.png")
        widths.append(struct.unpack(">I", (tmp_path / "map.png").read_bytes()[16:20])[0])
    assert widths[1] > 1.3 * widths[0]


def test_the_colour_scale_is_the_same_for_every_map(tmp_path: Path) -> None:
    for recovery in (0.1, 1.0):
        patching_map(cells(("base", "code"), recovery), "t", "code", tmp_path / f"{recovery}.png")
    # The colour bar holds full recovery in both; only where it was reached do cells have that colour too.
    assert 0 < reds(tmp_path / "0.1.png") < reds(tmp_path / "1.0.png") / 20


def test_a_model_without_items_keeps_its_panel(tmp_path: Path) -> None:
    patching_map(cells(("base",), 0.5), "t", "code", tmp_path / "one.png")
    patching_map(cells(("base", "code"), 0.5), "t", "code", tmp_path / "two.png")
    assert imread(tmp_path / "one.png").shape == imread(tmp_path / "two.png").shape


def test_nothing_to_draw_writes_nothing(tmp_path: Path) -> None:
    path, empty = tmp_path / "none.png", pd.DataFrame()
    assert not patching_map(cells(("base",), 0.5), "t", "prose", path)
    assert not layers(empty, path) and not scores(empty, path) and not comparisons(empty, path)
    assert not transfer(empty, empty, path)
    assert not path.exists()


def test_a_figure_is_the_same_every_time(tmp_path: Path) -> None:
    tables = make_tables()
    for name in ("a", "b"):
        layers(tables["probes"], tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_unknown_intervals_are_left_out(tmp_path: Path) -> None:
    table = make_tables()["comparisons"].assign(low=None, high=None)
    assert comparisons(table, tmp_path / "forest.png")
