"""The causal companion of a probe: what a model answers when the directions that the probe reads are changed.

"Decodable" is not "used". At the probe's site and the last position, where the probe reads and the answer must follow,

- ``remove`` takes all of the probe's directions out, to the mean of the training rows (amnesic probing, Elazar et al.
  2021);
- ``steer`` pushes along the direction from the text's label to the contrast's, as far as the means of the two labels'
  training rows lie apart along it.

The control does the same with random directions: as many to remove, as long a push. Every prompt has draws of its own, so
that intervals over items cover the draw too. Three things to know when reading the numbers:

- where the probe still says the same after an edit, the edit failed, and no effect means nothing;
- a probe need not find all that carries its label: what a removal leaves may be read from what the probe missed;
- a random push lengthens the row, one from label to label hardly does, and the next norm divides by the length: so the
  control of ``steer`` may shrink logits where the probe's edit does nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from activations.engines.places import width
from activations.errors import TwinprobeError
from activations.models import LoadedModel
from activations.sites import Site
from analyses.intervention_cases import Case, Means, Vector, cases
from analyses.intervention_outcomes import KINDS, outcomes, summary
from analyses.last_position import Edit, edited_runs
from analyses.study.stages import Tables
from probes.directions import contrast_basis, project_out, random_basis, random_direction, steer
from probes.estimators import LogisticProbe
from probes.tasks.items import Item

if TYPE_CHECKING:
    import torch


def intervene(
    loaded: LoadedModel,
    task: str,
    items: Sequence[Item],
    form: str,
    target: str,
    site: str,
    probe: LogisticProbe,
    means: Means,
    *,
    bos: bool,
    clusters: Literal["item", "group"],
    max_prompts: int,
    n_draws: int = 3,
    seed: int = 0,
    n_resamples: int = 1000,
) -> Tables:
    """Remove and steer what ``probe`` reads at ``site`` in the test items of a task, and see how the model answers.

    Args:
        loaded: a decoder; it is left as it was found.
        task: the task's name, for the tables.
        items: the task's items, of all splits.
        form, target, site: what the probe was fitted on; a site with one row per position.
        probe: the fitted probe.
        means: means of its training rows.
        bos: whether texts open with BOS, as they did for the probe's rows.
        clusters: what intervals resample.
        max_prompts: of the test items that can be used, the first so many are.
        n_draws: random edits per prompt and kind; their mean is the control.
        seed: seed of the draws and of the bootstrap.
        n_resamples: bootstrap resamples.

    Returns:
        ``intervention_rows``: a line per prompt and kind. ``before``, ``after`` and ``control`` are logits of the answer
        minus the contrast's answer, ``logprob_*`` the log-probability of the answer (nats), ``right_*`` whether the
        answer is the best of the candidates, ``amount*`` how far the row was moved, ``read_*`` the probe's label,
        ``fooled_*`` whether the probe is off the text's label (remove) or gives the contrast's (steer), ``belief_*`` the
        probability that it gives to the text's label. Of the controls it is the mean over draws. After a removal the
        probe finds all rows alike; which label it gives then may hang on rounding, what it believes does not.
        ``interventions``: a line per kind, with means over prompts. ``change`` is after minus before (``low``, ``high``),
        ``control`` that of the random edits, ``difference`` the one minus the other, paired by prompt (``diff_low``,
        ``diff_high``), with 95% intervals over clusters; ``logprob_*`` the same for the log-probability. ``fooled`` and
        ``belief`` are those of the edited rows, ``*_before`` of rows as they were. Where no item qualifies there are 0
        prompts, the reasons, and no other table.

    Raises:
        TwinprobeError: the model is no decoder or has no such site; probe, site and means do not belong together.
    """
    [where] = loaded.sites(site)
    _check(probe, means, where, width(loaded, where), n_draws)
    about = {"task": task, "target": target, "form": form, "site": site}
    usable, dropped = cases(loaded, items, form, target, probe, means, bos)
    reasons = {"dropped": sum(dropped.values()), "why_dropped": _listed(dropped)}
    if not usable:
        lines = [{**about, "kind": kind, "prompts": 0, **reasons} for kind in KINDS]
        return {"interventions": pd.DataFrame(lines)}
    rows = _run(loaded, where, usable[:max_prompts], probe, means.centre, n_draws, seed)
    lines = [
        {**about, "kind": kind, **summary(part, clusters, n_resamples, seed), "draws": n_draws, **reasons}
        for kind, part in rows.groupby("kind", sort=False)
    ]
    return {"interventions": pd.DataFrame(lines), "intervention_rows": rows.assign(**about)}


def _check(probe: LogisticProbe, means: Means, site: Site, wide: int, n_draws: int) -> None:
    shapes = {"the probe": (probe.n_features_in_,), "the centre": means.centre.shape}
    shapes |= {f"the mean of label {label!r}": mean.shape for label, mean in means.labels.items()}
    for name, shape in shapes.items():
        if shape != (wide,):
            raise TwinprobeError(
                f"{name} is for rows of shape {shape}, but {site} has {(wide,)}; use those of this site"
            )
    without = [str(label) for label in probe.classes_ if label not in means.labels]
    if without:
        raise TwinprobeError(f"no mean for the probe's label {without[0]!r}; give one for each label it was fitted on")
    if n_draws < 1:
        raise TwinprobeError(f"{n_draws} random draws; an effect needs a control, expected 1 or more")


def _listed(dropped: Counter[str]) -> str:
    return "; ".join(f"{reason} ({count})" for reason, count in sorted(dropped.items()))


def _run(
    loaded: LoadedModel,
    site: Site,
    chosen: Sequence[Case],
    probe: LogisticProbe,
    centre: Vector,
    n_draws: int,
    seed: int,
) -> pd.DataFrame:
    """The rows of all cases: each is run untouched, then of every kind with the probe's edit and the random ones."""
    import torch

    basis = contrast_basis(probe)
    seeds = np.random.default_rng(seed).integers(2**63, size=(len(chosen), n_draws)).tolist()

    def edited(state: torch.Tensor, number: int) -> torch.Tensor:
        case, draws = chosen[number], seeds[number]
        bases = [basis, *(random_basis(basis, draw) for draw in draws)]
        directions = [case.direction, *(random_direction(case.direction, draw) for draw in draws)]
        removed = [project_out(state, each, centre) for each in bases]
        pushed = [steer(state, each, case.distance) for each in directions]
        return torch.stack([state, *removed, *pushed])

    def variants(states: torch.Tensor, numbers: Sequence[int]) -> torch.Tensor:
        return torch.stack([edited(state, number) for state, number in zip(states, numbers, strict=True)])

    edit = Edit(site, 1 + len(KINDS) * (1 + n_draws), variants)
    lines: dict[int, list[dict[str, Any]]] = {}
    for runs in edited_runs(loaded, [case.prompt.clean for case in chosen], edit):
        lines |= outcomes(runs, chosen, probe, {"remove": len(basis), "steer": 1})
    return pd.DataFrame([line for number in sorted(lines) for line in lines[number]])
