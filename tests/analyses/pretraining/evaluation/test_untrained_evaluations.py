"""Evaluations without training, of models of which it is known what they must score."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from known_answers import N_ITEMS, planted_runs, save, write_items, write_questions
from planted_models import FILLERS, LETTERS

from activations.errors import TwinprobeError
from activations.models import load_model
from activations.texts import Text, write_texts
from analyses.benchmarks.bigbench import read_bigbench
from analyses.benchmarks.bits_per_byte import passages, score
from analyses.benchmarks.multiple_choice import grade, score_choices
from analyses.pretraining.corpora import Document
from analyses.pretraining.evaluation.bits import BitsPerByte, bits_per_byte, held_out
from analyses.pretraining.evaluation.choices import Choices, choices, drawn
from analyses.pretraining.evaluation.inputs import decoder, fitting
from analyses.pretraining.evaluation.models import finished_models
from analyses.pretraining.evaluation.patching import Patching, patching
from analyses.pretraining.evaluation.probing import Probes, probes
from analyses.pretraining.evaluation.run import evaluate, unfinished, units
from analyses.pretraining.evaluation.score import Score
from analyses.pretraining.evaluation.settings import read_evaluations
from analyses.pretraining.packing import write_tokens
from probes.tasks.from_file import read_items

if TYPE_CHECKING:
    from conftest import MakeModel

DOCUMENTS = {
    "code": ["def area(width, height):\n    return width * height\n" * 6, "x = 1\ny = x + 2\n# Þ 漢字 🙂\n" * 8],
    "prose": ["The captain put the coin into the red box. " * 9, "The old man went down to the sea, and smiled. " * 7],
}


@pytest.fixture(scope="module")
def runs(make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The planted models, and one that finds all tokens equally likely; beside them, what their family held out."""
    folder = tmp_path_factory.mktemp("runs")
    found = planted_runs(make_model, folder)
    uniform = make_model("llama", tie_word_embeddings=False)
    uniform.model.lm_head.weight.data.zero_()
    (folder / "data").mkdir()
    documents = [Document(kind, f"{n}", text) for kind, texts in DOCUMENTS.items() for n, text in enumerate(texts)]  # type: ignore[arg-type]
    write_tokens(documents, uniform.tokenizer, 32, folder / "data" / "held-out-")
    uniform.tokenizer.save_pretrained(folder / "data" / "tokenizer")
    return {**found, "uniform": save(uniform, folder, "uniform")}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_items(folder / "letters.jsonl")
    # A letter right after the query, with the space that parts them, is one token: the planted model knows it without.
    write_questions(folder / "bigbench_letters.jsonl", [(f"kl{x}m", [*LETTERS], LETTERS.index(x)) for x in LETTERS] * 3)
    write_questions(folder / "first.jsonl", [("k", ["l", "m"], int(n % 4 == 0)) for n in range(20)])
    return folder


def run(evaluation: Any, table: Any, model: Path, data: Path, scratch: Path) -> dict[str, Score]:
    found = evaluation(table, model, data, scratch, lambda *_: None)
    assert len({score.task for score in found}) == len(found)
    return {score.task: score for score in found}


def test_choices_are_graded_file_by_file(runs: dict[str, Path], data: Path, tmp_path: Path) -> None:
    """A model to which all is equally likely takes the first of equally long choices, right in three of four."""
    table = Choices(name="BB", paths=("bigbench_letters.jsonl", "first.jsonl"))
    found = run(choices, table, runs["uniform"], data, tmp_path)
    assert list(found) == ["BB letters", "BB first"]
    assert found["BB first"].score == pytest.approx(0.75)
    assert found["BB letters"].score == pytest.approx(1 / len(LETTERS))
    assert {score.group for score in found.values()} == {"BIG-bench"}
    assert (found["BB first"].items, found["BB letters"].items) == (20, 24)
    assert found["BB first"].detail == {"acc": 0.75, "acc_norm": 0.75, "chance": 0.5, "items_cut": 0.0}


