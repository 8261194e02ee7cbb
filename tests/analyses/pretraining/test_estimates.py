"""Estimates: the table of runs, time from real steps, room on the disk."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from test_family import STUDY

from analyses.pretraining.architectures import new_model
from analyses.pretraining.design import Design, read_design
from analyses.pretraining.estimates import estimate, table

SHAPE = "context = 100\nhidden_size = 16\nintermediate_size = 24\nlayers = 1\nheads = 2"


@pytest.fixture
def design(tmp_path: Path) -> Design:
    (tmp_path / "study.toml").write_text(STUDY.replace("context = 100", SHAPE))
    return read_design(tmp_path / "study.toml")


def test_the_table_says_what_each_run_sees(design: Design) -> None:
    lines = {line["name"]: line for line in table(design, design.run)}
    assert len(lines) == 27
    assert lines["code75-2000k-seed1"] == {
        "name": "code75-2000k-seed1", "code_share": 0.75, "prose_tokens": 500_000, "code_tokens": 1_500_000,
        "steps": 2000, "seed": 1,
        "serves": [{"setting": "competitive", "share": 0.75}, {"setting": "additive", "share": 0.75}],
    }  # fmt: skip


def test_time_and_room_grow_with_the_runs(design: Design, tmp_path: Path) -> None:
    weights = new_model(design.architecture, 0, vocab_size=4096).num_parameters()
    some = estimate(design, design.run[:2], tmp_path, None)
    assert some.device == "cpu"
    assert 0 < some.seconds_per_step < 5
    assert some.seconds == pytest.approx(4000 * some.seconds_per_step)
    assert some.model_bytes == 2 * 2 * weights
    assert some.checkpoint_bytes == 24 * weights, "weights and two moments in float32, old and new at once"


def test_the_room_for_data_is_known_before_it_is_read(design: Design, tmp_path: Path) -> None:
    assert estimate(design, design.run[:1], tmp_path, None).data_bytes is None
    (tmp_path / "prose").mkdir()
    (tmp_path / "prose" / "a.txt").write_text("x" * 3000)
    (tmp_path / "code").write_text("y" * 6000)
    assert estimate(design, design.run[:1], tmp_path, None).data_bytes == 15_000
    (tmp_path / "out" / "data").mkdir(parents=True)
    assert estimate(design, design.run[:1], tmp_path, tmp_path / "out").data_bytes == 0
    packed = gzip.compress(b"x" * 1000)
    (tmp_path / "code.tar.gz").write_bytes(packed)
    with_sets = design.model_copy(
        update={
            "data": (
                design.data[0].model_copy(update={"path": None, "dataset": "org/name", "characters": 30}),
                design.data[1].model_copy(update={"path": "code.tar.gz"}),
            )
        }
    )
    expected = round((30 + 4 * len(packed)) * (1 + 2 / 3))
    assert estimate(with_sets, design.run[:1], tmp_path, None).data_bytes == expected
