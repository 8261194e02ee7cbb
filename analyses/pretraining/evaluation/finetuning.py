"""Fine-tune a model on a transformation of sentences, and score whole targets by kind of example.

The use of Petty et al. 2024 (arXiv 2409.04556): every model of a family is fine-tuned alike on COGS, its variable-free version
and English passivization, and its full-sequence accuracy on the generalisation set is set against the share of code.
"""

from __future__ import annotations

import json
import time
import tomllib
from collections import defaultdict
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from activations.errors import TwinprobeError
from activations.files import write_whole
from analyses.pretraining.evaluation.score import Evaluation, Score
from analyses.pretraining.evaluation.transformations import CategoryFrom, Example, read_examples, sample
from analyses.pretraining.loop import Batch, Report, loss_function, optimise
from analyses.pretraining.prompted import Prompted, pad
from analyses.pretraining.tables import Optimisation

if TYPE_CHECKING:
    from transformers import PreTrainedModel


IN_DISTRIBUTION, GENERALISATION = "in distribution", "generalisation"
LONGER = "longer than the context"


class Finetune(Optimisation, Evaluation):
    """A ``[[finetune]]`` table: which examples, and how long to train on them."""

    train: str
    """Files of examples, from the folder of the data; see :mod:`analyses.pretraining.evaluation.transformations`."""
    test: str | None = None
    gen: str | None = None
    category_from: CategoryFrom = "column"
    categories: str | dict[str, str] = Field(default_factory=dict)
    """Kind of each category of ``gen``, such as lexical and structural, or the name of a data set known here (``cogs``,
    ``slog``); without it they are of one kind, generalisation."""
    zip_password: str | None = None
    train_examples: int | None = Field(None, gt=0)
    """At most so many examples of each category; without it all."""
    test_examples: int | None = Field(None, gt=0)
    gen_examples: int | None = Field(None, gt=0)
    separator: str = Field("\n", min_length=1)
    epochs: float = Field(3, gt=0)
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    """Orders of the examples; a model is fine-tuned anew for each, and its score is the mean."""
    group: str = "fine-tuned"
    batch: int = Field(128, gt=0)
    learning_rate: float = Field(1e-3, gt=0)

    @model_validator(mode="after")
    def _scored_on_something(self) -> Finetune:
        if self.test is None and self.gen is None:
            raise ValueError("nothing to score; expected a file of examples as test or gen")
        return self


def finetune(table: Finetune, model_folder: Path, data_dir: Path, scratch: Path, report: Report) -> list[Score]:
    """Fine-tune once per seed and score the mean over seeds: one task in distribution, one per kind of generalisation.

    Raises:
        TwinprobeError: see :func:`read_examples`; the model or its tokenizer can not be used, or a category has no kind.
    """
    sets = scored_sets(table, data_dir)
    train = sample(read_examples(data_dir / table.train, table.category_from, table.zip_password), table.train_examples)
    results = [_one_seed(table, seed, model_folder, train, sets, scratch, report) for seed in table.seeds]
    scores = []
    for kind, examples in sets.items():
        right = np.mean([result[kind] for result in results], axis=0)
        detail = {category: float(value) for category, value in _by_category(examples, right).items()}
        for seed, result in zip(table.seeds, results, strict=True):
            detail[f"seed {seed}"] = float(np.mean(result[kind]))
        detail[LONGER] = float(results[0][f"{kind}, {LONGER}"])
        scores.append(Score(f"{table.name} {kind}", float(right.mean()), kind, table.group, len(examples), detail))
    return scores


def scored_sets(table: Finetune, data_dir: Path) -> dict[str, list[Example]]:
    """The examples to score, by kind."""
    sets: dict[str, list[Example]] = {}
    if table.test is not None:
        examples = read_examples(data_dir / table.test, table.category_from, table.zip_password)
        sets[IN_DISTRIBUTION] = sample(examples, table.test_examples)
    if table.gen is not None:
        kinds = known_categories(table.categories) if isinstance(table.categories, str) else table.categories
        by_kind = defaultdict(list)
        path = data_dir / table.gen
        for example in sample(read_examples(path, table.category_from, table.zip_password), table.gen_examples):
            if kinds and example.category not in kinds:
                raise TwinprobeError(
                    f"{path}: category {example.category!r} has no kind; expected {', '.join(kinds)} (see 'categories')"
                )
            by_kind[kinds.get(example.category, GENERALISATION)].append(example)
        sets |= {kind: by_kind[kind] for kind in sorted(by_kind)}
    return sets