def test_choices_are_those_of_the_module_and_the_same_for_every_model(
    runs: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    items = read_bigbench(data / "bigbench_letters.jsonl")
    chosen = drawn(items, 9, 4)
    assert drawn(items, 9, 4) == chosen != drawn(items, 9, 5)
    assert drawn(items, len(items), 4) == items
    assert [int(item.id) for item in chosen] == sorted(int(item.id) for item in chosen)
    loaded = load_model(str(runs["copying"]))
    graded = grade(score_choices(loaded, chosen, bos=True))
    for measure in ("acc", "acc_norm"):
        table = Choices(name="BB", paths=("bigbench_letters.jsonl",), max_items=9, seed=4, score=measure)
        found = run(choices, table, runs["copying"], data, tmp_path)["BB letters"]
        assert (found.items, found.score) == (9, graded[measure].mean())


def test_choices_that_can_not_be_read(runs: dict[str, Path], data: Path, tmp_path: Path) -> None:
    with pytest.raises(TwinprobeError, match=r"absent.jsonl: no such file"):
        run(choices, Choices(name="BB", paths=("absent.jsonl",)), runs["base"], data, tmp_path)
    with pytest.raises(TwinprobeError, match=r"\[\[choices\]\] 'BB': two files are called 'first'; give each a table"):
        run(choices, Choices(name="BB", paths=("first.jsonl", "first.jsonl")), runs["base"], data, tmp_path)


def test_held_out_documents_come_back_whole(runs: dict[str, Path]) -> None:
    """All but the end of the last one, which did not fill a block."""
    for kind, texts in DOCUMENTS.items():
        found = held_out(runs["base"], kind)  # type: ignore[arg-type]
        assert [text for _, text in found[:-1]] == texts[:-1]
        last = found[-1][1]
        assert texts[-1].startswith(last)
        assert len(last) > len(texts[-1]) / 2


def test_bits_of_a_uniform_model_are_those_of_its_vocabulary(runs: dict[str, Path], data: Path, tmp_path: Path) -> None:
    table = BitsPerByte(name="bits per byte", passages=4, characters=100)
    found = run(bits_per_byte, table, runs["uniform"], data, tmp_path)
    assert list(found) == ["bits per byte prose", "bits per byte code"]
    vocabulary = load_model(str(runs["uniform"]), check=False).model.config.vocab_size
    for kind, score_ in zip(("prose", "code"), found.values(), strict=True):
        assert (score_.category, score_.group, score_.items) == (kind, "bits per byte (lower is better)", 4)
        assert score_.detail["bits_per_token"] == pytest.approx(math.log2(vocabulary), rel=1e-5)
        assert 0 < score_.score < score_.detail["bits_per_token"]


def test_bits_of_one_s_own_texts(runs: dict[str, Path], tmp_path: Path) -> None:
    write_texts(tmp_path / "own.jsonl", [Text(f"{n}", text) for n, text in enumerate(DOCUMENTS["prose"])])
    table = BitsPerByte(name="own", kinds=("prose",), prose="own.jsonl", passages=3, characters=80, seed=2)
    (found,) = run(bits_per_byte, table, runs["base"], tmp_path, tmp_path / "scratch").values()
    texts = passages("prose", str(tmp_path / "own.jsonl"), 3, 80, 2)
    expected = score(load_model(str(runs["base"])), texts, bos=True)
    assert found.score == pytest.approx(expected.bits.sum() / expected.bytes.sum(), rel=1e-6)


def test_bits_without_held_out_text(runs: dict[str, Path], make_model: MakeModel, tmp_path: Path) -> None:
    alone = save(make_model("llama"), tmp_path / "elsewhere", "a")
    table = BitsPerByte(name="bits", kinds=("code",))
    with pytest.raises(TwinprobeError, match='holds no held-out code; name a JSONL file of texts with code = "FILE"'):
        run(bits_per_byte, table, alone, tmp_path, tmp_path)


def test_probes_read_what_is_there_and_not_what_a_coin_says(runs: dict[str, Path], data: Path, tmp_path: Path) -> None:
    """The last token holds the letter from the copying head on; nothing holds the coin."""
    table = Probes(name="letters", task="items:letters.jsonl", items=N_ITEMS, sites="embed,resid_post.1")
    found = run(probes, table, runs["copying"], data, tmp_path)
    letter, coin = found["letters letter formal"], found["letters coin formal"]
    assert len(found) == 2
    assert letter.score == 1.0
    assert letter.detail["layer"] == 1
    assert coin.score < 0.8
    assert (letter.category, letter.group, letter.items) == ("formal", "probes", coin.items)
    assert letter.detail["selectivity"] == pytest.approx(letter.score - letter.detail["control"])
    one = Probes(name="x", task="items:letters.jsonl", items=N_ITEMS, sites="embed", targets=("letter",))
    (below,) = run(probes, one, runs["copying"], data, tmp_path / "embed").values()
    assert below.detail["layer"] == -1
    assert below.score < 0.8


def test_what_patching_says_of_a_planted_head(runs: dict[str, Path], data: Path, tmp_path: Path) -> None:
    """The copying model answers every text; its head alone restores the answer, which then is at the last token.

    The head writes in layer 1 of 3: below it the last position restores nothing, above it everything.
    """
    table = Patching(name="copy", task="items:letters.jsonl", items=N_ITEMS, prompts=20, patched=6)
    found = run(patching, table, runs["copying"], data, tmp_path)
    assert list(found) == [f"copy formal {name}" for name in ("right", "retained", "arrival", "best head")]
    right, retained, arrival, head = found.values()
    assert (right.score, right.items, right.group) == (1.0, 20, "answers")
    assert (retained.score, retained.items) == (1.0, 20)
    assert (arrival.items, head.items, arrival.group) == (6, 6, "patching")
    assert arrival.score == pytest.approx(1 / 3, abs=1e-3)
    assert arrival.detail == pytest.approx({"layer 0": 0, "layer 1": 0, "layer 2": 1}, abs=1e-3)
    assert head.score == pytest.approx(1.0, abs=1e-3)
    assert head.detail == {"layer": 1.0, "head": 3.0}


@pytest.mark.parametrize(
    ("model", "settings"), [("base", {}), ("copying", {"patched": 0}), ("copying", {"fewest": 21})]
)
def test_without_prompts_to_patch_there_are_no_scores_of_patching(
    runs: dict[str, Path], data: Path, tmp_path: Path, model: str, settings: dict[str, int]
) -> None:
    """The base model prefers the right letter by next to nothing, so it retains nothing."""
    table = Patching(name="copy", task="items:letters.jsonl", items=N_ITEMS, prompts=20, **settings)
    right, retained = run(patching, table, runs[model], data, tmp_path).values()
    assert (right.task, retained.task) == ("copy formal right", "copy formal retained")
    assert retained.score == float(model == "copying")
    assert right.score == 1.0
    assert right.detail["gap_too_small"] == (20 if model == "base" else 0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('[[probes]]\nname = "p"\ntask = "nestling"', r"unknown task 'nestling' \(did you mean 'nesting'"),
        ('[[probes]]\nname = "p"\ntask = "nesting"\nforms = ["verse"]', "task 'nesting' has no form verse"),
        (
            '[[probes]]\nname = "p"\ntask = "nesting"\ntargets = ["deep"]',
            r"\[\[probes\]\] 'p': task 'nesting' has no target",
        ),
        ('[[probes]]\nname = "p"\ntask = "nesting"\nfamily = "logit"', "logit"),
        (
            '[[patching]]\nname = "p"\ntask = "identifiers"',
            r"\[\[patching\]\] 'p': task 'identifiers' has no contrasts",
        ),
        ('[[choices]]\nname = "c"\npaths = []', "field 'choices.0.paths'"),
        ('[[choices]]\nname = "c"\npaths = ["a"]\nscore = "f1"', "field 'choices.0.score'"),
        ('[[bits_per_byte]]\nname = "b"\nkinds = ["verse"]', r"field 'bits_per_byte.0.kinds.0'"),
    ],
)
def test_tables_that_are_refused_when_read(tmp_path: Path, table: str, message: str) -> None:
    (tmp_path / "e.toml").write_text(table)
    with pytest.raises(TwinprobeError, match=message) as caught:
        read_evaluations(tmp_path / "e.toml")
    assert "\n" not in str(caught.value)


