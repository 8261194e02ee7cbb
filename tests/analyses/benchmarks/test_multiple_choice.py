"""Multiple choice: equal to a plain computation one choice at a time, and graded as known answers must be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pandas as pd
import pytest
import torch
from conftest import CORPUS, MakeModel, MakeTokenizer
from planted_models import LETTERS, copying

from activations.errors import TwinprobeError
from activations.models import wrap
from analyses.benchmarks.multiple_choice import Item, grade, score_choices

if TYPE_CHECKING:
    from activations.models import LoadedModel

Tiny = Callable[[str], "LoadedModel"]
ITEMS = [
    Item("colour", "prose", "The captain put the coin into the ", ("red box", "red", "girl who saw it 漢字"), (0,)),
    Item("plain", "prose", "The old man went down to the", (" sea", " sea and smiled."), (1,)),
    Item("none", "prose", "", ("The", "x = 1"), (0,)),
    Item("sum", "code", "x = 1\ny = x + 2\nprint(y)\n# the value of y is \n", ("1", "2", "3"), (2, 1)),
    Item("melted", "code", "total = widt", ("h", "h * height"), (0,)),
    *(Item(f"corpus-{number}", "corpus", text[:40], (text[40:60], "x"), (0,)) for number, text in enumerate(CORPUS)),
]


def ids(loaded: LoadedModel, text: str) -> list[int]:
    return list(loaded.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def plain(loaded: LoadedModel, context: str, choice: str, opening: Sequence[int]) -> tuple[float, int]:
    """Log-likelihood of what the choice adds to the context's tokens, and how many; one text, every logit, no batch."""
    stripped = context.rstrip()
    whole = ids(loaded, context + choice)
    start = min(len(ids(loaded, stripped)), len(whole) - 1)
    opening = list(opening) or ([] if start else [loaded.tokenizer.bos_token_id])
    tokens = torch.tensor([[*opening, *whole]])
    with torch.no_grad():
        logs = loaded.model(tokens).logits[0].log_softmax(-1)
    places = range(len(opening) + start, tokens.shape[1])
    return sum(float(logs[place - 1, tokens[0, place]]) for place in places), len(places)


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_it_is_the_plain_computation(tiny: Tiny, architecture: str, bos: bool) -> None:
    loaded = tiny(architecture)
    table = score_choices(loaded, ITEMS, bos=bos)
    assert len(table) == sum(len(item.choices) for item in ITEMS)
    lines = table.itertuples()
    for item in ITEMS:
        for number, choice in enumerate(item.choices):
            line = next(lines)
            expected, count = plain(loaded, item.context, choice, [loaded.tokenizer.bos_token_id] if bos else [])
            assert (line.subject, line.item, line.choice) == (item.subject, item.id, number)
            assert line.log_likelihood == pytest.approx(expected, rel=1e-4, abs=1e-4)
            assert (line.tokens, line.bytes, line.cut) == (count, len(choice.encode()), 0)
            assert line.gold == (number in item.gold)


def test_white_space_moves_to_the_choice_and_does_not_count_for_its_length(tiny: Tiny) -> None:
    """The context's last space opens the choice's first token; a context cut with it would have a token of its own."""
    loaded = tiny("llama")
    spaced = Item("spaced", "s", "put the coin ", ("into", "to"), (0,))
    joined = Item("joined", "s", "put the coin", (" into", " to"), (0,))
    table = score_choices(loaded, [spaced, joined], bos=True)
    first, second = table[table["item"] == "spaced"], table[table["item"] == "joined"]
    assert first.log_likelihood.tolist() == second.log_likelihood.tolist()
    assert first.bytes.tolist() == [4, 2]
    assert second.bytes.tolist() == [5, 3]


def test_choices_of_one_token_are_run_once(tiny: Tiny) -> None:
    loaded = tiny("llama")
    rows = []
    handle = loaded.module("embed").register_forward_pre_hook(lambda _module, args: rows.append(len(args[0])))
    try:
        table = score_choices(loaded, [Item("a", "s", "x = 1 and", (" 1", " 2", " x", " name"), (0,))], bos=True)
    finally:
        handle.remove()
    assert table.tokens.tolist() == [2, 2, 1, 1] or table.tokens.tolist() == [1, 1, 1, 1]
    assert sum(rows) == table.tokens.nunique()


