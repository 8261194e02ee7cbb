"""A pretraining design: one TOML file that names the data, the architecture, and one run per model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from activations.errors import TwinprobeError
from analyses.toml_files import read_toml

Kind = Literal["prose", "code"]


class Table(BaseModel):
    """A TOML table that refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(Table):
    """Documents of one kind: a folder, a ``.tar.gz``, a ``.jsonl`` (``path`` and ``text`` keys) or a ``.txt``."""

    kind: Kind
    path: str
    licence: str
    held_out: tuple[str, ...] = ()
    """Name patterns (``fnmatch``) of documents that are never trained on."""
    held_out_tail: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(default_factory=dict)
    """Name pattern to the share of each matching document's end that is never trained on."""


class Tokenizer(Table):
    """One byte-level BPE for all runs, trained on equally many bytes of each kind."""

    vocabulary: int = Field(4096, ge=300, le=65_536)
    bytes_per_kind: int = Field(10_000_000, gt=0)


class Architecture(Table):
    """The shape of the Llama-type decoder that every run of the design shares."""

    hidden_size: int = Field(128, gt=0)
    intermediate_size: int = Field(384, gt=0)
    layers: int = Field(6, gt=0)
    heads: int = Field(4, gt=0)
    context: int = Field(256, gt=1)


class Training(Table):
    """Optimiser and schedule, the same for every run: AdamW, linear warm-up, cosine decay to a tenth."""

    tokens: int = Field(gt=0)
    batch: int = Field(16, gt=0)
    learning_rate: float = Field(3e-3, gt=0)
    warmup: float = Field(0.03, ge=0, le=1)
    weight_decay: float = Field(0.1, ge=0)
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    compile: bool = False
    checkpoint_every: int = Field(200, gt=0)


class Run(Table):
    """One model: its share of code and the seed of its initial weights and data order."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    code_share: float = Field(ge=0, le=1)
    seed: int


class Design(Table):
    """A family of runs that differ in the mixture and the seed, and in nothing else."""

    name: str
    data: tuple[Data, ...]
    tokenizer: Tokenizer = Tokenizer()
    architecture: Architecture = Architecture()
    training: Training
    run: tuple[Run, ...]

    @property
    def steps(self) -> int:
        """Optimiser steps of every run."""
        return max(1, self.training.tokens // (self.training.batch * self.architecture.context))


def read_design(path: str | Path) -> Design:
    """Read and check a design file.

    Raises:
        TwinprobeError: see :func:`analyses.toml_files.read_toml`; also a run that asks for a kind of text without data,
            two runs of one name or one called ``tokenizer``, or a hidden size that the heads do not divide.
    """
    design = read_toml(path, Design)
    kinds = {data.kind for data in design.data}
    names = [run.name for run in design.run]
    if not names:
        raise TwinprobeError(f"{path}: no [[run]] table; a design needs at least one run")
    if len(set(names)) < len(names):
        raise TwinprobeError(f"{path}: two runs share a name ({', '.join(names)}); run names must be unique")
    if "tokenizer" in names:
        raise TwinprobeError(f"{path}: a run can not be called 'tokenizer': that folder holds the tokenizer")
    for run in design.run:
        needed = {kind for kind, share in (("code", run.code_share), ("prose", 1 - run.code_share)) if share > 0}
        if needed - kinds:
            raise TwinprobeError(
                f"{path}: run {run.name!r} needs {sorted(needed - kinds)[0]} data, but no [[data]] table has it"
            )
    if design.architecture.hidden_size % (2 * design.architecture.heads):
        raise TwinprobeError(
            f"{path}: hidden_size {design.architecture.hidden_size} is not a multiple of twice the "
            f"{design.architecture.heads} heads (rotary positions need an even head size)"
        )
    return design
