"""Interventions on planted models, where it is known which direction is read, and the tables they give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
from other_models import state

from activations.engines.hooks import editing, forward
from activations.errors import TwinprobeError
from activations.inputs import encode
from activations.sites import parse_site
from activations.texts import Span
from analyses.intervention_cases import Means, answer_labels
from analyses.interventions import intervene
from analyses.prompts import prompts
from probes.directions import contrast_basis, contrast_direction, project_out, steer
from probes.estimators import LogisticProbe
from probes.metrics import cluster_bootstrap
from probes.tasks import get_task
from probes.tasks.items import Contrast, Form, Item

if TYPE_CHECKING:
    from conftest import MakeModel
    from transformers import PreTrainedTokenizerFast

    from activations.models import LoadedModel

WORDS = {" red": "colour", " box": "thing"}
WIDTH = 48
TEST = 60
"""Test items; twice as many are for training."""


def item(number: int, split: Any, form: Form) -> Item:
    return Item(f"i{number}", "planted", split, f"g{number % 7}", number % 3, {"prose": form})


@pytest.fixture(scope="module")
def items(tokenizer: PreTrainedTokenizerFast) -> list[Item]:
    """Texts that name a colour or a thing among words that have nothing to do with it, each word one token.

    The same words come with a colour and with a thing, so that nothing but the one word can bend a probe's direction.
    """
    others = sorted(word for word in tokenizer.get_vocab() if word[0] == "Ġ" and word[1:].isalpha())
    rng = np.random.default_rng(0)
    made = []
    for number in range(3 * TEST):
        if number % 2 == 0:
            around = rng.choice([word for word in others if word not in ("Ġred", "Ġbox")], 8).tolist()
            cut = int(rng.integers(1, 4))
            start, end = ("".join(part).replace("Ġ", " ") for part in (["the", *around[:cut]], around[cut:]))
        word, other = sorted(WORDS, reverse=bool(number % 2))
        text = start + word + end
        spans = (Span("kind", len(text) - 1, len(text), WORDS[word]),)
        form = Form(text, spans, word, tuple(WORDS), Contrast(start + other + end, other))
        made.append(item(number, "test" if number >= 2 * TEST else "train", form))
    return made


def planted(make_model: MakeModel, writes: Sequence[tuple[int, int]], read: int) -> LoadedModel:
    """A GPT-2 in which attention of some layers copies the named word to every later position.

    Each of ``writes`` is a layer and the first of the two dimensions that it writes, one for each word; the unembedding
    reads the words from dimension ``read`` and the next. Dimension 0 marks the two words, 1 and 2 tell them apart, and
    every query looks for the mark; nothing else writes into the stream, so nothing else can carry the answer.
    """
    loaded = make_model("gpt2", n_head=1, n_embd=WIDTH, tie_word_embeddings=False)
    model = loaded.model
    words = loaded.tokenizer.convert_tokens_to_ids([word.replace(" ", "Ġ") for word in WORDS])
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        embeddings = model.transformer.wte.weight.normal_(std=0.8)
        embeddings[:, :9] = 0
        model.transformer.wpe.weight.zero_()
        model.lm_head.weight.zero_()
        for number, word in enumerate(words):
            embeddings[word, [0, 1 + number]] = 3.0
            model.lm_head.weight[word, read + number] = 2.0
        for norm in [m for m in model.modules() if isinstance(m, torch.nn.LayerNorm)]:
            norm.weight.fill_(1)
            norm.bias.zero_()
        for block in model.transformer.h:
            for written in (*block.attn.c_proj.parameters(), *block.mlp.c_proj.parameters()):
                written.zero_()
        for layer, dimension in writes:
            attention = model.transformer.h[layer].attn
            attention.c_attn.weight.zero_()
            attention.c_attn.bias.zero_()
            attention.c_attn.bias[0] = 60.0  # the query
            attention.c_attn.weight[0, WIDTH] = 1.0  # the key: the mark
            for number in (0, 1):
                attention.c_attn.weight[1 + number, 2 * WIDTH + number] = 1.0
                attention.c_proj.weight[number, dimension + number] = 1.0
    return loaded


def fitted(
    loaded: LoadedModel, items: Sequence[Item], site: str, form: str = "prose", target: str = "kind"
) -> tuple[LogisticProbe, Means]:
    """A probe of the last position's rows of the train items, and the means of these rows."""
    train = [item.as_text(form) for item in items if item.split == "train"]
    labels = np.array([next(span.label for span in text.spans if span.name == target) for text in train])
    rows = []
    for text in encode(loaded.tokenizer, train, True, loaded.context):
        ids = torch.tensor([text.ids])
        rows.append(forward(loaded, ids, torch.ones_like(ids), [parse_site(site)])[parse_site(site)][0, -1])
    features = torch.stack(rows).double().numpy()
    means = {str(label): features[labels == label].mean(axis=0) for label in np.unique(labels)}
    return LogisticProbe(C=10).fit(features, labels), Means(features.mean(axis=0), means)


