"""What ``twinprobe patch`` computes for one model and form, and the tables it makes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from cli.output import Report, duration, say

if TYPE_CHECKING:
    import pandas as pd

    from activations.models import LoadedModel
    from analyses.patching.grids import Grid
    from analyses.prompts import Prompt

Tables = dict[str, "pd.DataFrame"]
LARGE = 10_000
"""From so many patched runs on, what they will cost is said beforehand."""
LONG = 20.0
"""From so many seconds on, how long the rest will take is said after the first item."""
RESAMPLES = 1000
NEUTRAL = (60, 300)
"""Neutral passages of code, and as many of prose, that maps are fitted on, and their characters."""


@dataclass(frozen=True)
class Job:
    """What is done with every model and form."""

    label: str
    items: Sequence[Any]
    grids: Sequence[Grid]
    directions: Sequence[str]
    donor: str
    metric: str
    bos: bool
    max_prompts: int
    max_items: int
    check_exact: int
    seed: int

    def prompts(self, loaded: LoadedModel, form: str) -> list[Prompt]:
        """The prompts that the model reads."""
        from analyses.prompts import prompts

        return prompts(loaded, self.items, form, self.bos)[0][: self.max_prompts]

    def patch(self, loaded: LoadedModel, form: str, name: str, report: Report) -> Tables:
        """Behaviour, retention, and exact effects of every cell; ``name`` is what the model is called on the screen."""
        from analyses.patching.summaries import recoveries, summarise

        chosen = self.prompts(loaded, form)
        what = f"{name}, {form} form"
        tables = self._patched(
            loaded, form, chosen, self.grids, self.directions, self._said(loaded, chosen, what, report)
        )
        if self.metric != "logit_difference" and len(tables.get("patching_cells", ())):
            cells = recoveries(tables["patching_cells"], tables["behaviour"], self.metric)
            tables["patching"] = summarise(cells, self.seed, RESAMPLES).assign(task=self.label, form=form)
        if "patching" in tables:
            tables["patching"] = tables["patching"].assign(metric=self.metric)
        return tables

    def attribute(
        self, loaded: LoadedModel, form: str, name: str, report: Report, method: str, check_cells: int
    ) -> Tables:
        """Behaviour, retention, and estimates of every cell's effect with their agreement with exact ones."""
        from analyses.attribution.checked import attribute_prompts

        chosen = self.prompts(loaded, form)
        tables = self._patched(loaded, form, chosen, (), (), partial(report, f"{name}, {form} form"))
        for empty in ("patching", "patching_cells"):
            tables.pop(empty, None)
        patched = tables["behaviour"].query("status == 'retained'")["item"] if "behaviour" in tables else ()
        if len(patched):
            found = attribute_prompts(
                loaded, [prompt for prompt in chosen if prompt.item in set(patched)], names=self.sites, method=method,
                check_cells=check_cells, seed=self.seed, progress=partial(report, f"{name}, {form} form, {method}"),
            )  # fmt: skip
            about = {"task": self.label, "form": form, "method": method}
            for key, table in {
                "attribution": found.summary(self.seed, RESAMPLES), "attribution_cells": found.cells,
                "agreement": found.agreement, "attribution_exact": found.exact,
            }.items():  # fmt: skip
                tables[key] = table[table.direction.isin(self.directions)].assign(**about)
        return tables

    def across(self, base: LoadedModel, code: LoadedModel, form: str, mapped: Sequence[Grid], report: Report) -> Tables:
        """Each model patched with the other's activations, and with those of another item as a control.

        ``mapped``: where there are any, these grids instead, through maps fitted on neutral text.
        """
        from analyses.across.cross_task import cross_patch_task
        from analyses.study.neutral import neutral_texts

        count, characters = NEUTRAL
        texts = neutral_texts(self.items, count=count, characters=characters, seed=self.seed) if mapped else []

        found = cross_patch_task(
            base, code, self.items, form, bos=self.bos, grids=mapped or self.grids, neutral=texts,
            max_prompts=self.max_prompts,
            max_items=self.max_items, random_items=None, check_exact=self.check_exact, seed=self.seed,
            n_resamples=RESAMPLES, progress=partial(report, f"across, {form} form"),
        )  # fmt: skip
        return {name: table.assign(task=self.label, form=form) for name, table in found.items()}

    @property
    def sites(self) -> list[str]:
        """The sites of the grids."""
        return [grid.site for grid in self.grids]

    def _patched(
        self, loaded: LoadedModel, form: str, chosen: Sequence[Prompt], grids: Sequence[Grid], directions: Sequence[str],
        progress: Callable[[int, int], None],
    ) -> Tables:  # fmt: skip
        from analyses.study.causal import patch_task

        tables: Tables = patch_task(
            loaded, self.label, self.items, [form], grids=grids, directions=directions, donor=self.donor,
            bos=self.bos, max_prompts=self.max_prompts, max_items=self.max_items, check_exact=self.check_exact,
            seed=self.seed, n_resamples=RESAMPLES, progress=progress,
        )  # fmt: skip
        longer = sum(prompt.longer for prompt in chosen)
        return tables | {"retention": tables["retention"].assign(longer_answers=longer)}

    def _said(
        self, loaded: LoadedModel, chosen: Sequence[Prompt], what: str, report: Report
    ) -> Callable[[int, int], None]:
        """Progress of ``what``, which also says what a large job will cost, and how long it will take once that is known."""
        from analyses.patching.effort import effort

        each = [effort(loaded, prompt, self.grids, self.directions, self.donor) for prompt in chosen]
        many = min(self.max_items, len(each))
        share = many / len(each) if each else 0.0
        runs, passes = (round(share * sum(values)) for values in ([e.cells for e in each], [e.passes for e in each]))
        last = time.perf_counter()
        open_ = runs >= LARGE
        if open_:
            report(what, 0, 3 * len(each))  # so that the title comes first
            say(
                f"  {what}: up to {many} items of about {runs // many:,} cells; {runs:,} patched runs at the cost of about "
                f"{passes:,} forward passes ({max(0, runs - passes):,} saved)"
            )

        def progress(done: int, total: int) -> None:
            nonlocal last, open_
            report(what, done, total)
            now = time.perf_counter()
            item = done - 2 * len(each) - 1
            # Prompts that are passed over take no time to speak of.
            if open_ and item >= 0 and now - last > 0.05:
                open_ = False
                rest = (now - last) * passes / max(each[item].passes, 1.0)
                if rest > LONG:
                    say(f"  {what}: at most about {duration(rest)} more")
            last = now

        return progress


def joined(parts: Sequence[Tables]) -> Tables:
    """The same tables of several models and forms, one below the other."""
    import pandas as pd

    names = dict.fromkeys(name for part in parts for name in part)
    return {name: pd.concat([part[name] for part in parts if name in part], ignore_index=True) for name in names}


def grids(sites: Sequence[str], by: str | None, window: int, neurons: int | None) -> list[Grid]:
    """The grids that the options ask for.

    Raises:
        TwinprobeError: one makes no sense for any model, or groups of neurons are asked for without ``mlp_post``.
    """
    from dataclasses import replace

    from activations.errors import TwinprobeError
    from analyses.patching.grids import check_grid, default_grid

    if neurons is not None and "mlp_post" not in sites:
        raise TwinprobeError(
            f"--neurons {neurons} is about the neurons of an MLP; add --site mlp_post, or leave it out"
        )
    found = []
    for site in dict.fromkeys(sites):
        default = default_grid(site)
        grid = replace(default, by=by or default.by, window=window, neurons=neurons if site == "mlp_post" else None)
        check_grid(grid)
        found.append(grid)
    return found
