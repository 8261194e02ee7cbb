"""Fine-tuning: what was learnt is scored as right, by kind, and a killed one goes on to the same weights."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from real_examples import real
from toy_family import EVALUATION, RIGHT, write_examples, write_model

from activations.errors import TwinprobeError
from analyses.pretraining.evaluation.finetuning import (
    Finetune,
    finetune,
    finetune_seconds,
    load,
    scored_sets,
    train_model,
)
from analyses.pretraining.evaluation.sequences import encode
from analyses.pretraining.evaluation.settings import read_evaluations
from analyses.pretraining.evaluation.transformations import Example

if TYPE_CHECKING:
    from conftest import MakeModel
    from transformers import PreTrainedTokenizerFast

KILLED_AT = 13


def silent(*_: object) -> None:
    """No progress."""


@pytest.fixture(scope="module")
def model_folder(make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(make_model, tmp_path_factory.mktemp("runs"), "text")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_examples(tmp_path_factory.mktemp("data"))
    (folder / "evaluation.toml").write_text(EVALUATION)
    return folder


@pytest.fixture(scope="module")
def table(data: Path) -> Finetune:
    return read_evaluations(data / "evaluation.toml").finetune[0]


def changed(table: Finetune, **fields: Any) -> Finetune:
    return Finetune.model_validate({**table.model_dump(), **fields})


def test_what_is_learnt_is_right_and_the_rest_is_wrong(
    table: Finetune, model_folder: Path, data: Path, tmp_path: Path
) -> None:
    before = (model_folder / "model.safetensors").read_bytes()
    scores = finetune(changed(table, seeds=[0, 1]), model_folder, data, tmp_path, silent)
    assert (model_folder / "model.safetensors").read_bytes() == before
    found = {score.task: (score.score, score.category, score.group, score.items) for score in scores}
    assert found == {
        "swap in distribution": (1.0, "in distribution", "fine-tuned", 7),
        "swap lexical": (1.0, "lexical", "fine-tuned", 7),
        "swap structural": (0.0, "structural", "fine-tuned", 7),
    }
    assert scores[2].detail == {"hard": 0.0, "seed 0": 0.0, "seed 1": 0.0, "longer than the context": 0.0}


def test_a_model_that_was_not_fine_tuned_is_wrong(
    table: Finetune, model_folder: Path, data: Path, tmp_path: Path
) -> None:
    scores = finetune(changed(table, epochs=0.1, learning_rate=1e-9), model_folder, data, tmp_path, silent)
    assert [score.score for score in scores] == [0.0, 0.0, 0.0]


def test_seeds_that_are_done_are_not_done_again(
    table: Finetune, model_folder: Path, data: Path, tmp_path: Path
) -> None:
    """The score is the mean over seeds: here of one that was written before and of one that learns everything."""
    kinds = ("in distribution", "lexical", "structural")
    written = {kind: [True, *[False] * 6] for kind in kinds} | {f"{kind}, longer than the context": 2 for kind in kinds}
    (tmp_path / "seed-5.json").write_text(json.dumps(written))
    scores = finetune(changed(table, seeds=[5, 0]), model_folder, data, tmp_path, silent)
    assert [round(score.score * 14) for score in scores] == [8, 8, 1]
    assert scores[0].detail["seed 5"] == pytest.approx(1 / 7) and scores[0].detail["longer than the context"] == 2


def test_a_killed_fine_tuning_goes_on_to_the_same_weights(table: Finetune, model_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(model_folder)
    training = encode(tokenizer, [Example(*pair, "") for pair in RIGHT], "\n")
    settings = changed(table, batch=2, epochs=6, checkpoint_every=5)

    def kill(_name: str, step: int, _steps: int, _note: str) -> None:
        if step == KILLED_AT:
            raise KeyboardInterrupt

    whole, killed, resumed = (load(model_folder) for _ in range(3))
    losses = train_model(whole, training, settings, 0, tmp_path / "whole.pt", "", silent)
    with pytest.raises(KeyboardInterrupt):
        train_model(killed, training, settings, 0, tmp_path / "cut.pt", "", kill)
    assert train_model(resumed, training, settings, 0, tmp_path / "cut.pt", "", silent) == losses
    assert len(losses) == 24
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not all(torch.equal(one, other) for one, other in zip(whole.parameters(), killed.parameters(), strict=True))


def test_the_order_of_the_examples_is_the_seed_s(table: Finetune, model_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    training = encode(AutoTokenizer.from_pretrained(model_folder), [Example(*pair, "") for pair in RIGHT], "\n")
    settings = changed(table, batch=2, epochs=2)
    losses = [
        train_model(load(model_folder), training, settings, seed, tmp_path / "none.pt", "", silent)
        for seed in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_examples_longer_than_the_context_are_counted(table: Finetune, model_folder: Path, tmp_path: Path) -> None:
    data = write_examples(tmp_path / "data")
    long = "\t".join(("the box " * 60, "the box " * 60, "hard"))
    for name in ("train.tsv", "gen.tsv"):
        with (data / name).open("a") as handle:
            handle.write(f"{long}\n")
    scores = {score.category: score for score in finetune(table, model_folder, data, tmp_path, silent)}
    assert scores["in distribution"].score == pytest.approx(7 / 8)
    assert [scores[kind].detail["longer than the context"] for kind in ("lexical", "structural")] == [0, 1]
    only_long = write_examples(tmp_path / "only-long")
    (only_long / "train.tsv").write_text(f"{long}\n")
    with pytest.raises(TwinprobeError, match=r"train.tsv: no example fits the context"):
        finetune(changed(table, name="other"), model_folder, only_long, tmp_path / "data", silent)


def test_a_category_without_a_kind_is_refused(table: Finetune, model_folder: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(TwinprobeError, match=r"gen.tsv: category 'hard' has no kind; expected easy"):
        finetune(changed(table, categories={"easy": "lexical"}), model_folder, data, tmp_path, silent)
    one_kind = finetune(changed(table, categories={}, test=None), model_folder, data, tmp_path, silent)
    assert [(score.task, score.score, score.items) for score in one_kind] == [("swap generalisation", 0.5, 14)]


def test_the_time_it_takes_grows_with_the_work(table: Finetune, model_folder: Path, data: Path) -> None:
    once = finetune_seconds(table, model_folder, data)
    assert 0 < once * 5 < finetune_seconds(changed(table, epochs=600, seeds=[0, 1]), model_folder, data)


def test_the_shipped_evaluation_fits_the_published_files() -> None:
    shipped = read_evaluations(str(files("analyses.pretraining") / "mixture_evaluation.toml"))
    found = {table.name: scored_sets(table, real(table.train).parents[1]) for table in shipped.finetune}
    assert {name: [*sets] for name, sets in found.items()} == {
        "COGS-vf": ["in distribution", "lexical", "structural"],
        "passivization": ["in distribution", "generalisation"],
    }
    each = next(table for table in shipped.finetune if table.name == "COGS-vf").gen_examples
    assert each and [len(found["COGS-vf"][kind]) for kind in ("lexical", "structural")] == [18 * each, 3 * each]