def intervened(loaded: LoadedModel, items: Sequence[Item], site: str, **changes: Any) -> dict[str, pd.DataFrame]:
    probe, means = fitted(loaded, items, site)
    options = {"bos": True, "clusters": "item", "max_prompts": 99, "n_resamples": 200, **changes}
    return intervene(loaded, "planted", items, "prose", "kind", site, probe, means, **options)


def by_kind(tables: dict[str, pd.DataFrame]) -> tuple[Any, Any]:
    table = tables["interventions"].set_index("kind")
    return table.loc["remove"], table.loc["steer"]


@pytest.fixture(scope="module")
def used(make_model: MakeModel) -> LoadedModel:
    """The word is written in layer 1 at dimensions 3 and 4, and read from there."""
    return planted(make_model, [(1, 3)], read=3)


@pytest.fixture(scope="module")
def tables(used: LoadedModel, items: list[Item]) -> dict[str, pd.DataFrame]:
    return intervened(used, items, "resid_post.1")


@pytest.mark.parametrize("site", ["resid_post.1", "resid_pre.2", "resid_mid.2", "resid_post.2"])
def test_a_direction_that_is_read_kills_and_turns_the_answer(used: LoadedModel, items: list[Item], site: str) -> None:
    found = intervened(used, items, site)
    before = found["intervention_rows"].before.mean()
    assert before > 3
    remove, pushed = by_kind(found)
    assert remove.change == pytest.approx(-before, rel=0.03), "nothing is left of the difference"
    assert 0.25 < remove.accuracy_after < 0.75
    assert pushed.change == pytest.approx(-2 * before, rel=0.03), "it is the other answer, as surely"
    assert (pushed.accuracy_after, pushed.fooled) == (0, 1)
    for line in (remove, pushed):
        assert (line.prompts, line.accuracy_before, line.fooled_before) == (TEST, 1, 0)
        assert abs(line.control) < 0.2 * before
        assert line.accuracy_control > 0.95
        assert line.fooled_control < 0.05
        assert line.diff_low <= line.difference <= line.diff_high < -0.8 * before
        assert line.low <= line.change <= line.high
        assert line.logprob_diff_low <= line.logprob_difference <= line.logprob_diff_high < -0.5
        assert min(line.belief_before, line.belief_control) > 0.95
    assert remove.belief == pytest.approx(0.5, abs=1e-3), "without its directions a probe says the same of every row"
    assert pushed.belief < 0.05


