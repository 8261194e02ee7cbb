"""The finished models of a family, and where each stands in its design."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from activations.errors import TwinprobeError, did_you_mean
from analyses.pretraining.family import Serves


@dataclass(frozen=True, eq=False)
class Trained:
    """A finished model: its name, its folder, and ``run`` of its ``training.json``."""

    name: str
    folder: Path
    run: dict[str, Any]

    @cached_property
    def weights(self) -> str:
        """What tells its weights from those of any other model."""
        digest = hashlib.sha256()
        for file in sorted(self.folder.glob("*.safetensors")):
            with file.open("rb") as handle:
                while part := handle.read(1 << 20):
                    digest.update(part)
        return f"sha256:{digest.hexdigest()}"

    def points(self) -> list[Serves]:
        """The settings that its scores count for, and at which share of code; no setting is an empty one.

        A model of a second stage counts for its first stage's settings, each with ``+`` and the name of its mix.
        """
        served = [Serves.model_validate(point) for point in self.run.get("serves") or ()]
        served = served or [Serves(setting="", share=self.run["code_share"])]
        tuning = self.run.get("tuning")
        if not tuning:
            return served
        return [Serves(setting=f"{point.setting}+{tuning}".strip("+"), share=point.share) for point in served]


def finished_models(runs: Path, only: Sequence[str] = ()) -> list[Trained]:
    """The models under ``runs/<name>/model``, by name, or those called ``only``.

    Raises:
        TwinprobeError: there is none, ``only`` names another, or what one was trained on can not be read.
    """
    found = {file.parent.parent.name: file for file in sorted(runs.glob("*/model/training.json"))}
    if not found:
        raise TwinprobeError(
            f"{runs} holds no finished model; expected {runs}/<run>/model/training.json, as twinprobe pretrain writes them"
        )
    for name in only:
        if name not in found:
            raise TwinprobeError(
                f"{runs} holds no finished model {name!r}{did_you_mean(name, found)}; there are {', '.join(found)}"
            )
    return [Trained(name, found[name].parent, _run(found[name])) for name in found if not only or name in only]


def _run(file: Path) -> dict[str, Any]:
    try:
        run: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["run"]
        _ = run["seed"], run["code_share"]
    except (ValueError, KeyError, TypeError):
        raise TwinprobeError(
            f"{file} does not say which run it is of; expected an object 'run' with code_share and seed"
        ) from None
    return run
