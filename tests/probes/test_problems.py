"""Problems out of a store: rows, labels, relations, and what is shared while they are swept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import probes.batched
import probes.sweep
from activations.capturing import capture
from activations.errors import TwinprobeError
from activations.store import ActivationStore
from activations.texts import Span
from probes.problems import store_sites, sweep_store, task_problems
from probes.sweep import Problem
from probes.task_rows import labelled_texts, target_rows, task_texts
from probes.tasks import get_task
from probes.tasks.items import Form, Item, Relation, Task

SPLITS = ("train", "train", "dev", "test")
WORDS = ("red", "coin", "box", "name")


def _items() -> list[Item]:
    """Sentences with a labelled last word, and relations between the two nouns, both ways round."""
    items = []
    for i in range(40):
        first, second = WORDS[i % 4], WORDS[(i // 4) % 4]
        text = f"the {first} and the {second}"
        ends = [(4, 4 + len(first)), (13 + len(first), len(text))]
        relations = (
            Relation("same", ends[0], ends[1], "yes" if first == second else "no", first),
            Relation("same", ends[1], ends[0], "yes" if first == second else "no", second),
        )
        spans = (*(Span("same", *end) for end in ends), Span("noun", len(text) - 1, len(text), second, first))
        form = Form(text, spans, relations=relations)
        items.append(Item(f"i{i}", "mine", SPLITS[i % 4], f"g{i}", i % 3, {"prose": form}))
    return items


MINE = Task(
    "mine", "", {"noun": ("prose",), "same": ("prose",)}, lambda n, seed: _items(), causal=False, relations=("same",)
)


@pytest.fixture(scope="module")
def store(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    loaded = tiny("llama")
    folder = tmp_path_factory.mktemp("problems") / "store"
    return capture(loaded, labelled_texts(_items()), loaded.sites("embed,resid_post.*"), folder, bos=True, rows="spans")


def test_a_relation_joins_the_rows_of_its_two_spans(store: ActivationStore) -> None:
    found = target_rows(store, MINE, _items(), "same")["prose"]
    assert found.rows.shape == (80, 2)
    texts = {text.id: text.text for text in store.texts}
    rows = store.rows
    for pair, label, control in zip(found.rows, found.about.labels, found.about.controls, strict=True):
        first, second = (rows.loc[row] for row in pair)
        assert first.text == second.text and first.position != second.position
        words = [texts[first.text][: row.end].split()[-1] for row in (first, second)]
        assert label == ("yes" if words[0] == words[1] else "no") or len(set(words)) == 1
        assert control.endswith(words[0][-2:])
    assert (found.about.positions[0::2] == -found.about.positions[1::2]).all(), "the distance in tokens, signed"
    assert len(set(found.names)) == 80
    assert found.about.difficulties[:4].tolist() == [0, 0, 1, 1]


def test_every_target_is_a_problem_with_its_rows_features(store: ActivationStore) -> None:
    noun, same = task_problems(store, MINE, _items(), seed=3)
    assert noun.where == {"task": "mine", "target": "noun", "form": "prose", "seed": 3}
    whole = store.read("resid_post.1")
    assert np.array_equal(noun.at(whole).features, whole[noun.rows])
    assert np.array_equal(
        same.at(whole).features, np.concatenate([whole[same.rows[:, 0]], whole[same.rows[:, 1]]], axis=1)
    )
    [(site, results), *_] = list(sweep_store(store, [noun, same], sites=["embed"], strengths=(0.1,), n_resamples=20))
    assert site == "embed"
    assert [result.family for result in results] == ["logistic", "bilinear"]
    assert results[0].score == 1.0, "the last token is the label"


def test_items_that_were_not_captured_are_named(store: ActivationStore) -> None:
    more = [*_items(), Item("i99", "mine", "test", "g99", 0, _items()[0].forms)]
    with pytest.raises(
        TwinprobeError, match=r"does not hold text 'i99/prose' of task 'mine'; capture it with the same"
    ):
        target_rows(store, MINE, more, "noun")


def test_only_the_draws_own_items_are_rows_of_a_problem(store: ActivationStore) -> None:
    some = _items()[:20]
    assert set(target_rows(store, MINE, some, "noun")["prose"].about.items) == {item.id for item in some}


def test_sites_of_a_store_are_selected_as_everywhere(store: ActivationStore) -> None:
    assert store_sites(store, None) == store.sites
    assert store_sites(store, "resid_post.1,embed") == ["resid_post.1", "embed"]
    with pytest.raises(TwinprobeError, match=r"does not hold mlp_out\.0; it holds embed, resid_post\.0"):
        store_sites(store, "mlp_out.0")


def test_the_texts_of_tasks_are_each_there_once() -> None:
    texts = task_texts(["types", "scope"], 12, range(2))
    assert len(texts) == len({text.id for text in texts})
    expected = sum(
        len(item.forms) for name in ("types", "scope") for s in (0, 1) for item in get_task(name).generate(12, s)
    )
    assert len(texts) == expected


def test_problems_on_the_same_training_rows_share_one_decomposition(
    store: ActivationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    [noun, _] = task_problems(store, MINE, _items(), seed=0)
    other = Problem(noun.about, noun.rows, noun.control, noun.surface, {"target": "again"})
    elsewhere = Problem(noun.about, np.roll(noun.rows, 1), noun.control, noun.surface, {"target": "other rows"})
    decomposed, original = [], probes.batched.decompose_many

    def counted(features: Any) -> Any:
        decomposed.append(len(features))
        return original(features)

    monkeypatch.setattr(probes.batched, "decompose_many", counted)
    list(sweep_store(store, [noun, elsewhere, other], sites=["embed"], strengths=(0.1,), n_resamples=20))
    assert decomposed == [2]
    monkeypatch.setattr(probes.sweep, "TOGETHER", 1)
    list(sweep_store(store, [noun, elsewhere, other], sites=["embed"], strengths=(0.1,), n_resamples=20))
    assert decomposed == [2, 1, 1], "rows that do not fit into memory together are fitted apart"


def test_one_read_of_each_site_serves_all_problems(
    store: ActivationStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reads, original = [], ActivationStore.read

    def counted(self: ActivationStore, site: Any, rows: Any = None) -> Any:
        reads.append((str(site), len(rows)))
        return original(self, site, rows)

    monkeypatch.setattr(ActivationStore, "read", counted)
    problems = task_problems(store, MINE, _items(), seed=0)
    list(sweep_store(store, problems, strengths=(0.1,), n_resamples=20))
    assert [site for site, _ in reads] == store.sites
