"""The sweep over items: who is retained, what every line holds, how it is checked, and what is refused."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import torch
from contrast_prompts import EDITED, LENGTH, made_prompts
from other_models import state

from activations.errors import TwinprobeError
from activations.sites import Site
from analyses.patching import suffix, sweep
from analyses.patching.cells import Patch
from analyses.patching.exactness import full_logits
from analyses.patching.grids import Grid
from analyses.patching.metrics import MIN_GAPS
from analyses.patching.recording import record
from analyses.patching.summaries import summarise
from analyses.patching.sweep import COLUMNS, Patching, patch_prompts
from analyses.prompts import DIRECTIONS, Prompt

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.models import LoadedModel

BOTH = tuple(DIRECTIONS)


@pytest.fixture(scope="module")
def loaded(tiny: Callable[[str], LoadedModel]) -> LoadedModel:
    return tiny("llama")


@pytest.fixture(scope="module")
def given(loaded: LoadedModel) -> list[Prompt]:
    return made_prompts(loaded)


@pytest.fixture(scope="module")
def found(loaded: LoadedModel, given: list[Prompt]) -> Patching:
    return patch_prompts(loaded, given, directions=BOTH, max_items=4, check_exact=3, seed=1)


def last(loaded: LoadedModel, ids: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = loaded.model(torch.tensor([ids])).logits[0, -1]
    return logits


def by_hand(prompt: Prompt, logits: torch.Tensor, clean: torch.Tensor) -> list[float]:
    """The metrics in the order of their columns."""
    own, reference = logits.double().softmax(-1), clean.double().softmax(-1)
    return [
        float(logits[prompt.answer] - logits[prompt.contrast]),
        float(own[prompt.answer]),
        1 + int((logits > logits[prompt.answer]).sum()),
        float((reference * (reference / own).log()).sum()),
    ]


def test_only_items_right_in_both_texts_are_patched(found: Patching, given: list[Prompt]) -> None:
    expected = {
        "small gap": "gap too small", "clean wrong": "answered wrongly", "corrupted wrong": "answered wrongly",
        "third wins": "answered wrongly",
    }  # fmt: skip
    table = found.retention.set_index("item")
    assert list(table.index) == [prompt.item for prompt in given]
    for prompt in given:
        kind = prompt.item.rpartition(" ")[0]
        assert kind == "right" or table.status[prompt.item] == expected[kind]
    right = [prompt.item for prompt in given if prompt.item.startswith("right")]
    assert table.status[right].tolist() == ["retained"] * 4 + ["retained, not patched"] * 2
    assert found.cells["item"].unique().tolist() == right[:4]
    assert table.status.value_counts().to_dict() == {
        "answered wrongly": 6, "retained": 4, "gap too small": 2, "retained, not patched": 2,
    }  # fmt: skip


def test_retention_is_what_the_model_itself_says(loaded: LoadedModel, found: Patching, given: list[Prompt]) -> None:
    others = [name for name in MIN_GAPS if name != "logit_difference"]
    for prompt, line in zip(given, found.retention.itertuples(), strict=True):
        runs = clean, corrupted = [last(loaded, ids) for ids in (prompt.clean, prompt.corrupted)]
        candidates = list(prompt.candidates)
        assert line.clean_right == (candidates[int(clean[candidates].argmax())] == prompt.answer)
        assert line.corrupted_right == (candidates[int(corrupted[candidates].argmax())] == prompt.contrast)
        high, low = (float(logits[prompt.answer] - logits[prompt.contrast]) for logits in runs)
        assert (line.clean, line.corrupted, line.gap) == pytest.approx((high, low, high - low), abs=1e-5)
        assert (line.group, line.difficulty) == (prompt.group, prompt.difficulty)
        for text, logits in (("clean", clean), ("corrupted", corrupted)):
            written = [getattr(line, f"{name}_{text}") for name in others]
            if line.status == "retained":
                assert written == pytest.approx(by_hand(prompt, logits, clean)[1:], abs=1e-5)
            else:
                assert pd.isna(written).all()


def test_every_line_is_that_of_a_plain_forward_pass(loaded: LoadedModel, found: Patching, given: list[Prompt]) -> None:
    assert list(found.cells) == COLUMNS
    assert len(found.cells) == 2 * 4 * loaded.n_layers * LENGTH
    assert found.max_error < 1e-4
    gaps = found.retention.set_index("item").gap
    for prompt in (prompt for prompt in given if prompt.item in set(found.cells["item"])):
        runs = [record(loaded, ids, suffixes=False) for ids in (prompt.clean, prompt.corrupted)]
        for line in found.cells[found.cells["item"] == prompt.item].itertuples():
            patched, donor = (runs[number] for number in DIRECTIONS[line.direction])
            cell = (Patch(Site("resid_pre", line.layer), (line.position,), donor.stream[line.layer, [line.position]]),)
            logits = full_logits(loaded, patched.ids, cell)
            metrics = by_hand(prompt, logits, runs[0].logits)
            assert [getattr(line, name) for name in MIN_GAPS] == pytest.approx(metrics, abs=1e-5)
            before = float(prompt.logit_difference(patched.logits))
            assert line.effect == pytest.approx(metrics[0] - before, abs=1e-5)
            assert line.recovery == pytest.approx(line.effect / gaps[prompt.item])
            assert (line.group, line.token, line.role) == (
                prompt.group, prompt.tokens[line.position], prompt.roles[line.position],
            )  # fmt: skip
    about = found.cells[["donor", "site", "by", "window"]].drop_duplicates()
    assert about.to_numpy().tolist() == [["contrast", "resid_pre", "position", 1]]
    assert found.cells[["head", "neurons"]].isna().all(axis=None)


def test_where_the_runs_are_equal_the_effect_is_exactly_zero(found: Patching) -> None:
    cells = found.cells
    same = (cells.position < 2) | ((cells.layer == 0) & ~cells.position.isin(EDITED))
    assert (cells.effect[same] == 0).all()
    assert (cells.recovery[same] == 0).all()
    above = (cells.layer > 0) & (cells.position >= 2)
    assert (cells.effect[above].abs() > 1e-3).mean() > 0.3


def test_nothing_retained_leaves_empty_tables(loaded: LoadedModel, given: list[Prompt]) -> None:
    wrong = [prompt for prompt in given if prompt.item.startswith("clean wrong")]
    for donor in ("contrast", "mean", "random", "identity"):
        found = patch_prompts(loaded, wrong, max_items=4, donor=donor)
        assert found.retention.status.tolist() == ["answered wrongly"] * 2
        assert found.cells.empty
        assert list(found.cells) == COLUMNS
        assert (found.checked, found.max_error) == (0, 0.0)
        assert summarise(found.cells).empty


def test_progress_counts_texts_read_and_prompts_patched(loaded: LoadedModel, given: list[Prompt]) -> None:
    steps: list[tuple[int, int]] = []
    patch_prompts(loaded, given[2:5], max_items=9, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(done, 9) for done in range(1, 10)]  # three prompts' two texts, then each patched or passed over


@pytest.mark.parametrize("check_exact", [0, 3, 9])
def test_checked_cells_are_spread_over_items(
    loaded: LoadedModel, given: list[Prompt], monkeypatch: pytest.MonkeyPatch, check_exact: int
) -> None:
    checked: list[tuple[tuple[int, ...], str, tuple[int, ...]]] = []

    def noted(model: LoadedModel, ids: tuple[int, ...], cell: suffix.Cell) -> torch.Tensor:
        checked.append((ids, str(cell[0].site), cell[0].positions))
        return full_logits(model, ids, cell)

    monkeypatch.setattr(sweep, "full_logits", noted)
    found = patch_prompts(loaded, given, directions=BOTH, max_items=4, check_exact=check_exact, seed=1)
    assert found.checked == len(checked) == 2 * check_exact
    assert len(set(checked)) == len(checked)
    right = [prompt for prompt in given if prompt.item in set(found.cells["item"])]
    counts = Counter(ids for ids, _, _ in checked)
    shares = [(counts[prompt.clean], counts[prompt.corrupted]) for prompt in right]  # noising, denoising
    assert all(noising == denoising for noising, denoising in shares)
    assert max(shares)[0] - min(shares)[0] <= 1
    assert all(max(positions) >= EDITED[0] for _, _, positions in checked), "checked where nothing changes"


def test_other_seeds_check_other_cells(
    loaded: LoadedModel, given: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with batches so small that drawn cells come from many of them."""
    drawn = []
    for seed, limit in ((0, None), (1, None), (0, 3)):
        seen: list[tuple[str, tuple[int, ...]]] = []

        def noted(model: LoadedModel, ids: tuple[int, ...], cell: suffix.Cell, seen: Any = seen) -> torch.Tensor:
            seen.append((str(cell[0].site), cell[0].positions))
            return full_logits(model, ids, cell)

        monkeypatch.setattr(sweep, "full_logits", noted)
        if limit is not None:
            monkeypatch.setattr(sweep, "MAX_CELLS", limit)
        patch_prompts(loaded, given[:1], max_items=1, check_exact=4, seed=seed)
        drawn.append(set(seen))
    assert drawn[0] != drawn[1]
    assert drawn[0] == drawn[2]


