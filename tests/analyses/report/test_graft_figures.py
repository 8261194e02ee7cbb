from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.image import imread
from test_figures import colour
from test_patching_figures import size

from analyses.report.graft_figures import graft_changes, interpolation_curve, lens_curves

BASE, CODE, SEED = (0, 0x72, 0xB2), (0xD5, 0x5E, 0), (0x7A, 0x7A, 0x7A)


def with_interval(name: str, value: float, wide: float = 0.1) -> dict[str, float]:
    return {name: value, f"{name}_low": value - wide, f"{name}_high": value + wide}


def grafts(parts: int = 4, change: float = 0.2, wide: float = 0.1, donors: tuple[str, ...] = ("code",)) -> pd.DataFrame:
    """Every part of ``donors`` in base, and of base in code, all with the same change."""
    names = ["embed", *(f"blocks.{number}" for number in range(parts - 2)), "unembed"]
    ways = [*(("base", donor) for donor in donors), ("code", "base")]
    lines: list[dict[str, Any]] = [
        {"host": host, "donor": "none", "graft": "none", **with_interval("accuracy", level),
         **with_interval("logit_difference", 3 * level)}
        for host, level in (("base", 0.1), ("code", 0.7))
    ]  # fmt: skip
    for host, donor in ways:
        lines += [
            {"host": host, "donor": donor, "graft": name, "accuracy": 0.5, "logit_difference": 1.0,
             **with_interval("accuracy_change", change, wide), **with_interval("logit_difference_change", change, wide)}
            for name in names
        ]  # fmt: skip
    return pd.DataFrame(lines)


def curve(wide: float = 0.1, alphas: tuple[float, ...] = (0, 0.25, 0.5, 0.75, 1)) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"alpha": a, **with_interval("accuracy", a, wide), **with_interval("logit_difference", 4 * a, wide)}
            for a in alphas
        ]
    )


def layers(model: str, count: int, rank: float = 40.0) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"model": model, "layer": layer, "logit_difference": 0.2 * layer, "low": 0.2 * layer - 0.3,
             "high": 0.2 * layer + 0.3, "median_rank": max(1, rank - 5 * layer), "first": layer / count}
            for layer in range(count)
        ]
    )  # fmt: skip


def test_nothing_to_draw_writes_nothing(tmp_path: Path) -> None:
    path, empty = tmp_path / "none.png", pd.DataFrame({"graft": []})
    assert not graft_changes(empty, "", path) and not graft_changes(grafts().head(2), "", path)
    assert not interpolation_curve(empty, "", path) and not lens_curves(empty, "", path)
    assert not path.exists()


def test_a_control_is_drawn_beside_code(tmp_path: Path) -> None:
    path = tmp_path / "grafts.png"
    assert graft_changes(grafts(), "", path)
    assert colour(path, *CODE) and colour(path, *BASE)
    grey = colour(path, *SEED)
    assert graft_changes(grafts(donors=("code", "control")), "", path)
    assert colour(path, *SEED) > grey + 1000


def test_intervals_are_drawn_where_they_are_known(tmp_path: Path) -> None:
    """With a single prompt there is none, and less ink."""
    ink = []
    for wide in (float("nan"), 0.5):
        assert graft_changes(grafts(wide=wide), "", tmp_path / "grafts.png")
        ink.append(colour(tmp_path / "grafts.png", *BASE))
    assert ink[0] < ink[1]
    assert interpolation_curve(curve(float("nan")), "", tmp_path / "curve.png")


def test_both_hosts_have_one_scale(tmp_path: Path) -> None:
    """Were each scaled for itself, a larger change in code would leave base's half of the picture as it was."""
    path, table = tmp_path / "grafts.png", grafts()
    halves = []
    for factor in (1, 60):
        table.loc[(table.host == "code") & (table.graft == "embed"), "logit_difference_change_high"] = 0.3 * factor
        assert graft_changes(table, "", path)
        halves.append(imread(path))
    assert halves[0].shape == halves[1].shape
    middle = halves[0].shape[1] // 2
    assert (halves[0][:, :middle] != halves[1][:, :middle]).any()


def test_grafts_of_a_large_model_stay_within_a_page(tmp_path: Path) -> None:
    table = grafts(82, donors=("code", "control"))
    table.loc[5, "graft"] = "blocks.1+blocks.2+blocks.3"
    assert graft_changes(table, "task of $5 and $6, code form, 100 prompts", tmp_path / "grafts.png")
    width, height = size(tmp_path / "grafts.png")
    assert 6 < width < 11 and 4 < height < 7


def test_the_ends_of_the_curve_are_the_two_models(tmp_path: Path) -> None:
    ends = tmp_path / "ends.png", tmp_path / "middle.png"
    assert interpolation_curve(curve(), "", ends[0])
    assert interpolation_curve(curve(alphas=(0.25, 0.5)), "", ends[1])
    for rgb in (BASE, CODE):
        assert colour(ends[0], *rgb) > colour(ends[1], *rgb) + 100


def test_both_models_have_their_curve_also_of_another_depth(tmp_path: Path) -> None:
    path = tmp_path / "lens.png"
    assert lens_curves(pd.concat([layers("base", 6), layers("code", 24)]), "", path)
    assert colour(path, *BASE) and colour(path, *CODE)
    assert size(path)[0] < 11
    assert lens_curves(layers("base", 6), "", path)
    assert not colour(path, *CODE)


def test_a_better_rank_is_further_up(tmp_path: Path) -> None:
    """The first half of the picture's rows holds more of the curve the nearer it is to rank 1."""
    tops = []
    for rank in (1.0, 4000.0):
        table = pd.concat([layers("base", 6, rank), layers("code", 6, 9000.0)])
        assert lens_curves(table, "", tmp_path / "lens.png")
        image = abs(imread(tmp_path / "lens.png")[..., :3] * 255 - BASE).max(axis=-1) < 3
        rows, columns = image.nonzero()
        third = image.shape[1] // 3
        inside = (columns > third) & (columns < 2 * third) & (rows > 0.62 * 192)
        tops.append(rows[inside].mean())
    assert tops[0] < tops[1] - 50
