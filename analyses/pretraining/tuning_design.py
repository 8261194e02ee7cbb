"""The second stage of a design: which instructions every pretrained model is tuned on, and in which mixes."""

from __future__ import annotations

from pydantic import Field

from activations.errors import TwinprobeError
from analyses.pretraining.mixing_schedules import Schedule, check_ratios, code_share
from analyses.pretraining.tables import Kind, Optimisation, Table


class Instructions(Table):
    """A file of instructions of one kind: JSON lines with ``prompt`` and ``response``, or Alpaca's three keys."""

    kind: Kind
    path: str
    licence: str
    held_out: float = Field(0.05, ge=0, lt=1)
    """Share that is never tuned on, chosen by a hash of the prompt."""


class Mix(Table):
    """One way to mix prose and code; every pretrained model is tuned once with each mix."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    schedule: Schedule
    ratios: tuple[str, ...]
    """Prose to code, one for each phase, such as ``7:3`` (see :mod:`analyses.pretraining.mixing_schedules`)."""

    @property
    def needs(self) -> set[Kind]:
        """The kinds of instructions that it draws on."""
        shares = [code_share(ratio) for ratio in self.ratios]
        needed: dict[Kind, bool] = {"prose": min(shares) < 1, "code": max(shares) > 0}
        return {kind for kind, is_needed in needed.items() if is_needed}


class Tuning(Optimisation):
    """Instruction tuning of every run, once with each mix."""

    examples: int = Field(gt=0)
    """Per tuned model, of both kinds together."""
    learning_rate: float = Field(5e-4, gt=0)
    data: tuple[Instructions, ...]
    mix: tuple[Mix, ...]

    @property
    def steps(self) -> int:
        """Optimiser steps; the last may have a smaller batch."""
        return -(-self.examples // self.batch)


def check_tuning(tuning: Tuning, path: object) -> None:
    """Check what a table alone can not say.

    Args:
        path: the design file, which opens every error message.

    Raises:
        TwinprobeError: there is no mix, two have one name, ratios do not make their schedule, or a kind has no data.
    """
    names = [mix.name for mix in tuning.mix]
    if not names:
        raise TwinprobeError(f"{path}: no [[tuning.mix]] table; tuning needs at least one mix")
    again = [name for name in names if names.count(name) > 1]
    if again:
        raise TwinprobeError(f"{path}: two mixes are called {again[0]!r}; give each a name of its own")
    given = {data.kind for data in tuning.data}
    for mix in tuning.mix:
        try:
            check_ratios(mix.schedule, mix.ratios)
        except TwinprobeError as error:
            raise TwinprobeError(f"{path}: mix {mix.name!r}: {error}") from None
        if mix.needs - given:
            raise TwinprobeError(
                f"{path}: mix {mix.name!r} needs {sorted(mix.needs - given)[0]} instructions, "
                "but no [[tuning.data]] table has them"
            )
