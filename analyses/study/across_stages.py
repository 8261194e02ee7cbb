"""The stages of both models together: patching across the pair, where the same heads matter, and how alike they are."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import pandas as pd

from activations.errors import TwinprobeError
from activations.models import LoadedModel
from analyses.study.shared import ACROSS, NEUTRAL, Shared
from analyses.study.stages import Tables

ROLES = ("base", "code", "second_seed")


class AcrossStages:
    """All stages for which two models run side by side."""

    def __init__(self, shared: Shared) -> None:
        self.shared, self.study, self.stages = shared, shared.study, shared.stages

    @cached_property
    def models(self) -> dict[str, LoadedModel]:
        """The models that are run side by side, all of them in memory."""
        return {role: self.shared.models.load(role) for role in ROLES if role in self.shared.specs}

    def tables(self) -> Tables:
        """Cross-model patching of every task with contrasts."""
        parts = [self.patching(name) for name in self.shared.across_tasks]
        names = dict.fromkeys(name for part in parts for name in part)
        return {name: pd.concat([part[name] for part in parts if name in part], ignore_index=True) for name in names}

    def patching(self, task: str) -> Tables:
        """Cross-model patching of one task."""
        settings = self.study.across
        effort = {"across": settings.model_dump(), "resamples": self.study.statistics.resamples}
        models = {role: self.shared.identities[role] for role in ROLES if role in self.shared.specs}
        inputs = {**self.shared.common("base"), **self.shared.task_key(task), **effort, "models": models}
        return self.stages.tables(f"{ACROSS}/patching {task}", inputs, lambda: self._patch(task))

    def _patch(self, task: str) -> Tables:
        from analyses.across.cross_task import cross_patch_task

        settings, forms = self.study.across, self.shared.forms(task)
        controls = {role: model for role, model in self.models.items() if role == "second_seed"}
        test = [item for item in self.shared.first_draw(task) if item.split == "test"]
        frames: dict[str, list[pd.DataFrame]] = {}
        for number, form in enumerate(forms):

            def advance(done: int, total: int, before: int = number) -> None:
                self.shared.report(f"{ACROSS}/patching {task}", before * total + done, len(forms) * total)

            try:
                found = cross_patch_task(
                    self.models["base"], self.models["code"], test, form, bos=self.shared.bos, controls=controls,
                    max_prompts=settings.prompts, max_items=settings.items, check_exact=settings.check_exact,
                    seed=self.study.seed, n_resamples=self.study.statistics.resamples, progress=advance,
                )  # fmt: skip
            except TwinprobeError as error:
                # Two models that can not exchange activations are no mistake of the study: the report says why.
                found = {"cross_refused": pd.DataFrame([{"reason": str(error)}])}
            for name, frame in found.items():
                frames.setdefault(name, []).append(frame.assign(task=task, form=form))
        return {name: pd.concat(parts, ignore_index=True) for name, parts in frames.items()}

    def overlap(self, cells: dict[str, pd.DataFrame]) -> Tables:
        """Where the same heads matter at the same roles, of code and base and of the two seeds of base.

        ``cells`` are the patched cells of each model.
        """
        resamples, seed = self.study.statistics.resamples, self.study.seed
        others = [role for role in ROLES[1:] if role in cells and "base" in cells]
        if not others:
            return {}

        def compare() -> Tables:
            from analyses.across.overlap import overlap

            frames = []
            for other in others:
                for place, ours, theirs in _shared_heads(cells["base"], cells[other]):
                    found = overlap(ours, theirs, by_role=True, n_resamples=resamples, seed=seed)
                    frames.append(found.assign(**place, other=other))
            return {"overlap": pd.concat(frames, ignore_index=True)} if frames else {}

        made = [f"{role}/patching " for role in ROLES]
        keys = [entry["key"] for entry in self.stages.log if entry["stage"].startswith(tuple(made))]
        return self.stages.tables(f"{ACROSS}/overlap", {"from": keys, "resamples": resamples, "seed": seed}, compare)

    def similarity(self) -> Tables:
        """How alike the models' activations are on the neutral passages; needs the stages of every model."""
        stores = {role: key for (role, name), (_, key) in self.shared.stores.items() if name == NEUTRAL}
        pairs = [("base", role) for role in stores if role != "base"]
        if "base" not in stores or not pairs:
            return {}

        def compare() -> Tables:
            from analyses.across.similarity import similarity_table

            opened = {role: self.shared.store(role, NEUTRAL) for role in stores}
            sites = [site for site in opened["base"].sites if all(site in store.sites for store in opened.values())]
            return {"similarity": similarity_table(opened, pairs, sites)}

        return self.stages.tables(f"{ACROSS}/similarity", {"stores": stores}, compare)


def _shared_heads(
    base: pd.DataFrame, other: pd.DataFrame
) -> Iterator[tuple[dict[str, str], pd.DataFrame, pd.DataFrame]]:
    """Every map of heads that both models have, by task, form and direction: their cells at roles that all items have."""
    by = ["task", "form", "direction"]
    parts = [dict(list(cells[(cells.site == "z") & (cells.by == "role")].groupby(by))) for cells in (base, other)]
    for place in [place for place in parts[0] if place in parts[1]]:
        pair = [each[place] for each in parts]
        of_items = [set(roles) for cells in pair for _, roles in cells.groupby("item").role]
        if roles := set.intersection(*of_items):
            ours, theirs = (cells[cells.role.isin(roles)] for cells in pair)
            yield dict(zip(by, map(str, place), strict=True)), ours, theirs