def test_items_that_do_not_fit_the_context_are_left_out_and_counted(
    runs: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    """A form too long, or a contrast, takes the item away; the rest score as if it had never been there."""
    lines = [json.loads(line) for line in (data / "letters.jsonl").read_text().splitlines()]
    long = "".join(FILLERS) * 12
    lines[3]["forms"]["formal"] |= {"text": long + lines[3]["forms"]["formal"]["text"]}
    lines[7]["forms"]["formal"]["contrast"]["text"] += long
    (tmp_path / "some.jsonl").write_text("\n".join(map(json.dumps, lines)))
    loaded, bos = decoder(runs["copying"])
    items = read_items(tmp_path / "some.jsonl")
    kept, count = fitting(loaded, items, bos)
    assert count == 2
    assert [item.id for item in items if item not in kept] == ["3", "7"]
    for evaluation, table in (
        (probes, Probes(name="p", task="items:some.jsonl", targets=("letter",), sites="resid_post.1")),
        (patching, Patching(name="p", task="items:some.jsonl", patched=0)),
    ):
        for found in run(evaluation, table, runs["copying"], tmp_path, tmp_path / "scratch").values():
            assert (found.score, found.detail["items_too_long"]) == (1.0, 2.0)


def test_all_kinds_run_from_a_file(runs: dict[str, Path], data: Path, tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text(
        """
        [[choices]]
        name = "BIG-bench"
        paths = ["first.jsonl"]
        [[bits_per_byte]]
        name = "bits per byte"
        passages = 2
        characters = 60
        [[probes]]
        name = "probe"
        task = "items:letters.jsonl"
        targets = ["letter"]
        sites = "resid_post.1"
        [[patching]]
        name = "copy"
        task = "items:letters.jsonl"
        prompts = 10
        patched = 5
        """
    )
    work = units(finished_models(runs["base"].parents[1], ["copying"]), read_evaluations(tmp_path / "e.toml"))
    assert evaluate(unfinished(work, tmp_path / "out"), data, tmp_path / "out", lambda *_: None, lambda _: None) == []
    told = [
        score
        for unit in work
        for score in json.loads(unit.place(tmp_path / "out").read_text(encoding="utf-8"))["scores"]
    ]
    assert [score["task"] for score in told] == [
        "BIG-bench first", "bits per byte prose", "bits per byte code", "probe letter formal", "copy formal right",
        "copy formal retained", "copy formal arrival", "copy formal best head",
    ]  # fmt: skip
    assert all(math.isfinite(score["score"]) for score in told)
