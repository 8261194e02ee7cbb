"""Patching by suffixes: equal to one plain forward pass with a hook per cell, and nothing else is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import torch
from conftest import ARCHITECTURES
from other_models import CLEAN, CORRUPTED, FIRST_DIFFERENCE, SMALL, other_model, state
from test_last_position import UNSHARED

from activations.engines.hooks import input_tensor
from activations.engines.places import served
from activations.errors import TwinprobeError
from activations.sites import Site, parse_site
from analyses.patching import suffix
from analyses.patching.cells import SITES, Cell, Patch
from analyses.patching.exactness import full_logits, has_suffixes
from analyses.patching.lanes import lane_mask, lay_out, pack
from analyses.patching.recording import STREAM, Recording, record
from analyses.patching.suffix import suffix_logits

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.models import LoadedModel

LAST = len(CLEAN) - 1
WINDOWED = {name: {"sliding_window": 4} for name in ("gemma2", "mistral")}  # shorter than the prompt


def sites_of(loaded: LoadedModel) -> list[Site]:
    return [site for site in served(loaded) if site.name in SITES]


def recorded(loaded: LoadedModel, *, suffixes: bool = True) -> tuple[Recording, Recording]:
    """The clean and the corrupted run."""
    inside = [site for site in sites_of(loaded) if site.name not in STREAM]
    return record(loaded, CLEAN, inside, suffixes=suffixes), record(loaded, CORRUPTED, inside, suffixes=suffixes)


def restoring(loaded: LoadedModel, clean: Recording, site: str, *positions: int) -> Cell:
    """A cell with the clean run's values; of a head, if the site names one."""
    parsed = parse_site(site)
    states = clean.at(Site(parsed.name, parsed.layer))[list(positions)]
    if parsed.head is not None:
        width = states.shape[1] // loaded.n_heads
        states = states[:, parsed.head * width : (parsed.head + 1) * width]
    return (Patch(parsed, positions, states),)


def random_cells(loaded: LoadedModel, clean: Recording, count: int = 40) -> list[Cell]:
    """Every site at some position, then random sites, heads and positions."""
    generator = torch.Generator().manual_seed(3)

    def draw(size: int) -> int:
        return int(torch.randint(size, (), generator=generator))

    sites = sites_of(loaded)
    cells = []
    for number in range(len(sites) + count):
        site = sites[number] if number < len(sites) else sites[draw(len(sites))]
        name = f"{site}.{draw(loaded.n_heads)}" if site.name == "z" and draw(2) else str(site)
        several = sorted({FIRST_DIFFERENCE + draw(LAST + 1 - FIRST_DIFFERENCE) for _ in range(1 + draw(3))})
        cells.append(restoring(loaded, clean, name, *several))
    return cells


def error(loaded: LoadedModel, corrupted: Recording, cells: Sequence[Cell]) -> float:
    """The largest difference of any logit from plain forward passes."""
    expected = torch.stack([full_logits(loaded, corrupted.ids, cell) for cell in cells])
    effects = (expected - corrupted.logits).abs().amax(-1)
    assert (effects > 0.01).float().mean() > 0.5, "the patches change nothing"
    return float((suffix_logits(loaded, corrupted, cells) - expected).abs().max())


@contextmanager
def slots_read(loaded: LoadedModel) -> Iterator[dict[int, list[tuple[int, ...]]]]:
    """While active, lists the lanes and slots of every call of every block."""
    seen: dict[int, list[tuple[int, ...]]] = {layer: [] for layer in range(loaded.n_layers)}

    def note(layer: int) -> Callable[..., None]:
        return lambda _module, args, kwargs: seen[layer].append(tuple(input_tensor(args, kwargs).shape[:2]))

    handles = [
        loaded.module(f"blocks.{layer}").register_forward_pre_hook(note(layer), with_kwargs=True) for layer in seen
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_suffix_is_one_plain_pass_per_cell(make_model: MakeModel, architecture: str) -> None:
    loaded = make_model(architecture, **WINDOWED.get(architecture, {}))
    assert has_suffixes(loaded, CORRUPTED)
    clean, corrupted = recorded(loaded)
    assert corrupted.past
    assert error(loaded, corrupted, random_cells(loaded, clean)) < 1e-5


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "codegen"])
def test_so_are_whole_prompts(tiny: Callable[[str], LoadedModel], architecture: str) -> None:
    loaded = tiny(architecture)
    clean, corrupted = recorded(loaded, suffixes=False)
    assert not corrupted.past
    assert error(loaded, corrupted, random_cells(loaded, clean)) < 1e-5