def test_a_direction_that_is_written_but_not_read_does_nothing(make_model: MakeModel, items: list[Item]) -> None:
    """The answer comes by layer 2 and other dimensions, straight from the word; layer 1's copy of it is never read."""
    loaded = planted(make_model, [(1, 3), (2, 7)], read=7)
    found = intervened(loaded, items, "resid_post.1")
    before = found["intervention_rows"].before.mean()
    assert before > 3
    remove, pushed = by_kind(found)
    assert remove.fooled_before == 0, "it is decodable"
    assert pushed.fooled == 1, "and the edit did what it should"
    for line in (remove, pushed):
        assert (line.accuracy_before, line.accuracy_after) == (1, 1)
        assert abs(line.change) < 0.1 * before
    read, turned = by_kind(intervened(loaded, items, "resid_post.2"))
    assert read.change < -0.8 * before, "one layer further on it is read"
    assert turned.accuracy_after == 0


@pytest.mark.parametrize("kind", ["remove", "steer"])
def test_rows_are_those_of_plain_forward_passes(
    used: LoadedModel, items: list[Item], tables: dict[str, pd.DataFrame], kind: str
) -> None:
    probe, means = fitted(used, items, "resid_post.1")
    given, _ = prompts(used, [item for item in items if item.split == "test"], "prose", True)
    rows = tables["intervention_rows"].query("kind == @kind").set_index("item")
    assert list(rows.index) == [prompt.item for prompt in given]
    site = parse_site("resid_post.1")
    labels = dict(zip(used.tokenizer.convert_tokens_to_ids(["Ġred", "Ġbox"]), WORDS.values(), strict=True))
    for prompt in given:
        row = rows.loc[prompt.item]
        assert (row.label, row.contrast_label) == (labels[prompt.answer], labels[prompt.contrast])
        edited, edit = by_hand(probe, means, kind, row.label, row.contrast_label)
        tokens = torch.tensor([prompt.clean])
        with torch.no_grad():
            before = used.model(tokens).logits[0, -1]
            with editing(used, site, edit):
                after = used.model(tokens).logits[0, -1]
        for when, logits in (("before", before), ("after", after)):
            assert row[when] == pytest.approx(float(prompt.logit_difference(logits)), abs=1e-5)
            assert row[f"logprob_{when}"] == pytest.approx(float(logits.log_softmax(0)[prompt.answer]), abs=1e-5)
            if abs(row[when]) > 1e-4:  # what a removal leaves may be a tie
                assert row[f"right_{when}"] == prompt.right(logits)
        [(last, new)] = edited
        assert row.amount == pytest.approx(float((new - last).norm()), rel=1e-4)
        believed = dict(zip(probe.classes_, probe.predict_proba(new.double().numpy())[0], strict=True))
        assert row.belief_after == pytest.approx(believed[row.label], abs=1e-5)
        if kind == "steer":  # after a removal the probe may be in two minds
            assert row.read_after == max(believed, key=lambda label: believed[label])
        assert row.fooled_after == (
            row.read_after != row.label if kind == "remove" else row.read_after == row.contrast_label
        )


def by_hand(
    probe: LogisticProbe, means: Means, kind: str, label: str, contrast: str
) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], Callable[[torch.Tensor], torch.Tensor]]:
    """An edit of the last position and the list of what it has been given and gave."""
    direction = contrast_direction(probe, contrast, label)
    distance = (means.labels[contrast] - means.labels[label]) @ direction
    edited: list[tuple[torch.Tensor, torch.Tensor]] = []

    def edit(tensor: torch.Tensor) -> torch.Tensor:
        last = tensor[:, -1]
        removed, pushed = project_out(last, contrast_basis(probe), means.centre), steer(last, direction, distance)
        new = removed if kind == "remove" else pushed
        edited.append((last, new))
        return torch.cat([tensor[:, :-1], new[:, None]], dim=1)

    return edited, edit


