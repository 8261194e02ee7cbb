"""The site language: what is written parses back, what is wrong says so in one line."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from activations.errors import TwinprobeError
from activations.sites import DESCRIPTIONS, WITHOUT_LAYER, Site, parse_site, parse_sites

LAYERS, HEADS = 12, 4


@st.composite
def sites(draw: st.DrawFn) -> Site:
    name = draw(st.sampled_from(sorted(DESCRIPTIONS)))
    if name in WITHOUT_LAYER:
        return Site(name)
    head = draw(st.none() | st.integers(0, HEADS - 1)) if name == "z" else None
    return Site(name, draw(st.integers(0, LAYERS - 1)), head)


@given(st.lists(sites(), min_size=1, unique=True))
def test_a_written_site_parses_back_to_itself(chosen: list[Site]) -> None:
    for site in chosen:
        assert parse_site(str(site)) == site
    assert parse_sites([str(site) for site in chosen], LAYERS, HEADS) == tuple(chosen)
    assert parse_sites(" , ".join(str(site) for site in chosen), LAYERS, HEADS) == tuple(chosen)
    assert len({site.dataset for site in chosen}) == len(chosen)


PIECES = [*"0123456789.*-:, ²٣\n", "resid_post.", "embed", "z."]
SYNTAX = st.lists(st.sampled_from(PIECES)).map("".join)


@given(SYNTAX | st.text() | st.builds("{}.{}".format, st.sampled_from(sorted(DESCRIPTIONS)), SYNTAX))
@example("z.0.²")
@example("resid_post.3\n")
@example("resid_post." + "9" * 5000)
@example("resid_post.٣")
@settings(max_examples=400)
def test_any_selection_parses_or_is_refused(selection: str) -> None:
    try:
        found = parse_sites(selection, LAYERS, HEADS)
    except TwinprobeError as error:
        assert "\n" not in str(error)
        return
    assert found
    for site in found:
        assert parse_site(str(site)) == site
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
    ],
)
def test_selections_expand_in_order_without_repeats(selection: str, expected: list[str]) -> None:
    assert [str(site) for site in parse_sites(selection, LAYERS, HEADS)] == expected


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
    order = ["embed", "z.0", "mlp_out.0", "resid_post.0", "attn_out.1", "resid_post.1", "ln_final"]
    positions = [parse_site(site).position(2) for site in order]
    assert positions == sorted(positions)
    assert parse_site("resid_post.0").position(2) == parse_site("resid_pre.1").position(2) == 1.0
    assert parse_site("ln_final").position(2) == 2.0