WHOLE = {
    "windows by where keys lie": UNSHARED["windows inside ordinary caches"],
    "recurrent layers": (
        "Lfm2Config",
        {**SMALL, "num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]},
    ),
}


@pytest.mark.parametrize("case", WHOLE)
def test_what_has_no_suffixes_is_run_in_whole(tiny: Callable[[str], LoadedModel], case: str) -> None:
    loaded = other_model(tiny, *WHOLE[case])
    assert not has_suffixes(loaded, CORRUPTED)
    clean, corrupted = (record(loaded, ids, suffixes=False) for ids in (CLEAN, CORRUPTED))
    cells = [restoring(loaded, clean, f"resid_pre.{layer}", 3, 5) for layer in range(loaded.n_layers)]
    assert error(loaded, corrupted, cells) < 1e-5


def test_attention_without_a_mask_of_its_own_has_no_suffixes(tiny: Callable[[str], LoadedModel]) -> None:
    assert not has_suffixes(other_model(tiny, *UNSHARED["positions from the mask"]), CORRUPTED)


def test_a_mask_of_numbers_is_spread_too(make_model: MakeModel) -> None:
    loaded = make_model("qwen2", attn_implementation="eager")
    clean, corrupted = recorded(loaded)
    assert corrupted.calls[0][1]["attention_mask"].dtype == torch.float32
    assert error(loaded, corrupted, random_cells(loaded, clean)) < 1e-5


def test_other_kernels_are_not_trusted_with_masks(make_model: MakeModel) -> None:
    loaded = make_model("llama")
    loaded.model.config._attn_implementation = "flex_attention"
    assert not has_suffixes(loaded, CORRUPTED)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(make_model: MakeModel, dtype: torch.dtype) -> None:
    loaded = make_model("llama")
    loaded.model.to(dtype)
    assert has_suffixes(loaded, CORRUPTED)
    clean, corrupted = recorded(loaded)
    assert error(loaded, corrupted, random_cells(loaded, clean)) < (0.1 if dtype == torch.bfloat16 else 0.02)


def test_only_suffixes_and_only_layers_above_are_computed(tiny: Callable[[str], LoadedModel]) -> None:
    loaded = tiny("llama")
    clean, corrupted = recorded(loaded)
    cells = [restoring(loaded, clean, f"resid_pre.{layer}", at) for layer in (1, 2) for at in range(5, 9)]
    with slots_read(loaded) as seen:
        suffix_logits(loaded, corrupted, cells)
    # Suffixes of 4, 3, 2 and 1 tokens: 4, 3 + 1 and 2 make three lanes.
    assert seen == {0: [], 1: [(3, 4)], 2: [(6, 4)]}


def test_what_can_not_change_anything_is_not_computed(tiny: Callable[[str], LoadedModel]) -> None:
    loaded = tiny("llama")
    clean, corrupted = recorded(loaded)
    everywhere = tuple(range(len(CLEAN)))
    cells = [
        restoring(loaded, clean, "resid_pre.2", 0, 1, 2),  # before the first difference
        *((Patch(site, everywhere, corrupted.at(site)),) for site in sites_of(loaded)),
        *(
            restoring(loaded, clean, f"{name}.2", 3, 7)
            for name in ("z", "attn_out", "resid_mid", "mlp_out", "resid_post")
        ),
    ]
    with slots_read(loaded) as seen:
        found = suffix_logits(loaded, corrupted, cells)
    assert not any(seen.values())
    assert torch.equal(found, corrupted.logits.expand(len(cells), -1))


def test_a_window_of_layers_is_one_run(tiny: Callable[[str], LoadedModel]) -> None:
    """Patches of several layers, some felt only through what others change, and groups of neurons."""
    loaded = tiny("llama")
    clean, corrupted = recorded(loaded)
    cells = [
        tuple(restoring(loaded, clean, f"{name}.{layer}", *at)[0] for layer in layers)
        for name in ("attn_out", "mlp_out", "resid_pre", "resid_post", "z")
        for layers in ((0, 1), (1, 2), (0, 1, 2))
        for at in ((4,), (3, 8))
    ]
    # The corrupted run's own values, where an earlier patch has changed the run.
    held = Patch(Site("mlp_out", 2), (5, 8), corrupted.at(Site("mlp_out", 2))[[5, 8]])
    cells += [(restoring(loaded, clean, "resid_pre.1", 4)[0], held)]
    neurons = clean.at(Site("mlp_post", 1))[[4, 8]]
    cells += [(Patch(Site("mlp_post", 1), (4, 8), neurons[:, start : start + 8], slice(start, start + 8)),)
              for start in (0, 8, 16)]  # fmt: skip
    assert error(loaded, corrupted, cells) < 1e-5
    assert float((suffix_logits(loaded, corrupted, cells[-4:-3]) - suffix_logits(
        loaded, corrupted, [restoring(loaded, clean, "resid_pre.1", 4)])).abs().max()) > 1e-4  # fmt: skip


def test_a_head_s_suffix_begins_at_the_first_difference(tiny: Callable[[str], LoadedModel]) -> None:
    loaded = tiny("gpt2")
    clean, corrupted = recorded(loaded)
    cells = [restoring(loaded, clean, f"z.{layer}.{head}", *range(9)) for layer in range(3) for head in range(4)]
    with slots_read(loaded) as seen:
        suffix_logits(loaded, corrupted, cells)
    assert seen == {0: [(4, 6)], 1: [(8, 6)], 2: [(8 + 1, 6)]}  # of the last layer, four last positions in one lane
    assert error(loaded, corrupted, cells) < 1e-5


@pytest.mark.parametrize(("limit", "most", "lanes"), [("MAX_TOKENS", 1, 1), ("MAX_TOKENS", 12, 2), ("MAX_SEEN", 50, 3)])
def test_a_call_stays_within_its_limits(
    tiny: Callable[[str], LoadedModel], monkeypatch: pytest.MonkeyPatch, limit: str, most: int, lanes: int
) -> None:
    loaded = tiny("llama")
    clean, corrupted = recorded(loaded)
    cells = random_cells(loaded, clean)
    whole = suffix_logits(loaded, corrupted, cells)
    monkeypatch.setattr(suffix, limit, most)
    with slots_read(loaded) as seen:
        found = suffix_logits(loaded, corrupted, cells)
    assert float((found - whole).abs().max()) < 1e-5
    width = len(CLEAN) - FIRST_DIFFERENCE
    assert {slots for calls in seen.values() for _, slots in calls} == {width}
    assert max(size for calls in seen.values() for size, _ in calls) == lanes


def test_no_cells_no_logits_and_prompts_of_one_token(tiny: Callable[[str], LoadedModel]) -> None:
    loaded = tiny("llama")
    short = record(loaded, (5,), suffixes=True)
    assert suffix_logits(loaded, short, []).shape == (0, len(short.logits))
    other = record(loaded, (7,), suffixes=True)
    cells = [(Patch(Site("resid_pre", layer), (0,), other.stream[layer]),) for layer in range(3)]
    assert float((suffix_logits(loaded, short, cells) - other.logits).abs().max()) < 1e-5


def test_the_model_is_left_as_it_was(make_model: MakeModel) -> None:
    loaded = make_model("gpt2")
    before = state(loaded)
    clean, corrupted = recorded(loaded)
    has_suffixes(loaded, CORRUPTED)
    suffix_logits(loaded, corrupted, random_cells(loaded, clean))
    assert state(loaded) == before
    with pytest.raises(IndexError):
        record(loaded, (3, 99_999), [Site("z", 0)], suffixes=True)
    assert state(loaded) == before


@pytest.mark.parametrize(
    ("site", "positions", "width", "said"),
    [
        ("embed", (1,), 16, "cell at embed: expected resid_pre, "),
        ("pattern.0", (1,), 16, "cell at pattern.0: expected resid_pre, "),
        ("resid_pre.3", (1,), 16, "of one of 3 layers"),
        ("resid_pre.1", (1, 9), 16, "positions [1, 9] are not all in a prompt of 9 tokens"),
        ("resid_pre.1", (1,), 15, "received values of 1 positions × width 15, expected 1 positions × width 16"),
        ("mlp_out.1", (1,), 16, "the run to patch was not recorded there"),
    ],
)
def test_cells_that_do_not_fit_are_refused(
    tiny: Callable[[str], LoadedModel], site: str, positions: tuple[int, ...], width: int, said: str
) -> None:
    loaded = tiny("llama")
    corrupted = record(loaded, CORRUPTED, suffixes=True)
    cell = (Patch(parse_site(site), positions, torch.zeros(len(positions), width)),)
    with pytest.raises(TwinprobeError) as caught:
        suffix_logits(loaded, corrupted, [cell])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lengths", [[], [5], [1, 2, 3, 4, 5], [5, 5, 1, 1, 1, 1, 3, 2]])
def test_every_suffix_is_in_one_lane(lengths: list[int]) -> None:
    lanes = pack(lengths, 5)
    assert sorted(index for lane in lanes for index in lane) == list(range(len(lengths)))
    assert len(lanes) == -(-sum(lengths) // 5)


def test_what_a_slot_reads() -> None:
    window = torch.ones(4, 4, dtype=torch.bool).tril().triu(-1)  # each position and the one before it
    lanes = lay_out([[1], [2, 3]], 4, 3, torch.device("cpu"))
    expected: Any = [
        [[1, 0, 0, 1, 0, 0], [0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 1, 1]],
        [[0, 1, 0, 1, 0, 0], [0, 0, 0, 1, 1, 0], [0, 0, 1, 0, 0, 1]],
    ]
    assert lane_mask(window, lanes)[:, 0].int().tolist() == expected
    added = torch.zeros(4, 4).masked_fill(~window, torch.finfo(torch.float32).min)
    assert (lane_mask(added, lanes)[:, 0] == 0).int().tolist() == expected