def test_the_exactness_check_reports_the_error_it_finds(make_model: MakeModel, given: list[Prompt]) -> None:
    """A model that adds to its logits what patching does not know of, too little to be refused outright."""
    odd = make_model("llama")
    handle = odd.model.register_forward_hook(
        lambda _module, _args, output: setattr(output, "logits", output.logits + 5e-5)
    )
    found = patch_prompts(odd, given[:2], max_items=1, check_exact=1)
    handle.remove()
    assert found.max_error == pytest.approx(5e-5, rel=0.1)


def test_logits_that_are_quite_other_are_refused(make_model: MakeModel, given: list[Prompt]) -> None:
    odd = make_model("llama")
    handle = odd.model.register_forward_hook(
        lambda _module, _args, output: setattr(output, "logits", output.logits + 0.5)
    )
    before = state(odd)
    with pytest.raises(TwinprobeError, match="recomputed logits are off by 0.5; this architecture is not supported"):
        patch_prompts(odd, given[:2], max_items=1)
    assert state(odd) == before
    handle.remove()


def test_same_seed_same_tables(loaded: LoadedModel, found: Patching, given: list[Prompt]) -> None:
    again = patch_prompts(loaded, given, directions=BOTH, max_items=4, check_exact=3, seed=1)
    pd.testing.assert_frame_equal(again.cells, found.cells)
    pd.testing.assert_frame_equal(again.retention, found.retention)
    assert again.max_error == found.max_error


