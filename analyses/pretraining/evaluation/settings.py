"""The evaluation file: one TOML table per evaluation of every model of a family."""

from __future__ import annotations

from pathlib import Path

from activations.errors import TwinprobeError
from analyses.pretraining.evaluation.bits import BitsPerByte
from analyses.pretraining.evaluation.choices import Choices
from analyses.pretraining.evaluation.finetuning import Finetune
from analyses.pretraining.evaluation.patching import Patching
from analyses.pretraining.evaluation.probing import Probes
from analyses.pretraining.evaluation.score import Evaluation
from analyses.pretraining.tables import Table
from analyses.toml_files import read_toml


class Evaluations(Table):
    """An evaluation file; a field for each kind of evaluation (``run.KINDS`` says what computes it)."""

    finetune: tuple[Finetune, ...] = ()
    choices: tuple[Choices, ...] = ()
    bits_per_byte: tuple[BitsPerByte, ...] = ()
    probes: tuple[Probes, ...] = ()
    patching: tuple[Patching, ...] = ()

    def each(self) -> list[tuple[str, Evaluation]]:
        """Kind and table of every evaluation, the kinds in the order of the fields."""
        return [(kind, table) for kind in type(self).model_fields for table in getattr(self, kind)]


def read_evaluations(path: str | Path) -> Evaluations:
    """Read and check an evaluation file.

    Raises:
        TwinprobeError: see :func:`analyses.toml_files.read_toml`; also a file without evaluations, or two of one name.
    """
    evaluations = read_toml(path, Evaluations)
    names = [table.name for _, table in evaluations.each()]
    if not names:
        kinds = ", ".join(f"[[{kind}]]" for kind in Evaluations.model_fields)
        raise TwinprobeError(f"{path}: no evaluation; expected at least one table of {kinds}")
    again = [name for name in names if names.count(name) > 1]
    if again:
        raise TwinprobeError(f"{path}: two evaluations are called {again[0]!r}; give each a name of its own")
    return evaluations