def test_the_summary_is_that_of_the_rows(tables: dict[str, pd.DataFrame]) -> None:
    for line in tables["interventions"].itertuples():
        rows = tables["intervention_rows"].query("kind == @line.kind")
        assert len(rows) == line.prompts == line.clusters == TEST
        change, control = rows.after - rows.before, rows.control - rows.before
        found = cluster_bootstrap(change - control, rows["item"], 200, 0)
        assert (line.difference, line.diff_low, line.diff_high) == pytest.approx(
            (found.estimate, found.low, found.high)
        )
        assert (line.change, line.control) == pytest.approx((change.mean(), control.mean()))
        assert line.logprob_change == pytest.approx((rows.logprob_after - rows.logprob_before).mean())
        assert (line.fooled, line.belief_control) == (rows.fooled_after.mean(), rows.belief_control.mean())
        assert (line.accuracy_after, line.accuracy_control) == (rows.right_after.mean(), rows.right_control.mean())
        assert (line.rank, line.draws, line.dropped, line.why_dropped) == (1, 3, 0, "")
    steered = tables["intervention_rows"].query("kind == 'steer'")
    assert steered.amount_control.to_numpy() == pytest.approx(steered.amount.to_numpy(), rel=1e-4)


def test_the_same_seed_gives_the_same_and_another_only_another_control(
    used: LoadedModel, items: list[Item], tables: dict[str, pd.DataFrame]
) -> None:
    again, other = (intervened(used, items, "resid_post.1", seed=seed) for seed in (0, 1))
    for name, table in tables.items():
        pd.testing.assert_frame_equal(table, again[name])
    first, second = tables["intervention_rows"], other["intervention_rows"]
    assert (first.after == second.after).all()
    assert (first.control != second.control).all()


def test_whole_groups_are_resampled_where_the_task_says_so(used: LoadedModel, items: list[Item]) -> None:
    found = intervened(used, items, "resid_post.1", clusters="group", max_prompts=10, n_draws=1)
    rows = found["intervention_rows"].query("kind == 'remove'")
    line, _ = by_kind(found)
    assert (line.prompts, line.clusters, line.draws) == (10, 7, 1)
    expected = cluster_bootstrap(rows.after - rows.before, rows.group, 200, 0)
    assert (line.low, line.high) == pytest.approx((expected.low, expected.high))
    assert rows["item"].tolist() == [f"i{number}" for number in range(2 * TEST, 2 * TEST + 10)]


def test_the_model_is_left_as_it_was(make_model: MakeModel, items: list[Item]) -> None:
    loaded = planted(make_model, [(1, 3)], read=3)
    before = state(loaded)
    intervened(loaded, items, "resid_post.1", max_prompts=4)
    assert state(loaded) == before


def labelled(text: str, answer: str | None, label: str | None, end: int | None = None) -> Item:
    end = len(text) if end is None else end
    return item(0, "train", Form(text, (Span("kind", end - 1, end, label), Span("other", 0, 1, "no")), answer))


def test_answers_and_labels_are_matched_one_to_one() -> None:
    red, box = labelled("it is", " red", "colour"), labelled("it was", " box", "thing")
    silent = [
        labelled("it is", None, "colour"),
        labelled("it is", " box", None),
        labelled("it is", " box", "colour", 2),
    ]
    elsewhere = replace(red, forms={"code": Form("x", (Span("kind", 0, 1, "thing"),), " red")})
    assert answer_labels([red, box, red, *silent, elsewhere], "prose", "kind") == {" red": "colour", " box": "thing"}
    assert answer_labels(silent, "prose", "kind") == "no text has both an answer and a label of kind at its end"
    two_labels = answer_labels([red, box, labelled("so is", " red", "thing")], "prose", "kind")
    assert two_labels == "answers do not settle the label of kind: answer ' red' goes with 'colour', 'thing'"
    two_answers = answer_labels([red, box, labelled("so is", " green", "colour")], "prose", "kind")
    assert two_answers == "answers do not settle the label of kind: label 'colour' goes with ' green', ' red'"


@pytest.mark.parametrize(("task", "target", "one_to_one"), [("nesting", "closer", 2), ("nesting", "depth", None)])
def test_which_targets_of_a_task_qualify(task: str, target: str, one_to_one: int | None) -> None:
    found = answer_labels(get_task(task).generate(60, 0), "code", target)
    assert found == {")": "round", "]": "square"} if one_to_one else str(found).startswith("answers do not settle")


