"""What every evaluation shares: its table in the evaluation file, and the scores it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import Field

from analyses.pretraining.tables import Table


class Evaluation(Table):
    """A table of an evaluation file: one evaluation of every model."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ +-]*$")
    """Begins the names of its tasks, and names its file of results."""


@dataclass(frozen=True)
class Score:
    """The score of one model on one task, a line of ``scores.csv``."""

    task: str
    score: float
    category: str = ""
    """The kind of task; all of a category are tested together, too."""
    group: str = ""
    """Another way to sort tasks, such as by how they are measured."""
    items: int = 0
    """What the score is the mean of."""
    detail: Mapping[str, float] = field(default_factory=dict)
    """Parts of the score by name; in the JSON of the evaluation, not in ``scores.csv``."""
