"""A model that writes the label linearly at one layer: capture and sweep find it there, and nowhere before."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from activations.capturing import capture
from activations.models import LoadedModel
from activations.texts import Span, Text
from probes.labels import labels_from_spans
from probes.problems import label_problem, sweep_store
from probes.sweep import best_layer

WORDS = {"red": "colour", "blue": "colour", "box": "thing", "coin": "thing", "girl": "person", "king": "person"}
FILLERS = ("the", "a", "old", "was", "and", "near", "of", "in")
LAYER = 2


@pytest.fixture(scope="module")
def planted(make_model: Any) -> LoadedModel:
    """Four layers that do nothing but one: at :data:`LAYER` every token gets the mean of the embeddings before it."""
    loaded: LoadedModel = make_model("llama", num_hidden_layers=4, hidden_size=64, num_key_value_heads=4)
    with torch.no_grad():
        for number, layer in enumerate(loaded.model.model.layers):
            layer.mlp.down_proj.weight.zero_()
            layer.self_attn.o_proj.weight.zero_()
            if number == LAYER:
                layer.self_attn.q_proj.weight.zero_()  # all scores equal: attention is a mean
                layer.self_attn.v_proj.weight.copy_(torch.eye(64))
                layer.self_attn.o_proj.weight.copy_(4 * torch.eye(64))
    return loaded


def _texts() -> list[Text]:
    """A labelled word among fillers; the label is asked for at the last token, which is always the same."""
    rng = random.Random(0)
    found = []
    for number in range(420):
        word = rng.choice(list(WORDS))
        words = [rng.choice(FILLERS) for _ in range(6)]
        words.insert(rng.randrange(1, 6), word)
        text = " ".join(words) + " ="
        spans = (Span("kind", len(text) - 1, len(text), WORDS[word], words[-1]),)
        found.append(Text(f"t{number}", text, spans))
    return found


def test_the_label_is_found_where_it_is_written_and_nowhere_before(planted: LoadedModel, tmp_path: Path) -> None:
    store = capture(planted, _texts(), planted.sites("embed,resid_post.*"), tmp_path / "store", bos=True, rows="spans")
    problem = label_problem("kind", labels_from_spans(store, "kind", seed=0), seed=0)
    results = {site: result for site, [result] in sweep_store(store, [problem], code_orders=1)}
    before, after = (
        [result for site, result in results.items() if (site.startswith("resid") and int(site[-1]) >= LAYER) is written]
        for written in (False, True)
    )
    assert [result.site for result in before] == ["embed", "resid_post.0", "resid_post.1"]
    for result in before:
        assert result.score == pytest.approx(result.majority, abs=0.02)
        assert result.low <= result.majority <= result.high
        assert result.selectivity_low <= 0
        assert result.compression == pytest.approx(1.0, abs=0.1)
    for result in after:
        assert result.score > 0.95
        assert result.selectivity_low > 0.2
        assert result.compression > 1.8
        assert result.auroc > 0.99
    assert best_layer(list(results.values())).site == f"resid_post.{LAYER}"
