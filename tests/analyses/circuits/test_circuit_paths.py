"""Exact patching of single edges: equal to two plain passes with hooks, in either direction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from other_models import CLEAN, CORRUPTED, state
from plain_circuits import KINDS, PROMPT, plain_changes, plain_edge, plain_logits

from activations.errors import TwinprobeError
from analyses.circuits.edges import runs_of
from analyses.circuits.outputs import graph_of
from analyses.circuits.paths import exact_edges
from analyses.patching.exactness import has_suffixes

if TYPE_CHECKING:
    from conftest import MakeModel


@pytest.mark.parametrize("kind", KINDS)
def test_an_edge_is_two_plain_passes(make_model: MakeModel, kind: str) -> None:
    architecture, overrides = KINDS[kind]
    loaded = make_model(architecture, **overrides)
    untouched = state(loaded)
    graph = graph_of(loaded, CLEAN)
    assert has_suffixes(loaded, CLEAN)
    runs = runs_of(loaded, graph, PROMPT, suffixes=True)
    names = graph.names(graph.every)
    chosen = [names[number] for number in np.random.default_rng(0).permutation(len(names))[:9]]
    for direction, ids, donor in (("noising", CLEAN, CORRUPTED), ("denoising", CORRUPTED, CLEAN)):
        found = exact_edges(loaded, graph, PROMPT, [*chosen, ("m0", "logits")], runs=runs, direction=direction)
        changes = plain_changes(loaded, graph, ids, donor)
        before = float(PROMPT.logit_difference(plain_logits(loaded, ids, {})))
        expected = [plain_edge(loaded, graph, edge, ids, changes) - before for edge in [*chosen, ("m0", "logits")]]
        assert found == pytest.approx(expected, abs=2e-5)
        assert (np.abs(expected) > 1e-3).sum() > 3
    assert state(loaded) == untouched


def test_whole_runs_give_what_suffixes_give(make_model: MakeModel) -> None:
    loaded = make_model("llama")
    graph = graph_of(loaded, CLEAN)
    names = graph.names(graph.every)
    found = [
        exact_edges(loaded, graph, PROMPT, names, runs=runs_of(loaded, graph, PROMPT, suffixes=suffixes))
        for suffixes in (True, False)
    ]
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_an_edge_that_is_not_there_is_refused(make_model: MakeModel) -> None:
    loaded = make_model("codegen")
    graph = graph_of(loaded, CLEAN)
    with pytest.raises(TwinprobeError, match=r"edge a1\.h0 -> m1: tiny-codegen has none"):
        exact_edges(loaded, graph, PROMPT, [("a1.h0", "m1")], runs=runs_of(loaded, graph, PROMPT))
    assert len(exact_edges(loaded, graph, PROMPT, [], runs=runs_of(loaded, graph, PROMPT))) == 0
