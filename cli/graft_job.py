"""What ``twinprobe graft`` computes, form by form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from activations.errors import TwinprobeError
from cli.form_tables import Tables, usable
from cli.output import Report

if TYPE_CHECKING:
    from activations.models import LoadedModel
    from analyses.prompts import Prompt

    Models = Mapping[str, LoadedModel]

SETTING = ["host", "donor", "graft"]


def check_models(models: Models, chosen: Sequence[str]) -> list[tuple[str, ...]]:
    """The grafts, every part alone where none is chosen.

    Raises:
        TwinprobeError: a model can not give its weights to base, or a part is not known.
    """
    from analyses.across.grafting import single_parts
    from analyses.across.mixing import mix, parts

    base, *others = models.values()
    grafts = [tuple(one.split("+")) for one in dict.fromkeys(chosen)] or single_parts(base)
    named = [part for one in grafts for part in one]
    for other in others:
        # Nothing runs here: whether weights fit and parts are known is found as a mixture is put together.
        mix(base, other, dict.fromkeys([*parts(base), *named], 1.0))
    return grafts


def shared_by_all(
    models: Models, items: Sequence[Any], forms: Sequence[str], bos: bool, most: int, label: str
) -> tuple[dict[str, list[Prompt]], dict[str, TwinprobeError]]:
    """The prompts of each form, which all models read alike, and why there are none in the other forms.

    Raises:
        TwinprobeError: two models do not read the same tokens, or no form has a prompt.
    """
    from analyses.across.compatibility import shared_prompts

    base, *others = models.values()
    prompts: dict[str, list[Prompt]] = {}
    without: dict[str, TwinprobeError] = {}
    for form in forms:
        found, *_ = [shared_prompts(base, other, items, form, bos) for other in others]
        try:
            prompts[form] = usable(found, most, label, form)
        except TwinprobeError as error:
            without[form] = error
    if not prompts:
        raise next(iter(without.values()))
    return prompts, without


@dataclass(frozen=True)
class Job:
    """What is done with the prompts of every form; ``models`` are base, code and maybe a control."""

    models: Models
    grafts: Sequence[Sequence[str]]
    shares: Sequence[float]
    clusters: Literal["item", "group"]
    seed: int
    label: str
    report: Report

    def run(self, form: str, prompts: Sequence[Prompt]) -> Tables:
        """Answers with every graft and at every share, prompt by prompt and as means."""
        import pandas as pd

        from analyses.across.grafting import UNTOUCHED, graft, interpolate, summary

        base, code, *controls = self.models.values()
        donors = {"base": "code", "code": "base"}
        frames = []
        stages = [(code, "parts"), *((control, "parts of the control") for control in controls)]
        for other, stage in stages:
            hosts = ("base", "code") if other is code else ("base",)
            rows = graft(
                base, other, prompts, self.grafts, hosts=hosts, progress=partial(self.report, f"{form} form, {stage}")
            )
            rows = rows.assign(donor=rows.host.map(donors).where(rows.graft != UNTOUCHED, UNTOUCHED))
            if other is not code:
                rows = rows[rows.graft != UNTOUCHED].assign(donor="control")
            frames.append(rows)
        grafted = pd.concat(frames).sort_values("host", kind="stable", ignore_index=True)
        curve = interpolate(base, code, prompts, self.shares, partial(self.report, f"{form} form, from base to code"))
        tables = {
            "grafts": summary(grafted, SETTING, clusters=self.clusters, seed=self.seed), "graft_answers": grafted,
            "interpolation": summary(curve, ["alpha"], clusters=self.clusters, seed=self.seed),
            "interpolation_answers": curve,
        }  # fmt: skip
        # A guess among the candidates, twice.
        chance = sum(len(prompt.candidates) ** -2 for prompt in prompts) / len(prompts)
        for name in ("grafts", "interpolation"):
            tables[name] = tables[name].assign(chance=chance)
        return {name: table.assign(task=self.label, form=form) for name, table in tables.items()}


def joined(parts: Sequence[Tables]) -> Tables:
    """The same tables of several forms, one below the other."""
    import pandas as pd

    return {name: pd.concat([part[name] for part in parts], ignore_index=True) for name in parts[0]}
