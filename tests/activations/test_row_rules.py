"""Rows: which tokens of a text are kept, and that a pooled row sees its own tokens and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from activations.errors import TwinprobeError
from activations.inputs import Encoded
from activations.rows import POOLS, RowRule, TextRows, selection
from activations.texts import Span, Text


def encoded(n: int = 5, bos: bool = True, closing: bool = False, spans: tuple[Span, ...] = ()) -> Encoded:
    """A text of ``n`` tokens, each of one character."""
    own = range(int(bos), int(bos) + n)
    ranges = np.zeros((n + bos + closing, 2), dtype=np.int32)
    ranges[own.start : own.stop] = [(i, i + 1) for i in range(n)]
    return Encoded(Text("t", "x" * n, spans), np.arange(len(ranges), dtype=np.int32), ranges, own)


def positions(rule: RowRule, item: Encoded) -> list[list[int]]:
    planned = rule.plan(item)
    ends = np.cumsum(planned.counts)
    found = [planned.positions[end - count : end].tolist() for end, count in zip(ends, planned.counts, strict=True)]
    assert [row[0] for row in found] == planned.first.tolist()
    assert [row[-1] for row in found] == planned.last.tolist()
    return found


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("closing", [True, False])
def test_added_tokens_are_no_rows(bos: bool, closing: bool) -> None:
    item = encoded(4, bos, closing)
    first = int(bos)
    assert positions(RowRule("tokens"), item) == [[first], [first + 1], [first + 2], [first + 3]]
    assert positions(RowRule("last"), item) == [[first + 3]]
    assert positions(RowRule("positions", positions=(-1, 0, 2)), item) == [[first + 3], [first], [first + 2]]
    assert RowRule("tokens").plan(item).spans.tolist() == [-1] * 4


def test_spans_are_pooled_in_their_own_order() -> None:
    item = encoded(5, spans=(Span("late", 3, 5), Span("early", 0, 1), Span("all", 0, 5)))
    assert positions(RowRule("spans", "first"), item) == [[4], [1], [1]]
    assert positions(RowRule("spans", "last"), item) == [[5], [1], [5]]
    for pool in ("mean", "max"):
        assert positions(RowRule("spans", pool), item) == [[4, 5], [1], [1, 2, 3, 4, 5]]
    assert RowRule("spans").plan(item).spans.tolist() == [0, 1, 2]
    assert len(RowRule("spans").plan(encoded(2)).counts) == 0


@pytest.mark.parametrize("position", [5, -6, 99])
def test_a_position_a_text_does_not_have_is_refused(position: int) -> None:
    with pytest.raises(TwinprobeError, match=f"text 't' has 5 tokens and so no position {position}"):
        RowRule("positions", positions=(position,)).plan(encoded(5))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("words",), "rows 'words' is not known; expected one of tokens, last, positions, spans"),
        (("spans", "sum"), "pool 'sum' is not known"),
        (("last", "mean"), "pool 'mean' goes with rows 'spans'"),
        (("positions",), "go together"),
        (("last", "last", (1,)), "go together"),
        (("positions", "last", (1, 1)), "name one twice"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(arguments: tuple[object, ...], expected: str) -> None:
    with pytest.raises(TwinprobeError, match=expected):
        RowRule(*arguments)  # type: ignore[arg-type]


ROWS = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=7), max_size=4)


@given(st.lists(ROWS, min_size=1, max_size=4), st.sampled_from(POOLS), st.integers(0, 2**32 - 1))
def test_selection_gives_each_row_its_own_tokens(texts: list[list[list[int]]], pool: str, seed: int) -> None:
    """Against plain loops in float64; what other positions hold, be it NaN, does not matter."""
    if pool in ("first", "last"):
        texts = [[row[:1] for row in rows] for rows in texts]
    generator = torch.Generator().manual_seed(seed)
    activation = torch.randn((len(texts), 7, 3), generator=generator)
    planned = [
        TextRows(
            np.array([place for row in rows for place in row], dtype=np.int64),
            np.array([len(row) for row in rows], dtype=np.int64),
            np.full(len(rows), -1),
        )
        for rows in texts
    ]
    for line, rows in enumerate(texts):
        used = {place for row in rows for place in row}
        activation[line, [place for place in range(7) if place not in used]] = float("nan")
    found = selection(planned, pool)(activation)
    expected = [
        activation[line, row].double().mean(0) if pool == "mean" else activation[line, row].double().amax(0)
        for line, rows in enumerate(texts)
        for row in rows
    ]
    assert found.shape == (len(expected), 3)
    if expected:
        torch.testing.assert_close(found.double(), torch.stack(expected), rtol=1e-6, atol=1e-6)


def test_rows_keep_their_type_and_means_are_float32() -> None:
    rows = [TextRows(np.array([0, 1, 2]), np.array([1, 2]), np.array([0, 1]))]
    activation = torch.randn((1, 3, 4), generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    largest = selection(rows, "max")(activation)
    assert largest.dtype == torch.bfloat16
    assert torch.equal(largest[1], activation[0, 1:].amax(0))
    mean = selection(rows, "mean")(activation)
    assert mean.dtype == torch.float32
    assert torch.equal(mean[1], activation[0, 1:].float().mean(0))


def test_a_head_s_slice_is_taken_without_its_neighbours() -> None:
    activation = torch.randn((2, 3, 8), generator=torch.Generator().manual_seed(0))
    rows = [
        TextRows(np.array([2]), np.array([1]), np.array([-1])),
        TextRows(np.array([0]), np.array([1]), np.array([-1])),
    ]
    found = selection(rows, "last")(activation[..., 2:4])
    assert torch.equal(found, torch.stack([activation[0, 2, 2:4], activation[1, 0, 2:4]]))
