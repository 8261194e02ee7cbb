from __future__ import annotations

import numpy as np
import pytest
from synthetic import about_rows

from activations.errors import TwinprobeError
from probes.rows import RowLabels, Rows


def _about(n: int = 18) -> RowLabels:
    return about_rows(np.array(["a", "b"] * (n // 2)))


def test_take_selects_the_same_rows_everywhere() -> None:
    about = _about()
    rows = Rows(np.arange(18, dtype=np.float32)[:, None], about)
    mask = np.arange(18) % 3 == 0
    taken = rows.take(mask)
    assert taken.features.ravel().tolist() == [0, 3, 6, 9, 12, 15]
    assert taken.about.items.tolist() == [about.items[i] for i in range(0, 18, 3)]
    assert taken.about.texts == tuple(about.texts[i] for i in range(0, 18, 3))
    assert taken.about.positions.tolist() == about.positions[::3].tolist()
    by_index = rows.take(np.array([5, 2]))
    assert by_index.features.ravel().tolist() == [5, 2]


def test_splits_partition_the_rows() -> None:
    rows = Rows(np.arange(18, dtype=np.float32)[:, None], _about())
    parts = [rows.split(name) for name in ("train", "dev", "test")]
    assert sum(len(part) for part in parts) == 18
    assert all(set(part.about.splits) == {name} for part, name in zip(parts, ("train", "dev", "test"), strict=True))


def test_sites_share_the_labels_without_copies() -> None:
    about = _about()
    first, second = (Rows(np.zeros((18, 3), np.float32), about) for _ in range(2))
    assert first.about is second.about


def test_lengths_must_agree() -> None:
    about = _about()
    with pytest.raises(TwinprobeError, match="different lengths"):
        RowLabels(**{**about.__dict__, "labels": about.labels[:-1]})
    with pytest.raises(TwinprobeError, match="17 feature rows for 18 row labels"):
        Rows(np.zeros((17, 3), np.float32), about)


def test_features_must_be_finite_floating_and_two_dimensional() -> None:
    about = _about()
    features = np.zeros((18, 3), np.float32)
    features[4, 1] = np.nan
    with pytest.raises(TwinprobeError, match=r"1 of 18 feature rows hold NaN or infinity \(first: row 4\)"):
        Rows(features, about)
    with pytest.raises(TwinprobeError, match="expected a floating"):
        Rows(np.zeros((18, 3), np.int64), about)
    with pytest.raises(TwinprobeError, match="expected a floating"):
        Rows(np.zeros(18, np.float32), about)


def test_bad_splits_and_masks_are_named() -> None:
    about = _about()
    with pytest.raises(TwinprobeError, match="unknown split 'valid'"):
        RowLabels(**{**about.__dict__, "splits": np.where(about.splits == "dev", "valid", about.splits)})
    only_train = about.take(about.splits == "train")
    with pytest.raises(TwinprobeError, match=r"no rows in split 'test' \(rows per split: train 10, dev 0, test 0"):
        only_train.split("test")
    with pytest.raises(TwinprobeError, match="the mask has shape"):
        about.take(np.ones(5, dtype=bool))
    with pytest.raises(TwinprobeError, match="no rows"):
        about.take(np.zeros(18, dtype=bool))
