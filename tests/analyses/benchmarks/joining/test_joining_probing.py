"""Rows, folds, texts and probes of the join, on planted items and features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import CONTEXT, MakeModel
from numpy.typing import NDArray

from activations.errors import TwinprobeError
from activations.inputs import encode
from activations.texts import Text
from analyses.benchmarks.joining.asking import answers
from analyses.benchmarks.joining.probing import best_rows, margins, out_of_fold
from analyses.benchmarks.joining.questions import Questions, questions
from analyses.benchmarks.joining.tables import Evidence, item_table, join_table
from analyses.benchmarks.joining.texts import texts
from analyses.benchmarks.local.grading import grade_choices
from analyses.benchmarks.local.questions import Asked, Prompt
from analyses.benchmarks.local.run import Job
from analyses.benchmarks.local.tasks import Setting
from analyses.benchmarks.multiple_choice import Item, score_choices

SETTING = Setting(task="planted", shots=0, metric="acc")


def planted(items: int, choices: int = 4, together: int = 1, seed: int = 0) -> Questions:
    """Items of two subjects with one right choice each, ``together`` of them about one passage."""
    rng = np.random.default_rng(seed)
    asked = [
        Asked(
            Item(str(n), f"s{n % 2}", "what?", tuple(f"c{i}" for i in range(choices)), (int(rng.integers(choices)),)),
            f"passage {n // together}" if together > 1 else str(n),
        )
        for n in range(items)
    ]
    return questions(Job(SETTING, tuple(asked)), 5)


def model_answers(asked: Questions, right: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    """Picks that are right where they are to be, else the next choice."""
    gold = np.array([item.gold[0] for item in asked.items])
    wrong = (gold + 1 + rng.integers(len(asked.items[0].choices) - 1, size=len(gold))) % len(asked.items[0].choices)
    return np.where(right, gold, wrong)


def test_units_stay_whole_and_folds_even() -> None:
    asked = planted(100, together=7)
    folds = asked.folds(5, 0)
    for unit in set(asked.units):
        assert len({folds[i] for i, other in enumerate(asked.units) if other == unit}) == 1
    assert np.bincount(folds).max() - np.bincount(folds).min() <= 7
    assert (folds != asked.folds(5, 1)).any()
    # An item's own name in two subjects is two units; a passage in two subjects is one.
    two = [Asked(Item("1", subject, "q", ("a", "b"), (0,)), "1") for subject in ("s", "t")]
    two += [Asked(Item("2", subject, "q", ("a", "b"), (0,)), "passage") for subject in ("s", "t")]
    assert len(set(questions(Job(SETTING, tuple(two)), 3).units)) == 3


def test_shuffled_labels_keep_their_number_and_lose_the_answer() -> None:
    asked = planted(2000)
    shuffled = asked.shuffled(0)
    assert (np.bincount(asked.owners, weights=shuffled) == 1).all()
    assert 0.2 < (shuffled & asked.right).sum() / 2000 < 0.3


def test_strata_hold_items_whose_right_choice_has_one_place() -> None:
    asked = planted(200)
    strata = asked.strata(asked.right)
    keys = {(item.subject, item.gold) for item in asked.items}
    assert len(set(strata.tolist())) == len(keys) == 8
    for stratum in set(strata.tolist()):
        assert len({asked.items[i].gold for i in np.flatnonzero(strata == stratum)}) == 1


def test_the_best_row_of_an_item_is_the_first_of_equal_ones_and_margins_are_to_the_next() -> None:
    owners, scores = np.array([0, 0, 0, 1, 1]), np.array([0.5, 2.0, 2.0, 3.0, 1.0])
    assert best_rows(scores, owners).tolist() == [1, 3]
    np.testing.assert_allclose(margins(scores, owners, np.array([1, 0, 0, 1, 0], bool)), [-1.5, 2.0])


def test_a_planted_direction_is_found_and_shuffled_labels_are_not() -> None:
    asked = planted(200)
    rng = np.random.default_rng(1)
    features = rng.normal(size=(len(asked.owners), 12)).astype(np.float32)
    features[:, 3] += 3.0 * asked.right
    scores = out_of_fold(features, [asked.right, asked.shuffled(0)], asked.owners, asked.folds(5, 0))
    assert np.isfinite(scores).all()
    assert asked.right[best_rows(scores[:, 0], asked.owners)].mean() > 0.85
    assert 0.15 < asked.shuffled(0)[best_rows(scores[:, 1], asked.owners)].mean() < 0.35


def test_labels_of_a_fold_change_no_score_of_that_fold() -> None:
    """Neither fit nor strength sees them; scores of the other folds do change."""
    asked = planted(60)
    folds = asked.folds(5, 0)
    features = np.random.default_rng(7).normal(size=(240, 20)).astype(np.float32)
    first = out_of_fold(features, [asked.right], asked.owners, folds)[:, 0]
    for fold in range(5):
        inside = folds[asked.owners] == fold
        labels = np.where(inside, asked.shuffled(3), asked.right)
        assert (labels != asked.right).any()
        other = out_of_fold(features, [labels], asked.owners, folds)[:, 0]
        assert (first[inside] == other[inside]).all()
        assert (first[~inside] != other[~inside]).any()


def test_what_a_passage_alone_tells_is_not_learnt() -> None:
    """Items of a passage have one and the same row for each place: split over folds, their answers would be memorised."""
    asked = planted(200, together=4)
    gold = np.repeat(np.random.default_rng(2).integers(4, size=50), 4)
    same = [replace(item, gold=(int(at),)) for item, at in zip(asked.items, gold, strict=True)]
    asked = Questions("planted", tuple(same), asked.units, 0)
    features = np.repeat(np.random.default_rng(3).normal(size=(50, 1, 4, 60)), 4, axis=1).reshape(800, 60)
    leaky = out_of_fold(features, [asked.right], asked.owners, np.arange(200) % 5, [1.0])
    sound = out_of_fold(features, [asked.right], asked.owners, asked.folds(5, 0), [1.0])
    hits = [asked.right[best_rows(scores[:, 0], asked.owners)].mean() for scores in (leaky, sound)]
    assert hits[0] > 0.6 and hits[1] < 0.45


def evidence(asked: Questions, probe_right: NDArray[np.bool_], model_right: NDArray[np.bool_], seed: int) -> Evidence:
    """A site whose probe is right where it is to be, beside one that knows nothing."""
    import pandas as pd

    rng = np.random.default_rng(seed)
    rows = len(asked.owners)
    picks = model_answers(asked, probe_right, rng)
    planted_scores = rng.normal(size=rows)
    planted_scores[asked.firsts + picks] += 20.0
    own = pd.DataFrame({"pick": model_answers(asked, model_right, rng), "right": model_right})
    own["confidence"] = rng.normal(size=len(own)) + own.right
    other = own.assign(right=rng.random(len(own)) < 0.4)
    scores = {
        "embed": rng.normal(size=(rows, 2)),
        "resid_post.0": np.stack([planted_scores, rng.normal(size=rows)], axis=1),
    }
    return Evidence(asked, own, other, asked.shuffled(0), asked.folds(5, 0), scores, np.zeros(len(own), dtype=bool))


def test_a_planted_association_is_in_its_line_and_nowhere_else() -> None:
    asked, rng = planted(1200), np.random.default_rng(4)
    probe = rng.random(1200) < 0.5
    model = rng.random(1200) < np.where(probe, 0.6, 0.2)  # odds ratio 6
    found = evidence(asked, probe, model, 5)
    table = join_table(found, n_permutations=2000).set_index("site")
    floor, there = table.loc["embed"], table.loc["resid_post.0"]
    assert there.low < 6 < there.high and there.low > 3 and there.p_holm < 0.01
    assert floor.low < 1 < floor.high and floor.p > 0.01
    assert there.other_low < 1 < there.other_high and there.ratio_low > 2
    assert there.control_low < 1 < there.control_high and abs(there.control_accuracy - 0.25) < 0.05
    assert there.support_beside_low > 0 and there.confidence_beside_low > 0
    assert floor.support_beside_low < 0.1 and floor.support_beside_high > -0.1
    counts = [int((a & b).sum()) for a in (probe, ~probe) for b in (model, ~model)]
    assert [there[name] for name in ("both_right", "probe_only", "model_only", "both_wrong")] == counts
    assert there.probe_accuracy == probe.mean() and there.model_accuracy == model.mean()
    assert [
        None if value is None else int(value) for value in table.layer.astype(object).where(table.layer.notna(), None)
    ] == [None, 0]
    items = item_table(found)
    assert len(items) == 2400
    planted_lines = items[items.site == "resid_post.0"]
    assert ((planted_lines.probe_margin > 0) == planted_lines.probe_right).all()
    agree = (planted_lines.probe_pick == planted_lines.model_pick).to_numpy()
    assert ((planted_lines.support > 0).to_numpy() == agree).all()


def test_a_taste_for_a_letter_is_no_association() -> None:
    """A probe that always says C and a model that likes C are right together; among items of one place it shows nothing."""
    import pandas as pd

    asked, rng = planted(800), np.random.default_rng(6)
    picks = np.where(rng.random(800) < 0.7, 2, rng.integers(4, size=800))
    right = picks == [item.gold[0] for item in asked.items]
    own = pd.DataFrame({"pick": picks, "right": right, "confidence": rng.normal(size=800)})
    scores = np.tile([0.0, 0.0, 1.0, 0.0], 800)[:, None] + np.zeros((1, 2))
    found = Evidence(asked, own, None, asked.shuffled(0), asked.folds(5, 0), {"embed": scores}, right & False)
    [line] = join_table(found, n_permutations=200).to_dict("records")
    naive = line["both_right"] * line["both_wrong"] / line["probe_only"] / line["model_only"]
    assert naive > 4
    assert np.isnan(line["odds_ratio"]) and line["p"] == 1.0


@pytest.mark.parametrize("metric", ["acc", "acc_norm", "acc_bytes"])
def test_answers_are_those_of_bench_run(make_model: MakeModel, metric: str) -> None:
    loaded = make_model("llama")
    choices = ("the box", "an old man, Þorgerður", "rain")
    items = [Item(str(n), "s", f"Number {n * n}? Answer: ", choices, (n % 3,)) for n in range(12)]
    found = score_choices(loaded, items, bos=True)
    table = answers(items, found, metric)
    assert table.right.tolist() == (grade_choices(items, found)[metric] == 1).tolist()
    assert (table.confidence > 0).all()
    if metric == "acc":
        pick = found.set_index(["item", "choice"]).log_likelihood
        best = pick[items[0].id].sort_values()
        assert table.confidence[0] == pytest.approx(best.iloc[-1] - best.iloc[-2])


@pytest.mark.parametrize("bos", [True, False])
def test_long_texts_lose_their_beginning_and_short_ones_nothing(make_model: MakeModel, bos: bool) -> None:
    loaded = make_model("llama")
    long = "the name of the value " * 40 + "漢字🙂 x = 1 + 2; "
    items = (Item("0", "s", long, ("rain", "two 🙂🙂 words"), (0,)), Item("1", "s", "short: ", ("a", "b"), (0,)))
    asked = Questions("t", items, ("0", "1"), 0)
    found, lost = texts(loaded, asked, bos)
    assert (lost[:2] > 0).all() and (lost[2:] == 0).all()
    whole = [item.context + choice for item in items for choice in item.choices]
    full = encode(loaded.tokenizer, [Text("", text) for text in whole], bos, 10**6)
    read = encode(loaded.tokenizer, found, bos, CONTEXT)  # raises where one does not fit
    for text, all_of_it, before, after in zip(found, whole, full, read, strict=True):
        assert all_of_it.endswith(text.text)
        assert after.ids[-8:] == before.ids[-8:] or len(after) < 10
    assert all(len(one) > CONTEXT - 6 for one in read[:2]), "no more is lost than has to be"
    assert [text.id for text in found] == ["s/0/0", "s/0/1", "s/1/0", "s/1/1"]


def test_tasks_that_can_not_be_joined_are_refused(make_model: MakeModel) -> None:
    written = tuple(Asked(Prompt(str(n), "s", "1+1=", "2", ()), str(n)) for n in range(9))
    chosen = tuple(Asked(Item(str(n), "s", "q", ("a", "b"), (0,)), "same passage") for n in range(9))
    with pytest.raises(TwinprobeError, match="planted has written answers only"):
        questions(Job(SETTING, written), 3)
    with pytest.raises(TwinprobeError, match="9 items in 1 groups, fewer than the 3 folds"):
        questions(Job(SETTING, chosen), 3)
    mixed = tuple(Asked(replace(one.what, id=str(n)), str(n)) for n, one in enumerate(chosen))
    assert questions(Job(SETTING, mixed + written), 3).left_out == 9
    huge = Questions("t", (Item("0", "s", "q ", ("x" * 2000, "b"), (0,)),), ("0",), 0)
    with pytest.raises(TwinprobeError, match="s/0/0: the choice alone does not fit the model's context of 96"):
        texts(make_model("llama"), huge, True)
