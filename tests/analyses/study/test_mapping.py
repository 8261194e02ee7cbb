from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from activations.errors import TwinprobeError
from activations.models import LoadedModel, ModelSpec, load_model
from activations.store import ActivationStore
from activations.texts import Text
from analyses.study.mapping import Side, map_transfers
from analyses.study.neutral import capture_neutral, neutral_texts, pair_tokens
from analyses.study.probing import Effort, capture_task, probe_task
from analyses.study.stages import Tables
from probes.tasks import get_task
from probes.tasks.items import Item, Task

if TYPE_CHECKING:
    from conftest import MakeModel

SITES = "embed,resid_post.2"
STRENGTHS = (1e-3, 1e-2)


@dataclass(frozen=True)
class Setting:
    """A task, neutral texts and a model that was run over both."""

    model: LoadedModel
    task: Task
    items: list[Item]
    texts: list[Text]
    side: Side


def _quiet(done: int, total: int) -> None:
    pass


def _neutral(model: LoadedModel, texts: Sequence[Text], out: Path, sites: str = SITES) -> ActivationStore:
    return capture_neutral(model, texts, out, bos=True, sites=sites, dtype="float32", progress=_quiet)


def _side(model: LoadedModel, task: Task, items: list[Item], texts: Sequence[Text], out: Path) -> Side:
    store = capture_task(
        model, items, out / "task", bos=True, sites=SITES, pool="last", dtype="float32", progress=_quiet
    )
    effort = Effort(STRENGTHS, n_resamples=100, code_orders=0, capacity=())
    tables = probe_task(store, task, [items], effort=effort, seed=0, cache={}, progress=_quiet)
    return Side(_neutral(model, texts, out / "neutral"), {task.name: store}, tables["probes"])


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    model, task = load_model(ModelSpec("embedded:text")), get_task("identifiers")
    items = task.generate(160, 0)
    texts = neutral_texts(items, count=12, characters=300, seed=1)
    return Setting(model, task, items, texts, _side(model, task, items, texts, tmp_path_factory.mktemp("text")))


def _map(
    setting: Setting, sides: dict[str, Side], task: Task | None = None, progress: Callable[[int, int], None] = _quiet
) -> Tables:
    return map_transfers(
        sides, [(task or setting.task, setting.items)], strengths=STRENGTHS, n_draws=3, seed=0, n_resamples=100,
        progress=progress,
    )  # fmt: skip


def _turned(side: Side, out: Path) -> Side:
    """The same model in other coordinates: every stored row of every site is turned by one random rotation."""

    def turn(store: ActivationStore, name: str) -> ActivationStore:
        shutil.copytree(store.path, out / name)
        for shard in (out / name / "shards").glob("*.h5"):
            with h5py.File(shard, "r+") as handle:
                for site in store.sites:
                    data = handle[site.replace(".", "/")]
                    rng = np.random.default_rng(1)
                    rotation = np.linalg.qr(rng.normal(size=(data.shape[1], data.shape[1])))[0]
                    data[...] = data[...] @ rotation
        return ActivationStore(out / name)

    stores = {task: turn(store, task) for task, store in side.stores.items()}
    return Side(turn(side.neutral, "neutral"), stores, side.probes)


def test_a_model_reads_itself_fully(setting: Setting) -> None:
    steps: list[tuple[int, int]] = []
    sides = dict.fromkeys(("base", "code", "second_seed"), setting.side)
    tables = _map(setting, sides, progress=lambda done, total: steps.append((done, total)))
    mapped, rows = tables["mapped"], tables["mapped_rows"]
    assert steps == [(step, 9) for step in range(1, 10)]
    assert Counter(zip(mapped.source_model, mapped.target_model, strict=True)) == {
        ("base", "code"): 3, ("code", "base"): 3, ("base", "second_seed"): 3,
    }  # fmt: skip
    assert set(zip(mapped.target, mapped.form, strict=True)) == {("role", "code"), ("role", "prose"), ("use", "code")}
    assert mapped.left_out.isna().all()
    assert mapped.explained.tolist() == pytest.approx([1.0] * 9)
    assert mapped.score.tolist() == mapped.own.tolist() == mapped.unmapped.tolist()
    roles = mapped[mapped.target == "role"]
    assert roles.ratio.tolist() == roles.ratio_low.tolist() == roles.ratio_high.tolist() == [1.0] * 6
    assert (roles.controls_high < roles.score - 0.1).all()
    # Several tokens of one character besides the last are left over on both sides; nothing else is.
    tokens = setting.side.neutral.rows
    assert mapped.n_unpaired.tolist() == [2 * tokens.duplicated(["text", "end"]).sum()] * 9
    assert mapped.n_neutral.tolist() == [len(tokens.drop_duplicates(["text", "end"]))] * 9
    # The refitted probes are those of the study.
    chosen = setting.side.probes[setting.side.probes.chosen].set_index(["target", "form"])
    base = mapped[mapped.target_model == "code"].set_index(["target", "form"])
    assert base.own.to_dict() == pytest.approx(chosen.score.to_dict())
    assert base.control.to_dict() == pytest.approx(chosen.control.to_dict())
    assert base.source_site.to_dict() == base.target_site.to_dict() == chosen.site.to_dict()
    places = ["source_model", "target_model", "task", "target", "form"]
    means = rows.groupby(places)[["correct", "control_correct"]].mean()
    scores = mapped.set_index(places)
    assert means.correct.to_dict() == pytest.approx(scores.score.to_dict())
    assert means.control_correct.to_dict() == pytest.approx(scores.control.to_dict())
    assert not rows.duplicated([*places, "row"]).any()
    assert len(rows) == mapped.n_test.sum()


