"""The site language: what is written parses back, what is wrong says so in one line."""

from __future__ import annotations

import h5py
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from activations.errors import TwinprobeError
from activations.sites import (
    DESCRIPTIONS,
    KV_HEADS,
    WITH_HEADS,
    WITHOUT_LAYER,
    Shape,
    Site,
    parse_site,
    parse_sites,
    select_sites,
)

LAYERS, HEADS = 12, 4
GROUPED = Shape(LAYERS, HEADS, 2)
TWO_STACKS = {"encoder": GROUPED, "decoder": Shape(6, HEADS, 2)}
HOOKS = ("attn.hook_attn_scores", "hook_resid_mid", "ln1.hook_scale", "mlp.out.hook_in")


@st.composite
def sites(draw: st.DrawFn, stack: str | None = None) -> Site:
    shape = GROUPED if stack is None else TWO_STACKS[stack]
    name = draw(st.sampled_from(sorted(DESCRIPTIONS)))
    if name in WITHOUT_LAYER:
        return Site(name, stack=stack)
    heads = shape.kv_heads if name in KV_HEADS else shape.heads
    head = draw(st.none() | st.integers(0, heads - 1)) if name in WITH_HEADS else None
    return Site(name, draw(st.integers(0, shape.layers - 1)), head, stack)


@st.composite
def hooks(draw: st.DrawFn, blocks: str = "blocks", layers: int = LAYERS) -> Site:
    if draw(st.booleans()):
        return Site(draw(st.sampled_from(["hook_embed", "unembed.hook_in", "ln_final.hook_normalized"])))
    return Site(f"{blocks}.{draw(st.integers(0, layers - 1))}.{draw(st.sampled_from(HOOKS))}")


@given(st.lists(sites() | hooks(), min_size=1, unique=True))
def test_a_written_site_parses_back_to_itself(chosen: list[Site]) -> None:
    for site in chosen:
        assert parse_site(str(site)) == site
    written = [str(site) for site in chosen]
    assert select_sites(written, {None: GROUPED}) == tuple(chosen)
    assert select_sites(" , ".join(written), {None: GROUPED}) == parse_sites(written, LAYERS, HEADS) == tuple(chosen)
    assert len({site.dataset for site in chosen}) == len(chosen)


@given(
    st.lists(
        sites("encoder") | sites("decoder") | hooks("encoder_blocks") | hooks("decoder_blocks", 6),
        min_size=1,
        unique=True,
    )
)
def test_a_written_site_of_two_stacks_parses_back_to_itself(chosen: list[Site]) -> None:
    assert select_sites([str(site) for site in chosen], TWO_STACKS) == tuple(chosen)
    assert [parse_site(str(site)) for site in chosen] == chosen
    assert len({site.dataset for site in chosen}) == len(chosen)


@given(st.lists(sites() | sites("encoder") | sites("decoder") | hooks(), min_size=1, unique=True))
def test_datasets_are_paths_that_an_hdf5_file_can_hold_together(chosen: list[Site]) -> None:
    with h5py.File("sites", "w", driver="core", backing_store=False) as file:
        for site in chosen:
            file[site.dataset] = [1.0]
        assert all(site.dataset in file for site in chosen)


PIECES = [*"0123456789.*-:, ²٣\n", "resid_post.", "embed", "z.", "encoder.", "blocks", "hook_x", "attn."]
SYNTAX = st.lists(st.sampled_from(PIECES)).map("".join)


@given(SYNTAX | st.text() | st.builds("{}.{}".format, st.sampled_from(sorted(DESCRIPTIONS)), SYNTAX))
@example("z.0.²")
@example("resid_post.3\n")
@example("resid_post." + "9" * 5000)
@example("resid_post.٣")
@example("blocks.*.attn.*.hook_x")
@example("blocks." + "9" * 5000 + ".hook_x")
@example("blocks.٣.hook_x")
@settings(max_examples=400)
def test_any_selection_parses_or_is_refused(selection: str) -> None:
    for shapes in ({None: GROUPED}, TWO_STACKS):
        try:
            found = select_sites(selection, shapes)
        except TwinprobeError as error:
            assert "\n" not in str(error)
            continue
        assert found
        for site in found:
            assert parse_site(str(site)) == site
            assert site.is_hook or site.stack in shapes
            assert site.layer is None or 0 <= site.layer < LAYERS
            assert site.head is None or 0 <= site.head < HEADS


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("resid_post.*", [f"resid_post.{layer}" for layer in range(LAYERS)]),
        (
            "resid_pre.0-11:2",
            ["resid_pre.0", "resid_pre.2", "resid_pre.4", "resid_pre.6", "resid_pre.8", "resid_pre.10"],
        ),
        ("mlp_out.3-5", ["mlp_out.3", "mlp_out.4", "mlp_out.5"]),
        ("embed,z.10-11.2,z.0,embed", ["embed", "z.10.2", "z.11.2", "z.0"]),
        ("k.1,k.1.1,pattern.2.3,rot_q.0", ["k.1", "k.1.1", "pattern.2.3", "rot_q.0"]),
        ("blocks.*.ln1.hook_scale", [f"blocks.{layer}.ln1.hook_scale" for layer in range(LAYERS)]),
        ("blocks.007.hook_in,blocks.7.hook_in,hook_embed", ["blocks.7.hook_in", "hook_embed"]),
    ],
)
def test_selections_expand_in_order_without_repeats(selection: str, expected: list[str]) -> None:
    assert [str(site) for site in parse_sites(selection, LAYERS, HEADS)] == expected


