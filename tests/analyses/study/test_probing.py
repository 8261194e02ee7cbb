"""The probing part of a study on one model: every table it promises, over draws and forms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from activations.capturing import capture
from activations.errors import TwinprobeError
from activations.models import ModelSpec, load_model
from analyses.study.probing import Effort, probe_task
from analyses.study.stages import Tables
from probes.task_rows import task_texts
from probes.tasks import get_task
from probes.tasks.items import restricted

ITEMS, SITES = 90, ("embed", "resid_post.2", "resid_post.5")
EFFORT = Effort(strengths=(0.01, 0.1), n_resamples=50, code_orders=1, capacity=("difference",))


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tables]:
    """The tables of a task, two draws, on the code twin."""
    loaded = load_model(ModelSpec("embedded:code"))
    known: dict[str, Tables] = {}

    def tables(name: str) -> Tables:
        if name not in known:
            task, folder = get_task(name), tmp_path_factory.mktemp("probing")
            sites = loaded.sites(",".join(SITES))
            store = capture(loaded, task_texts([name], ITEMS, (3, 4)), sites, folder / name, bos=True, rows="spans")
            draws = [task.generate(ITEMS, seed) for seed in (3, 4)]
            known[name] = probe_task(
                store, task, draws, effort=EFFORT, seed=3, cache={}, progress=lambda done, total: None
            )
        return known[name]

    return tables


def test_a_task_in_three_forms_gives_every_table(probed: Callable[[str], Tables]) -> None:
    found = probed("ordering")
    assert set(found) == {
        "probes", "probe_rows", "difficulty", "transfer", "transfer_rows", "layers", "left_out", "capacity",
    }  # fmt: skip
    probes = found["probes"]
    assert len(probes) == 3 * len(SITES)
    assert (probes.seeds == 2).all() and "seed" not in probes
    assert probes.groupby("form").chosen.sum().tolist() == [1, 1, 1]
    assert probes.compression.notna().all() and probes.r2.isna().all()
    assert (probes.embedding == probes.groupby("form").score.transform("first")).all()
    assert len(found["transfer"]) == 6
    assert len(found["layers"]) == 3 * (len(SITES) - 1)
    assert set(found["capacity"].family) == {"logistic", "difference"}
    left_out = found["left_out"].set_index("form")
    assert left_out.source_forms.to_dict() == {
        "code": "prose, formal", "prose": "code, formal", "formal": "code, prose",
    }  # fmt: skip


def test_numeric_labels_also_get_a_ridge_probe(probed: Callable[[str], Tables]) -> None:
    probes = probed("nesting")["probes"].set_index("target")
    assert probes.r2["depth"].notna().all() and probes.spearman["depth"].notna().all()
    assert (probes.r2_low["depth"] <= probes.r2_high["depth"]).all()
    assert probes.r2["closer"].isna().all()


def test_rows_of_all_draws_pair_and_add_up(probed: Callable[[str], Tables]) -> None:
    found = probed("ordering")
    rows, probes = found["probe_rows"], found["probes"]
    assert not rows.duplicated(["form", "row"]).any()
    assert set(rows.row.str.split("/").str[0]) == {"3", "4"}
    chosen = probes[probes.chosen].set_index("form")
    for form, part in rows.groupby("form"):
        assert part.correct.mean() == pytest.approx(chosen.score[form])
        assert len(part) == chosen.n_test[form]
        assert part.site.unique().tolist() == [chosen.site[form]]
        by_level = found["difficulty"][found["difficulty"].form == form]
        assert by_level.n_test.sum() == len(part)
        assert (by_level.score * by_level.n_test).sum() == pytest.approx(part.correct.sum())


def test_a_relation_is_probed_by_the_bilinear_family(probed: Callable[[str], Tables]) -> None:
    probes = probed("dataflow")["probes"]
    assert probes.groupby("target").family.unique().map(list).to_dict() == {
        "reaches": ["bilinear"],
        "source": ["logistic"],
    }
    relation = probes[probes.target == "reaches"]
    assert relation[["compression", "r2"]].isna().all(axis=None), "bits and numbers are of single rows"
    assert set(probed("dataflow")["capacity"].target) == {"source"}


def test_a_task_can_be_restricted_to_some_forms() -> None:
    task: Any = get_task("ordering")
    some = restricted(task, ("prose", "code"))
    assert some.targets == {"rank": ("code", "prose")}
    whole, part = task.generate(40, 5), some.generate(40, 5)
    assert [item.id for item in part] == [item.id for item in whole]
    assert all(
        dict(few.forms) == {name: item.forms[name] for name in few.forms} for few, item in zip(part, whole, strict=True)
    )
    assert {form for item in part for form in item.forms} == {"code", "prose"}
    assert {
        item.forms.keys() == {"prose"} for item in restricted(get_task("identifiers"), ("prose",)).generate(40, 5)
    } == {True}
    with pytest.raises(TwinprobeError, match="task 'syntax' has no form prose; it has code"):
        restricted(get_task("syntax"), ("prose",))


def test_one_draw_is_not_pooled(tmp_path: Path) -> None:
    loaded, task = load_model(ModelSpec("embedded:code")), get_task("binding")
    store = capture(
        loaded, task_texts(["binding"], ITEMS, (0,)), loaded.sites("embed"), tmp_path / "s", bos=True, rows="spans"
    )
    effort = Effort(strengths=(0.1,), n_resamples=50, code_orders=0, capacity=())
    found = probe_task(
        store, task, [task.generate(ITEMS, 0)], effort=effort, seed=0, cache={}, progress=lambda done, total: None
    )
    assert (found["probes"].seeds == 1).all()
    assert found["probes"].seed_spread.isna().all()
    assert found["probes"].compression.isna().all()
    assert not {"left_out", "capacity", "layers"} & set(found), "two forms, no other families, one site"
    assert isinstance(found["difficulty"], pd.DataFrame)
