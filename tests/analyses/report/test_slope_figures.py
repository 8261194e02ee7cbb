from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from test_figures import colour
from test_patching_figures import size

from analyses.pretraining.slopes import slopes
from analyses.report.slope_figures import all_slopes, best_fits

COMPETITIVE, ADDITIVE = (0, 0x72, 0xB2), (0xD5, 0x5E, 0)


def scores(tasks: int, settings: tuple[str, ...] = ("competitive", "additive"), noise: float = 0.1) -> pd.DataFrame:
    """Two seeds at four shares."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {"task": f"task {task}", "share": share, "score": 0.1 * task * share + noise * rng.normal(), "seed": str(seed),
             "setting": setting}
            for setting in settings for task in range(tasks) for seed in range(2) for share in (0, 0.25, 0.5, 0.75)
        ]
    )  # fmt: skip


def test_nothing_to_draw_writes_nothing(tmp_path: Path) -> None:
    given = scores(1)
    fitted = slopes(given).head(0)
    assert not best_fits(given, fitted, tmp_path / "none.png") and not all_slopes(fitted, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_every_task_has_a_panel_and_every_setting_its_colour(tmp_path: Path) -> None:
    path = tmp_path / "fits.png"
    given = scores(5)
    assert best_fits(given, slopes(given), path)
    wide, high = size(path)
    both = colour(path, *COMPETITIVE), colour(path, *ADDITIVE)
    assert min(both) > 0
    alone = given[given.setting == "competitive"].drop(columns="setting")
    assert best_fits(alone, slopes(alone), path)
    assert size(path) == (wide, high), "settings share the panels"
    assert colour(path, *COMPETITIVE) > 0 and colour(path, *ADDITIVE) == 0
    few = given[given.task == "task 0"]
    assert best_fits(few, slopes(few), path)
    assert size(path)[1] < high and size(path)[0] < wide


def test_slopes_are_set_side_by_side_with_their_intervals(tmp_path: Path) -> None:
    path = tmp_path / "all.png"
    given = scores(9)
    assert all_slopes(slopes(given), path)
    wide, with_intervals = size(path)[0], colour(path, *COMPETITIVE)
    assert colour(path, *ADDITIVE) > 0
    fitted = slopes(given)
    assert all_slopes(fitted.assign(low=np.nan, high=np.nan), path)
    assert colour(path, *COMPETITIVE) < with_intervals
    assert all_slopes(fitted[fitted.setting == "competitive"], path)
    assert size(path)[0] < wide and colour(path, *ADDITIVE) == 0


def test_a_task_of_one_setting_and_names_of_any_kind_can_be_drawn(tmp_path: Path) -> None:
    given = scores(2, ("a", "b", "c", "d", "e")).replace({"task": {"task 1": "$" + "long name_" * 12}})
    given = given[(given.setting != "b") | (given.task == "task 0")]
    assert best_fits(given, slopes(given), tmp_path / "fits.png") and all_slopes(slopes(given), tmp_path / "all.png")