def test_each_stack_has_its_own_layers() -> None:
    found = select_sites("decoder.z.*.1,encoder.resid_post.9-11,decoder_blocks.*.hook_in", TWO_STACKS)
    assert [str(site) for site in found] == [
        *(f"decoder.z.{layer}.1" for layer in range(6)),
        *(f"encoder.resid_post.{layer}" for layer in (9, 10, 11)),
        *(f"decoder_blocks.{layer}.hook_in" for layer in range(6)),
    ]


@pytest.mark.parametrize(
    ("site", "expected"),
    [
        ("embed", "embed"),
        ("resid_post.3", "resid_post/3"),
        ("z.3.5", "z/3.5"),
        ("encoder.ln_final", "encoder/ln_final"),
        ("decoder.resid_post.3", "decoder/resid_post/3"),
        ("encoder.z.3.5", "encoder/z/3.5"),
        ("blocks.3.attn.hook_attn_scores", "hook/blocks.3.attn.hook_attn_scores"),
    ],
)
def test_a_site_s_dataset_is_fixed(site: str, expected: str) -> None:
    """Stores on disk have these paths."""
    assert parse_site(site).dataset == expected


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("resid_post.3", "this model has two stacks of layers; write 'encoder.resid_post.3' or 'decoder.resid_post.3'"),
        ("embed", "this model has two stacks of layers; write 'encoder.embed' or 'decoder.embed'"),
        ("decoder.resid_post.6", "layer 6 does not exist; this model has layers 0 to 5"),
        ("encoder.k.0.2", "head 2 does not exist; this model has key heads 0 to 1"),
        ("encoder.embed.0", "embed has no layers"),
        ("encoder", "unknown site 'encoder'"),
        ("encoder.decoder.z.0", "unknown site 'encoder.decoder.z.0'"),
        ("blocks.0.hook_in", "this model has no blocks; expected encoder_blocks or decoder_blocks"),
        ("decoder_blocks.6.hook_in", "layer 6 does not exist"),
    ],
)
def test_a_bad_selection_of_two_stacks_says_what_was_expected(selection: str, expected: str) -> None:
    with pytest.raises(TwinprobeError) as caught:
        select_sites(selection, TWO_STACKS)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("resid_pst.3", "unknown site 'resid_pst.3' (did you mean 'resid_post'"),
        ("", "unknown site ''; known: embed, "),
        ("embed,,ln_final", "unknown site ''"),
        ("embed.0", "'embed.0': embed has no layers; write 'embed'"),
        ("resid_post", "'resid_post': expected resid_post.LAYER, resid_post.* or resid_post.FIRST-LAST:STEP"),
        ("resid_post.1.2", "'resid_post.1.2': expected resid_post.LAYER"),
        ("resid_post.x", "'x' is not a layer, a range FIRST-LAST:STEP or *"),
        ("resid_post.-1", "'-1' is not a layer"),
        ("resid_post.12", "layer 12 does not exist; this model has layers 0 to 11"),
        ("resid_post.3-12", "layer 12 does not exist"),
        ("resid_post.5-3", "the range '5-3' is empty"),
        ("resid_post.0-3:0", "the range '0-3:0' is empty"),
        ("z.3.4", "head 4 does not exist; this model has heads 0 to 3"),
        ("z.3.x", "'x' is not a head number"),
        ("mlp_post.3.0", "'mlp_post.3.0': expected mlp_post.LAYER"),
        ("encoder.z.3", "this model has a single stack of layers; write 'z.3'"),
        ("blocks.12.attn.hook_q", "layer 12 does not exist; this model has layers 0 to 11"),
        ("encoder_blocks.0.hook_in", "this model has no encoder_blocks; expected blocks"),
        ("attn.*.hook_q", "* stands for a layer only"),
        ("blocks.*.attn.*.hook_q", "* stands for a layer only"),
        ("blocks.1-3.hook_in", "unknown site 'blocks.1-3.hook_in'"),
    ],
)
def test_a_bad_selection_says_what_was_expected(selection: str, expected: str) -> None:
    with pytest.raises(TwinprobeError) as caught:
        parse_sites(selection, LAYERS, HEADS)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_selected_is_refused() -> None:
    with pytest.raises(TwinprobeError, match="no site was selected"):
        parse_sites([], LAYERS, HEADS)


def test_one_site_is_one_site() -> None:
    with pytest.raises(TwinprobeError, match="expected exactly one, such as resid_post.3"):
        parse_site("resid_post.*")
    with pytest.raises(TwinprobeError, match=r"names 2 sites"):
        parse_site("embed,ln_final")


def test_positions_follow_the_forward_pass() -> None:
    order = ["embed", "q.0", "rot_q.0", "pattern.0", "z.0", "mlp_post.0", "mlp_out.0", "resid_post.0"]
    order += ["blocks.1.attn.hook_q", "resid_post.1", "ln_final"]
    positions = [parse_site(site).position(2) for site in order]
    assert positions == sorted(positions)
    assert parse_site("resid_post.0").position(2) == parse_site("resid_pre.1").position(2) == 1.0
    assert parse_site("ln_final").position(2) == parse_site("ln_final.hook_scale").position(2) == 2.0
    assert parse_site("hook_embed").position(2) == 0.0
    assert all(0 <= Site(name, 1).position(2) <= 2 for name in set(DESCRIPTIONS) - set(WITHOUT_LAYER))
