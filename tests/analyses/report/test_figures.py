from __future__ import annotations

import struct
from pathlib import Path

import pandas as pd
from matplotlib.image import imread
from tiny import make_tables

from analyses.report.difficulty import difficulty
from analyses.report.figures import layers
from analyses.report.intervals import comparisons, interventions, scores
from analyses.report.transfer_figures import between_layers, transfer

LANGUAGES = ("English", "German", "Finnish", "Spanish", "Russian")


def test_nothing_to_draw_writes_nothing(tmp_path: Path) -> None:
    path, empty = tmp_path / "none.png", pd.DataFrame()
    assert not layers(empty, path) and not scores(empty, path) and not comparisons(empty, path)
    assert not transfer(empty, empty, path) and not between_layers(empty, empty, path)
    assert not difficulty(empty, path) and not interventions(empty, empty, path)
    assert not path.exists()


def test_a_figure_is_the_same_every_time(tmp_path: Path) -> None:
    tables = make_tables()
    for name in ("a", "b"):
        layers(tables["probes"], tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def size(path: Path) -> tuple[int, int]:
    """Width and height of a picture in inches."""
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    return width // 192, height // 192


def colour(path: Path, red: int, green: int, blue: int) -> int:
    """How many pixels are of this colour."""
    return int((abs((imread(path)[..., :3] * 255) - (red, green, blue)).max(axis=-1) < 3).sum())


def languages(tables: dict[str, pd.DataFrame], tasks: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Probes and transfers of so many tasks with a form per language."""
    probe, moved = tables["probes"].iloc[[1]], tables["transfer"].iloc[[0]]
    names = [f"task {number}" for number in range(tasks)]
    probes = [probe.assign(task=name, form=form) for name in names for form in LANGUAGES]
    across = [
        moved.assign(task=name, source=source, form=form)
        for name in names for source in LANGUAGES for form in LANGUAGES if source != form
    ]  # fmt: skip
    return pd.concat(probes, ignore_index=True), pd.concat(across, ignore_index=True)


def test_many_forms_and_tasks_stay_within_the_page(tmp_path: Path) -> None:
    tables, path = make_tables(), tmp_path / "transfer.png"
    heights = []
    for tasks in (1, 12):
        probes, moved = languages(tables, tasks)
        assert transfer(probes, moved, path)
        assert size(path)[0] <= 11
        heights.append(size(path)[1])
        assert layers(probes, path)
        assert size(path)[0] <= 11
    assert heights[0] < 4 and heights[1] < 6 * heights[0]


def test_targets_of_other_forms_do_not_share_a_row_of_matrices(tmp_path: Path) -> None:
    tables = make_tables()
    probes, moved = languages(tables, 1)
    heights = []
    for more in (moved, pd.concat([moved, tables["transfer"].iloc[:2]])):
        transfer(probes, more, tmp_path / "transfer.png")
        heights.append(size(tmp_path / "transfer.png")[1])
    assert heights[1] > heights[0]


def test_every_form_of_a_target_has_its_panel(tmp_path: Path) -> None:
    probes, _ = languages(make_tables(), 1)
    drawn = []
    for forms in (LANGUAGES[:1], LANGUAGES[:4], LANGUAGES):
        layers(probes[probes.form.isin(forms)], tmp_path / "layers.png")
        drawn.append((size(tmp_path / "layers.png")[1], colour(tmp_path / "layers.png", 0, 0x72, 0xB2)))
    assert drawn[0][0] == drawn[1][0] < drawn[2][0]
    assert drawn[0][1] < drawn[1][1] < drawn[2][1]


def test_names_are_no_formulas(tmp_path: Path) -> None:
    assert layers(make_tables()["probes"].assign(target=r"$\nothing{$"), tmp_path / "layers.png")


def test_difficulty_shows_base_and_code_alone(tmp_path: Path) -> None:
    table, path = make_tables()["difficulty"], tmp_path / "difficulty.png"
    assert difficulty(table, path)
    assert colour(path, 0, 0x72, 0xB2) and colour(path, 0xD5, 0x5E, 0)
    assert not colour(path, 0, 0x9E, 0x73)
    both = colour(path, 0xD5, 0x5E, 0)
    assert difficulty(table[table.model == "base"], path)
    assert colour(path, 0xD5, 0x5E, 0) == 0 < both


def test_the_probe_is_drawn_at_its_own_layer_and_at_the_others(tmp_path: Path) -> None:
    tables, path = make_tables(), tmp_path / "layers.png"
    assert between_layers(tables["probes"], tables["layers"], path)
    before = path.read_bytes()
    assert between_layers(tables["probes"], tables["layers"].assign(score=0.9), path)
    assert path.read_bytes() != before


def test_an_edit_that_did_not_reach_its_probe_is_hollow(tmp_path: Path) -> None:
    tables, path = make_tables(), tmp_path / "edits.png"
    filled = []
    for fooled in (0.75, 0.2):
        edits = tables["interventions"].assign(fooled=fooled)
        assert interventions(edits, tables["probes"], path)
        filled.append(colour(path, 0xD5, 0x5E, 0))
    assert filled[0] > filled[1]
    edits = tables["interventions"]
    assert not interventions(edits[edits.prompts == 0], tables["probes"], tmp_path / "none.png")


def test_unknown_intervals_are_left_out(tmp_path: Path) -> None:
    table = make_tables()["comparisons"].assign(low=None, high=None)
    assert comparisons(table, tmp_path / "forest.png")