def test_batches_do_not_matter(tiny: Tiny) -> None:
    loaded = tiny("llama")
    steps: list[tuple[int, int]] = []
    whole = score_choices(loaded, ITEMS, bos=True, progress=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (len(whole), len(whole))
    for batch_tokens in (1, 60, 300):
        other = score_choices(loaded, ITEMS, bos=True, batch_tokens=batch_tokens)
        pd.testing.assert_frame_equal(other, whole, rtol=1e-4)
    turned = score_choices(loaded, ITEMS[::-1], bos=True).set_index(["item", "choice"])
    pd.testing.assert_frame_equal(turned.loc[whole.set_index(["item", "choice"]).index].reset_index(drop=True),
                                  whole.drop(columns=["item", "choice"]), rtol=1e-4)  # fmt: skip


@pytest.mark.parametrize("bos", [True, False])
def test_a_long_context_loses_its_left_end(tiny: Tiny, bos: bool) -> None:
    """What is run is BOS and the last tokens, as many as fit; the count says how many are gone."""
    loaded = tiny("llama")
    context, choice = "".join(CORPUS) * 2, " and the old man smiled"
    whole, start = ids(loaded, context + choice), len(ids(loaded, context.rstrip()))
    (line, _) = score_choices(loaded, [Item("long", "s", context, (choice, "x"), (0,))], bos=bos).itertuples()
    opening = [loaded.tokenizer.bos_token_id] if bos else []
    kept = whole[-(loaded.context + 1 - len(opening)) :]
    assert line.cut == len(whole) - len(kept) > 0
    tokens = torch.tensor([[*opening, *kept]])
    with torch.no_grad():
        logs = loaded.model(tokens[:, :-1]).logits[0].log_softmax(-1)
    expected = sum(float(logs[place, tokens[0, place]]) for place in range(start - len(whole), 0))
    assert logs.shape[0] == loaded.context
    assert line.tokens == len(whole) - start
    assert line.log_likelihood == pytest.approx(expected, rel=1e-4)
    assert (
        grade(score_choices(loaded, [Item("long", "s", context, (choice, "x"), (0,))], bos=bos)).cut.item() == line.cut
    )


def test_a_model_that_knows_the_answer_is_right_and_one_that_knows_another_wrong(make_model: MakeModel) -> None:
    """The planted model goes on with the only letter of its prompt, by a head that is known."""
    loaded = copying(make_model).loaded
    right, wrong, chances = [], [], []
    for number, letter in enumerate(LETTERS):
        choices = tuple(LETTERS[number:] + LETTERS[:number])
        others = tuple(place for place, other in enumerate(choices) if other != letter)
        context = f"klm{letter}nop"
        right.append(Item(letter, "right", context, choices, (choices.index(letter),)))
        wrong.append(Item(letter, "wrong", context, choices, others))
        chances.append(1 / len(choices))
    found = (
        grade(score_choices(loaded, right + wrong, bos=True)).groupby("subject")[["acc", "acc_norm", "chance"]].mean()
    )
    assert found.loc["right"].tolist() == [1.0, 1.0, 1 / 8]
    assert found.loc["wrong"].tolist() == [0.0, 0.0, 7 / 8]


def test_a_model_that_always_says_the_same_is_right_as_often_as_that_is_right(
    make_model: MakeModel, make_tokenizer: MakeTokenizer
) -> None:
    """Every token is equally likely, so all choices of one token tie and the first is picked; per byte, the longest is."""
    loaded = make_model("llama", tie_word_embeddings=False)
    loaded.model.lm_head.weight.data.zero_()
    loaded = wrap(loaded.model, make_tokenizer(), "constant")
    items = [Item(str(n), "s", "x = 1 and", (" x", " name"), (int(n % 5 == 0),)) for n in range(20)]
    table = score_choices(loaded, items, bos=True)
    assert table.tokens.tolist() == [1] * 40
    assert table.log_likelihood.nunique() == 1
    graded = grade(table)
    assert graded.picked.tolist() == [0] * 20
    assert graded.picked_norm.tolist() == [1] * 20
    assert graded.acc.mean() == pytest.approx(0.8)
    assert graded.acc_norm.mean() == pytest.approx(0.2)
    assert graded.chance.tolist() == [0.5] * 20


def test_grading_of_given_log_likelihoods() -> None:
    table = pd.DataFrame(
        {
            "subject": ["s"] * 5, "item": ["a", "a", "a", "b", "b"], "choice": [0, 1, 2, 0, 1],
            "gold": [True, False, True, False, True], "log_likelihood": [-6.0, -2.0, -9.0, -1.0, -3.0], "tokens": 1,
            "bytes": [6, 1, 10, 1, 2], "cut": [0, 3, 0, 0, 0],
        }
    )  # fmt: skip
    first, second = grade(table).itertuples()
    assert (first.item, first.picked, first.acc, first.picked_norm, first.acc_norm, first.cut) == ("a", 1, 0, 2, 1, 3)
    assert (second.item, second.picked, second.acc, second.picked_norm, second.acc_norm, second.cut) == (
        "b",
        0,
        0,
        0,
        0,
        0,
    )
    assert (first.chance, first.choices) == (pytest.approx(2 / 3), 3)


@pytest.mark.parametrize(
    ("choices", "gold", "message"),
    [
        (("a",), (0,), r"item 'i' of s: choices \('a',\); expected 2 or more, none of them empty"),
        (("a", ""), (0,), "none of them empty"),
        (("a", "b"), (), "right choices .*expected 1 or more numbers from 0 to 1"),
        (("a", "b"), (2,), "numbers from 0 to 1"),
        (("a", "b"), (-1,), "numbers from 0 to 1"),
    ],
)
def test_items_that_are_none(choices: tuple[str, ...], gold: tuple[int, ...], message: str) -> None:
    with pytest.raises(TwinprobeError, match=message):
        Item("i", "s", "context", choices, gold)


def test_what_can_not_be_scored(tiny: Tiny) -> None:
    loaded = tiny("llama")
    long = " ".join(CORPUS)
    with pytest.raises(
        TwinprobeError, match=r"item 'i' of s: choice 1 has \d+ tokens, .* context of 96; leave such items"
    ):
        score_choices(loaded, [Item("i", "s", "x", ("a", long), (0,))], bos=True)
    item = Item("i", "s", "x", ("a", "b"), (0,))
    with pytest.raises(TwinprobeError, match="two items of s have the id 'i'"):
        score_choices(loaded, [item, item], bos=True)
    with pytest.raises(TwinprobeError, match="is an encoder; .* need decoders"):
        score_choices(tiny("roberta"), [item], bos=True)
