"""A pretraining design: one TOML file that names the data, the architecture, and one run per model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from activations.errors import TwinprobeError
from analyses.pretraining.family import Family as Family
from analyses.pretraining.family import Run as Run
from analyses.pretraining.family import Serves as Serves
from analyses.pretraining.family import expand
from analyses.pretraining.tables import Kind as Kind
from analyses.pretraining.tables import Optimisation as Optimisation
from analyses.pretraining.tables import Table as Table
from analyses.pretraining.tuning_design import Tuning, check_tuning
from analyses.toml_files import read_toml


class Data(Table):
    """Documents of one kind: files (``path``), or a data set that the ``datasets`` library reads (``dataset``)."""

    kind: Kind
    path: str | None = None
    """A folder, a ``.tar.gz``, a ``.jsonl`` (``path`` and ``text`` keys) or a ``.txt``."""
    dataset: str | None = None
    """``org/name`` on the hub, or a folder; each row is a document, called ``<dataset>/<number of the row>``."""
    config: str | None = None
    split: str = "train"
    column: str = "text"
    revision: str | None = None
    licence: str
    characters: int | None = Field(None, gt=0)
    """Read no further document once so many characters to train on have been read; without it all are."""
    left_out: tuple[str, ...] = ()
    """Name patterns (``fnmatch``) of files that are no training text, such as licences."""
    held_out: tuple[str, ...] = ()
    """Name patterns (``fnmatch``) of documents that are never trained on."""
    held_out_tail: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(default_factory=dict)
    """Name pattern to the share of each matching document's end that is never trained on."""

    @property
    def source(self) -> str:
        """What is read, for people."""
        if self.path is not None:
            return self.path
        chosen = [f"{key} {value}" for key in ("config", "revision") if (value := getattr(self, key))]
        return ", ".join([f"{self.dataset}, split {self.split}", *chosen])


class Tokenizer(Table):
    """One byte-level BPE for all runs, trained on equally many bytes of each kind."""

    vocabulary: int = Field(4096, ge=300, le=65_536)
    bytes_per_kind: int = Field(10_000_000, gt=0)


class Architecture(Table):
    """The shape of the decoder that every run of the design shares (see :mod:`analyses.pretraining.architectures`)."""

    kind: Literal["llama", "gpt_neox", "mamba"] = "llama"
    hidden_size: int = Field(128, gt=0)
    intermediate_size: int = Field(384, gt=0)
    layers: int = Field(6, gt=0)
    heads: int = Field(4, gt=0)
    context: int = Field(256, gt=1)


class Training(Optimisation):
    """Pretraining, the same for every run."""

    tokens: int | None = Field(None, gt=0)
    """Of each run that names no other number."""


class Decontamination(Table):
    """Evaluation sets to keep out of the training text (see :mod:`analyses.pretraining.decontamination`)."""

    against: tuple[str, ...] = ()
    """Files and folders, from the same folder as the data."""
    words: int = Field(13, gt=0)
    """A passage that shares so many words in a row with an evaluation set is cut out."""
    margin: int = Field(200, ge=0)
    """Characters cut out on either side of it."""


class Design(Table):
    """A family of runs that differ in the mixture, the seed and the number of tokens, and in nothing else."""

    name: str
    data: tuple[Data, ...]
    tokenizer: Tokenizer = Tokenizer()
    architecture: Architecture = Architecture()
    training: Training
    decontamination: Decontamination = Decontamination()
    tuning: Tuning | None = None
    """The second stage, if there is one."""
    family: Family | None = None
    run: tuple[Run, ...] = ()
    """Those of the family first, once the design has been read."""

    def steps(self, run: Run) -> int:
        """Optimiser steps of a run."""
        tokens = run.tokens or self.training.tokens
        assert tokens is not None  # checked when the design was read
        return max(1, tokens // (self.training.batch * self.architecture.context))

    def tokens_seen(self, run: Run) -> dict[Kind, int]:
        """Tokens of each kind that a run is trained on: whole blocks, see :func:`analyses.pretraining.packing.mixture`."""
        blocks = self.steps(run) * self.training.batch
        code = int(blocks * run.code_share)
        context = self.architecture.context
        return {"prose": (blocks - code) * context, "code": code * context}


def read_design(path: str | Path) -> Design:
    """Read and check a design file; a family becomes runs.

    Raises:
        TwinprobeError: see :func:`analyses.toml_files.read_toml`; also no run, two of one name or one called ``data``, a run
            that asks for a kind of text without data or names no number of tokens, data that is neither files nor a data
            set, a shape that its architecture can not have, or a family or second stage that contradicts itself.
    """
    design = read_toml(path, Design)
    if design.tuning:
        check_tuning(design.tuning, path)
    try:
        if design.family:
            design = design.model_copy(update={"run": (*expand(design.family), *design.run)})
        _check_data(design)
        _check_shape(design.architecture)
        _check_runs(design)
    except TwinprobeError as error:
        raise TwinprobeError(f"{path}: {error}") from None
    return design


def _check_data(design: Design) -> None:
    for data in design.data:
        if (data.path is None) == (data.dataset is None):
            raise TwinprobeError(
                f"a [[data]] table of {data.kind} names {'both path and' if data.path else 'neither path nor'} dataset; "
                "expected path (files) or dataset (a name for the datasets library)"
            )
        unused = {"config", "split", "column", "revision"} & data.model_fields_set if data.path else set()
        if unused:
            raise TwinprobeError(f"{sorted(unused)[0]!r} says nothing of the files in {data.path!r}; leave it out")


def _check_shape(shape: Architecture) -> None:
    if shape.kind == "mamba":
        unused = {"intermediate_size", "heads"} & shape.model_fields_set
        if unused:
            raise TwinprobeError(f"a mamba has no {sorted(unused)[0]!r}; leave it out of [architecture]")
        return
    # GPT-NeoX rotates a quarter of each head.
    part = {"llama": 2, "gpt_neox": 8}[shape.kind]
    if shape.hidden_size % (part * shape.heads):
        raise TwinprobeError(
            f"hidden_size {shape.hidden_size} is not a multiple of {part} × {shape.heads} heads (rotary positions need an "
            f"even part of each head); choose another hidden_size or other heads"
        )


def _check_runs(design: Design) -> None:
    names = [run.name for run in design.run]
    again = [name for name in names if names.count(name) > 1]
    if not names:
        raise TwinprobeError("no [family] and no [[run]] table; a design needs at least one run")
    if again:
        raise TwinprobeError(f"two runs are called {again[0]!r}; run names must be unique")
    if "data" in names:
        raise TwinprobeError("a run can not be called 'data': that folder holds tokenizer and packed tokens")
    kinds = {data.kind for data in design.data}
    for run in design.run:
        if run.tokens is None and design.training.tokens is None:
            raise TwinprobeError(f"run {run.name!r} has no tokens and neither has [training]; give either")
        needed = {kind for kind, share in (("code", run.code_share), ("prose", 1 - run.code_share)) if share > 0}
        if needed - kinds:
            raise TwinprobeError(
                f"run {run.name!r} needs {sorted(needed - kinds)[0]} data, but no [[data]] table has it"
            )