@pytest.mark.parametrize(("room", "limit"), [("MAX_LOGITS", 397 * 2), ("MAX_CELLS", 5)])
def test_little_memory_gives_the_same_table(
    loaded: LoadedModel, given: list[Prompt], found: Patching, monkeypatch: pytest.MonkeyPatch, room: str, limit: int
) -> None:
    sizes, asked = [], []

    def noted(model: LoadedModel, run: Any, cells: Sequence[suffix.Cell]) -> Any:
        asked.append(len(cells))
        for numbers, logits in suffix.suffix_batches(model, run, cells):
            sizes.append(len(numbers))
            yield numbers, logits

    monkeypatch.setattr(sweep if room == "MAX_CELLS" else suffix, room, limit)
    monkeypatch.setattr(sweep, "suffix_batches", noted)
    again = patch_prompts(loaded, given, directions=BOTH, max_items=4, check_exact=3, seed=1)
    pd.testing.assert_frame_equal(again.cells, found.cells, rtol=1e-4, atol=1e-5)
    assert again.checked == found.checked
    assert max(asked) == (5 if room == "MAX_CELLS" else loaded.n_layers * LENGTH)
    assert max(sizes) <= 5
    assert len(sizes) >= 2 * 4 * 4


def test_the_model_is_left_as_it_was(make_model: MakeModel, given: list[Prompt]) -> None:
    """Also when patching is broken off in the middle."""
    model = make_model("llama")
    before = state(model)
    for donor in ("contrast", "mean", "random"):
        patch_prompts(model, given, grids=[Grid("z", "all"), Grid("mlp_post", "role")], donor=donor, max_items=2)
        assert state(model) == before

    def stop(done: int, total: int) -> None:
        if done > 2 * len(given) + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        patch_prompts(model, given, max_items=2, progress=stop)
    assert state(model) == before


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "site": ("llama", {"grids": [Grid("resid_pro")]}, "site 'resid_pro' can not be patched (did you mean 'resid_pre'"),
    "site of no run": (
        "llama",
        {"grids": [Grid("pattern")]},
        "site 'pattern' can not be patched (did you mean 'attn_out'?); expected one of",
    ),
    "by": ("llama", {"grids": [Grid("z", "roles")]}, "a grid by 'roles' (did you mean 'role'?)"),
    "direction": ("llama", {"directions": ("noisng",)}, "direction 'noisng' is not known (did you mean 'noising'"),
    "donor": ("llama", {"donor": "means"}, "donor 'means' is not known (did you mean 'mean'?)"),
    "neurons elsewhere": ("llama", {"grids": [Grid("z", neurons=4)]}, "groups of 4 neurons at z; expected"),
    "no neurons": ("llama", {"grids": [Grid("mlp_post", neurons=0)]}, "groups of 0 neurons at mlp_post"),
    "no window": ("llama", {"grids": [Grid("z", window=0)]}, "a window of 0 layers; expected 1 or more"),
    "long window": ("llama", {"grids": [Grid("z", window=4)]}, "a window of 4 layers in tiny-llama, which has 3"),
    "fused": ("gpt2", {"grids": [Grid("q")]}, "projects queries, keys and values in one"),
    "parallel": ("codegen", {"grids": [Grid("resid_mid")]}, "so it has no resid_mid"),
    "lonely": ("llama", {"donor": "random", "max_items": 1}, "needs 2 retained items or more, and 1 is retained"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_line(tiny: Callable[[str], LoadedModel], given: list[Prompt], case: str) -> None:
    architecture, options, said = REFUSED[case]
    with pytest.raises(TwinprobeError) as caught:
        patch_prompts(tiny(architecture), given, **{"max_items": 2, **options})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_prompts_are_refused(loaded: LoadedModel) -> None:
    with pytest.raises(TwinprobeError, match="no prompts to patch"):
        patch_prompts(loaded, [], max_items=2)


def test_prompts_of_one_item_are_told_apart_by_their_ids_alone(loaded: LoadedModel, given: list[Prompt]) -> None:
    """An item's cells do not depend on what else is patched."""
    alone = patch_prompts(loaded, given[1:2], directions=BOTH, max_items=1, check_exact=0)
    renamed = dataclasses.replace(given[1], item="renamed")
    beside = patch_prompts(loaded, [given[0], renamed], directions=BOTH, max_items=2, check_exact=0)
    theirs = beside.cells[beside.cells["item"] == "renamed"].reset_index(drop=True)
    pd.testing.assert_frame_equal(theirs.drop(columns="item"), alone.cells.drop(columns="item"), atol=1e-6)