def test_a_turned_model_is_read_through_the_map_and_not_without(setting: Setting, tmp_path: Path) -> None:
    mapped = _map(setting, {"base": setting.side, "code": _turned(setting.side, tmp_path)})["mapped"]
    assert mapped.explained.tolist() == pytest.approx([1.0] * 6, abs=1e-3)
    there, back = (mapped[mapped.source_model == role].set_index(["target", "form"]) for role in ("base", "code"))
    # Each probe finds in the other's coordinates what it finds in its own, up to a row on the boundary.
    for one, other in ((there, back), (back, there)):
        difference = one.score - other.own
        assert (difference.abs() <= 1.01 / one.n_test).all()
    roles = mapped[mapped.target == "role"]
    # The reference is another probe, standardised in other coordinates; prose has too few rows for the two to agree.
    assert roles.ratio[roles.form == "code"].tolist() == pytest.approx([1.0, 1.0], abs=0.1)
    assert (roles.unmapped < roles.score - 0.25).all()
    assert (roles.controls_high < roles.score - 0.1).all()


def test_labels_that_mean_nothing_have_no_ratio(setting: Setting, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def shuffled(item: Item) -> Item:
        [(name, form)] = item.forms.items()
        labels = {"role": ("identifier", "keyword", "literal", "operator"), "use": ("definition", "use")}
        spans = tuple(replace(span, label=str(rng.choice(labels[span.name]))) for span in form.spans)
        return replace(item, forms={name: replace(form, spans=spans)})

    items = [shuffled(item) for item in setting.items]
    side = _side(setting.model, setting.task, items, setting.texts, tmp_path)
    mapped = _map(setting, {"base": side, "code": side})["mapped"]
    assert len(mapped) == 6
    assert mapped.ratio.isna().all()
    assert mapped.score.notna().all()


def test_relations_are_not_mapped(setting: Setting) -> None:
    mapped = _map(
        setting, {"base": setting.side, "code": setting.side}, replace(setting.task, relations=("role",))
    )["mapped"]  # fmt: skip
    assert mapped.target.tolist() == ["use", "use"]


def test_a_site_that_the_other_model_lacks_is_left_out_with_the_reason(setting: Setting, tmp_path: Path) -> None:
    def chosen(site: str) -> Side:
        return replace(setting.side, probes=setting.side.probes.assign(chosen=setting.side.probes.site == site))

    shallow = replace(chosen("resid_post.2"), neutral=_neutral(setting.model, setting.texts, tmp_path, "resid_post.2"))
    tables = _map(setting, {"base": chosen("embed"), "code": shallow})
    there, back = (tables["mapped"][tables["mapped"].source_model == role] for role in ("base", "code"))
    assert there.left_out.tolist() == ["code has no embed"] * 3
    assert there.score.isna().all()
    assert back.left_out.isna().all()
    assert back.score.notna().all()
    assert set(tables["mapped_rows"].source_model) == {"code"}


def test_tokens_pair_where_they_end_at_the_same_character(
    setting: Setting, make_model: MakeModel, sample_texts: list[Text], tmp_path: Path
) -> None:
    other = make_model("llama")
    one, two = (
        _neutral(model, sample_texts, tmp_path / name, "embed,resid_post.1")
        for model, name in ((setting.model, "one"), (other, "two"))
    )
    pairs = pair_tokens(one, two)
    ends = [one.rows.loc[pairs.source_rows], two.rows.loc[pairs.target_rows]]
    for column in ("text", "end"):
        assert ends[0][column].tolist() == ends[1][column].tolist()
    assert len(ends[0].drop_duplicates(["text", "end"])) == len(ends[0])
    # Counted by hand from the offsets of the two tokenizers.
    common = 0
    for text in sample_texts:
        encoded = [
            model.tokenizer(text.text, add_special_tokens=False, return_offsets_mapping=True)
            for model in (setting.model, other)
        ]
        common += len(set.intersection(*({end for _, end in each["offset_mapping"]} for each in encoded)))
    assert len(pairs.source_rows) == common
    assert pairs.n_unpaired == one.n_rows + two.n_rows - 2 * common > 0
    # Of the tokens that make up one character, the last has read all of it.
    many = two.rows[two.rows.duplicated(["text", "end"], keep=False)].groupby(["text", "end"]).position.max()
    kept = ends[1].set_index(["text", "end"]).position
    shared = kept.index.intersection(many.index)
    assert len(shared)
    assert kept[shared].tolist() == many[shared].tolist()
    neutral = pairs.at("embed")
    assert (neutral.source.shape, neutral.target.shape) == ((common, 128), (common, 16))
    assert neutral.source.tolist() == one.read("embed", pairs.source_rows).tolist()


def test_neutral_texts_avoid_the_documents_of_the_items(setting: Setting) -> None:
    groups = {item.group for item in setting.items}
    assert {text.group for text in setting.texts}.isdisjoint(groups)
    assert Counter(text.group.partition("/")[0] for text in setting.texts) == {"code": 12, "prose": 12}
    every = {text.group for text in neutral_texts([], count=60, characters=300, seed=1)}
    assert len(every & groups) > 20  # so named, they would have been found
    assert len({text.text for text in setting.texts}) == len({text.id for text in setting.texts}) == 24
    assert neutral_texts(setting.items, count=12, characters=300, seed=1) == setting.texts
    assert neutral_texts(setting.items, count=12, characters=300, seed=2) != setting.texts


def test_neutral_texts_of_the_users_own(setting: Setting, tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    lines = [{"id": name, "text": f"the {name} said so\n" * 9, "group": name} for name in ("one", "two", "three")]
    file.write_text("\n".join(map(json.dumps, lines)))
    items = [replace(setting.items[0], group="two"), replace(setting.items[1], group="prose/three")]
    own = partial(neutral_texts, count=4, characters=40, seed=0, code=str(file), prose=str(file))
    found = own(items)
    assert {text.group for text in found} == {"code/one", "code/three", "prose/one"}
    items += [replace(setting.items[2], group="one"), replace(setting.items[3], group="three")]
    with pytest.raises(TwinprobeError, match="all documents of 40 characters are used by the tasks; ask for fewer"):
        own(items)


def test_neutral_text_that_is_probed_is_refused(setting: Setting, tmp_path: Path) -> None:
    texts = [replace(setting.texts[0], group=setting.items[5].group), *setting.texts[1:]]
    side = replace(setting.side, neutral=_neutral(setting.model, texts, tmp_path))
    with pytest.raises(TwinprobeError, match="1 of the texts to fit the map on are probed too"):
        _map(setting, {"base": side, "code": side})


def test_stores_of_other_texts_do_not_pair(setting: Setting, tmp_path: Path) -> None:
    texts, store = setting.texts, setting.side.neutral
    changed = _neutral(setting.model, [replace(texts[0], text="x" + texts[0].text), *texts[1:]], tmp_path / "changed")
    with pytest.raises(TwinprobeError, match=f"text '{texts[0].id}' differs between .* capture it anew"):
        pair_tokens(store, changed)
    renamed = _neutral(setting.model, [replace(texts[0], id="other")], tmp_path / "renamed")
    with pytest.raises(TwinprobeError, match="have no token in common"):
        pair_tokens(store, renamed)
    shorter = _neutral(setting.model, [replace(texts[0], text=texts[0].text[:100])], tmp_path / "shorter")
    pairs = pair_tokens(store, shorter)  # as where one model's context is shorter
    assert 0 < len(pairs.source_rows) <= shorter.n_rows
    assert pairs.n_unpaired == store.n_rows + shorter.n_rows - 2 * len(pairs.source_rows)
