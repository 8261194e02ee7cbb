from __future__ import annotations

import struct
from pathlib import Path

import pandas as pd
from matplotlib.image import imread
from tiny_benchmarks import benchmarks

from analyses.report.benchmark_figures import bars, radar

ROLES = ("base", "code", "second_seed")


def height(path: Path) -> int:
    return int(struct.unpack(">II", path.read_bytes()[16:24])[1])


def blue_and_orange(path: Path) -> list[int]:
    """How many pixels have about the hue of base, and of code."""
    red, blue = (imread(path)[..., channel] for channel in (0, 2))
    return [int(((blue - red) > 0.2).sum()), int(((red - blue) > 0.2).sum())]


def test_nothing_to_draw_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "none.png"
    assert not bars(pd.DataFrame(), path) and not radar(pd.DataFrame(), path)
    two = pd.DataFrame([line for line in benchmarks(ROLES) if line["task"] != "written"])
    assert not radar(two, path), "two tasks are no radar"
    assert not path.exists()


def test_bars_are_as_long_as_the_scores(tmp_path: Path) -> None:
    table = pd.DataFrame(benchmarks(ROLES))
    assert bars(table, tmp_path / "a.png") and bars(table, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    base, code = blue_and_orange(tmp_path / "a.png")
    assert code > 1.2 * base
    assert bars(pd.concat([table.assign(task=table.task + str(n)) for n in range(4)]), tmp_path / "more.png")
    assert height(tmp_path / "more.png") > 2 * height(tmp_path / "a.png")


def test_the_radar_reaches_further_where_a_model_scores_more(tmp_path: Path) -> None:
    table = pd.DataFrame(benchmarks(("base", "code")))
    assert radar(table, tmp_path / "a.png")
    swapped = table.assign(model=table.model.map({"base": "code", "code": "base"}))
    assert radar(swapped, tmp_path / "b.png")
    (base, code), (other_base, other_code) = (blue_and_orange(tmp_path / f"{name}.png") for name in "ab")
    assert base < other_base and other_code < code