def test_items_that_can_not_be_used_are_counted(used: LoadedModel, items: list[Item]) -> None:
    def changed(number: int, **fields: Any) -> Item:
        form = items[number].forms["prose"]
        return replace(items[number], forms={"prose": replace(form, **fields)})

    contrast = items[-1].forms["prose"].contrast
    assert contrast is not None
    odd = [
        changed(-4, contrast=replace(contrast, answer=" coin")),  # an answer that no item has
        changed(-3, spans=()),
        changed(-2, contrast=None),
        changed(-1, spans=(), contrast=None),
    ]
    line, _ = by_kind(intervened(used, [*items[:-4], *odd], "resid_post.1"))
    assert (line.prompts, line.dropped) == (TEST - 4, 4)
    assert line.why_dropped == "no contrast (2); no label at the text's end (1); the contrast's answer has no label (1)"


def test_where_nothing_qualifies_the_reason_is_given(used: LoadedModel, items: list[Item]) -> None:
    probe, means = fitted(used, items, "resid_post.1")
    arguments = {"bos": True, "clusters": "item", "max_prompts": 9}
    silent = [replace(each, forms={"prose": replace(each.forms["prose"], spans=())}) for each in items]
    backwards = Means(means.centre, {"colour": means.labels["thing"], "thing": means.labels["colour"]})
    flat = LogisticProbe().fit(np.ones((4, WIDTH)), ["colour", "thing"] * 2)
    cases: list[tuple[list[Item], LogisticProbe, Means, str]] = [
        (silent, probe, means, "no text has both an answer and a label of kind at its end (60)"),
        (items, probe, backwards, "along its direction the means of the two labels are not apart (60)"),
        (items, flat, means, "has length 0; fit the probe on rows that vary"),
    ]
    for given, with_probe, with_means, reason in cases:
        found = intervene(used, "t", given, "prose", "kind", "resid_post.1", with_probe, with_means, **arguments)  # type: ignore[arg-type]
        assert list(found) == ["interventions"]
        for line in by_kind(found):
            assert (line.prompts, line.dropped) == (0, TEST)
            assert reason in line.why_dropped


def test_what_does_not_belong_together_is_refused(
    used: LoadedModel, items: list[Item], tiny: Callable[[str], LoadedModel]
) -> None:
    probe, means = fitted(used, items, "resid_post.1")
    one_label = Means(means.centre, {"colour": means.labels["colour"]})
    narrow = Means(means.centre[1:], means.labels)

    def refused(
        match: str, loaded: LoadedModel = used, site: str = "resid_post.1", given: Means = means, **more: Any
    ) -> None:
        with pytest.raises(TwinprobeError, match=match) as caught:
            intervene(
                loaded, "t", items, "prose", "kind", site, probe, given,
                **{"bos": True, "clusters": "item", "max_prompts": 9, **more},
            )  # fmt: skip
        assert "\n" not in str(caught.value)

    refused("no mean for the probe's label 'thing'", given=one_label)
    refused(r"the centre is for rows of shape \(47,\), but resid_post.1 has \(48,\)", given=narrow)
    refused(r"the probe is for rows of shape \(48,\), but resid_post.1 has \(16,\)", loaded=tiny("llama"))
    refused("layer 7 does not exist", site="resid_post.7")
    refused("0 random draws", n_draws=0)
    with pytest.raises(TwinprobeError, match="is an encoder"):
        intervene(
            tiny("roberta"), "t", items, "prose", "kind", "resid_post.1", *fitted_anywhere(), bos=True, clusters="item",
            max_prompts=9,
        )  # fmt: skip


def fitted_anywhere() -> tuple[LogisticProbe, Means]:
    rows = np.random.default_rng(0).normal(size=(20, 16))
    return LogisticProbe().fit(rows, ["colour", "thing"] * 10), Means(rows[0], {"colour": rows[0], "thing": rows[1]})