def known_categories(name: str) -> dict[str, str]:
    """The kinds of the categories of a published data set.

    Raises:
        TwinprobeError: none is known by that name.
    """
    text = files("analyses.pretraining.evaluation").joinpath("categories.toml").read_text(encoding="utf-8")
    known: dict[str, dict[str, str]] = tomllib.loads(text)
    if name not in known:
        raise TwinprobeError(
            f"no kinds of categories are known for {name!r}; expected {', '.join(known)}, or a table of categories"
        )
    return known[name]


def _by_category(examples: Sequence[Example], right: npt.NDArray[np.float64]) -> dict[str, float]:
    places: dict[str, list[int]] = defaultdict(list)
    for place, example in enumerate(examples):
        places[example.category].append(place)
    return {category: float(right[chosen].mean()) for category, chosen in sorted(places.items()) if category}


def _one_seed(
    table: Finetune,
    seed: int,
    model_folder: Path,
    train: Sequence[Example],
    sets: dict[str, list[Example]],
    scratch: Path,
    report: Report,
) -> dict[str, Any]:
    """Which examples of each set a model fine-tuned with this seed gets right, and how many are too long for it."""
    written = scratch / f"seed-{seed}.json"
    if written.exists():
        result: dict[str, Any] = json.loads(written.read_text())
        return result
    from transformers import AutoTokenizer

    from analyses.pretraining.evaluation.matching import exact_matches, fits
    from analyses.pretraining.evaluation.sequences import encode

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = load(model_folder)
    stage = f"seed {seed}" if len(table.seeds) > 1 else ""
    training = [item for item in encode(tokenizer, train, table.separator) if fits(model, item)]
    if not training:
        raise TwinprobeError(f"{table.train}: no example fits the context of {model_folder}; give shorter ones")
    train_model(model, training, table, seed, scratch / f"seed-{seed}.pt", stage, report)
    result = {}
    for kind, examples in sets.items():
        sequences = encode(tokenizer, examples, table.separator)
        result[kind] = exact_matches(model, sequences).tolist()
        result[f"{kind}, {LONGER}"] = sum(not fits(model, item) for item in sequences)
    write_whole(written, json.dumps(result).encode())
    return result


def load(model_folder: Path) -> PreTrainedModel:
    """The model in float32, from safetensors."""
    import torch
    from transformers import AutoModelForCausalLM

    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        model_folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    return model


def finetune_seconds(table: Finetune, model_folder: Path, data_dir: Path) -> float:
    """How long :func:`finetune` will take, from a step of training on examples of usual length."""
    from transformers import AutoTokenizer

    from analyses.pretraining.evaluation.sequences import encode, training_order

    train = sample(read_examples(data_dir / table.train, table.category_from, table.zip_password), table.train_examples)
    sequences = encode(AutoTokenizer.from_pretrained(model_folder), train, table.separator)
    steps = len(training_order([len(item.ids) for item in sequences], table.batch, table.epochs, 0))
    usual = sorted(sequences, key=lambda item: len(item.ids))[len(sequences) // 2 :][: table.batch]
    model = load(model_folder)
    loss_of, batch = loss_function(model, table.precision), pad(usual)
    times = []
    for _ in range(3):
        began = time.monotonic()
        loss_of(batch.ids, batch.labels).backward()
        times.append(time.monotonic() - began)
    return min(times) * steps * len(table.seeds)


def train_model(
    model: PreTrainedModel,
    training: Sequence[Prompted],
    table: Finetune,
    seed: int,
    checkpoint: Path,
    name: str,
    report: Report,
) -> list[float]:
    """Fine-tune in place on the examples in the order of the seed; return the loss of every step."""
    from analyses.pretraining.evaluation.sequences import training_order

    order = training_order([len(item.ids) for item in training], table.batch, table.epochs, seed)

    def batch_at(step: int) -> Batch:
        return pad([training[place] for place in order[step]])

    return optimise(model, batch_at, len(order), table, checkpoint, name, report)
