"""The registry of pairs: complete, sourced, honest about what was not checked, and clear about mistakes."""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from typing import Any

import pytest

from activations.errors import TwinprobeError
from activations.pairs import (
    DESCRIPTIONS,
    FIELDS,
    JUDGEMENTS,
    Judgement,
    confounds,
    custom_pair,
    get_pair,
    load_pairs,
    parse_pairs,
)

PAIRS = load_pairs()
PUBLISHED = [name for name, pair in PAIRS.items() if pair.family != "embedded"]
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

ROW = {
    "name": '"a"',
    "family": '"f"',
    "base": '"org/a"',
    "code": '"org/b"',
    "kind": '"decoder"',
    "base_parameters": "1.0",
    "code_parameters": "2.0",
    "same_architecture": '"yes: same configuration"',
    "same_tokenizer": '"no: 32000 against 32016 entries"',
    "same_vocabulary_size": '"yes: 32000 rows"',
    "continued_from_base": '"yes: the card says so"',
    "extra_tokens": '"500B further tokens"',
    "context_changes": '"none: 4096 tokens"',
    "other_differences": '"none"',
    "sources": '["a paper"]',
    "unverified": "[]",
}


def registry(*rows: dict[str, str], head: str = "") -> str:
    """TOML text with one ``[[pair]]`` per row; values are already TOML."""
    tables = ("\n".join(f"{key} = {value}" for key, value in row.items()) for row in rows)
    return head + "".join(f"\n[[pair]]\n{table}\n" for table in tables)


def message(text: str) -> str:
    """The one line that parsing ``text`` fails with."""
    with pytest.raises(TwinprobeError) as caught:
        parse_pairs(text, "my.toml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        (r"codegen-(350m|2b|6b|16b)-(nl-multi|multi-mono|nl-mono)", 12),
        (r"codellama-(7|13|34|70)b", 4),
        (r"codellama-\d+b-python", 3),
        (r"qwen2\.5-(0\.5|1\.5|3|7|14|32)b", 6),
        (r"gemma-(2|7)b", 2),
        (r"deepseek-7b", 1),
        (r"granite-\db", 2),
        (r"starcoder(base|2)-\db", 4),
        (r"codebert|graphcodebert|codet5-base", 3),
        (r"embedded|embedded-null|embedded-added", 3),
    ],
)
def test_every_required_family_is_there(pattern: str, count: int) -> None:
    assert sum(bool(re.fullmatch(pattern, name)) for name in PAIRS) == count


def test_embedded_pairs_name_the_embedded_models() -> None:
    assert (get_pair("embedded").base, get_pair("embedded").code) == ("embedded:text", "embedded:code")
    assert get_pair("embedded-null").code == "embedded:text-seed2"
    assert get_pair("embedded").size_ratio == 1


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_row_is_sourced_and_readable(name: str) -> None:
    pair = PAIRS[name]
    assert HUB_ID.fullmatch(pair.base) and HUB_ID.fullmatch(pair.code) and pair.base != pair.code
    assert re.fullmatch(r"[a-z0-9.-]+", name)
    assert pair.sources
    said = confounds(pair)
    assert said and all(sentence.endswith(".") and "\n" not in sentence for sentence in said)
    assert pair.size_ratio is not None and 0.4 < pair.size_ratio < 1.5


@pytest.mark.parametrize("name", PAIRS)
def test_unverified_is_said(name: str) -> None:
    pair = PAIRS[name]
    assert bool(pair.unverified) == any(sentence.startswith("Unverified: ") for sentence in confounds(pair))


def test_family_values_are_all_used() -> None:
    document = tomllib.loads((files("activations") / "pairs.toml").read_text(encoding="utf-8"))
    assert set(document["family"]) <= {row["family"] for row in document["pair"]}
    assert all(set(shared) <= set(FIELDS) for shared in document["family"].values())


def test_codegen_steps_form_a_chain() -> None:
    for size in ("350m", "2b", "6b", "16b"):
        first, second, whole = (PAIRS[f"codegen-{size}-{step}"] for step in ("nl-multi", "multi-mono", "nl-mono"))
        assert (first.base, first.code, second.code) == (whole.base, second.base, whole.code)


def test_confounds_state_what_differs() -> None:
    text = " ".join(confounds(PAIRS["codellama-34b"]))
    for part in ("Architectures differ: 48 layers", "never published", "500B further tokens", "1000000", "0.49 times"):
        assert part in text
    assert "Tokenizers differ" not in text
    assert "Tokenizers differ" in " ".join(confounds(PAIRS["codellama-7b"]))


def test_nothing_to_report_is_not_reported() -> None:
    (pair,) = parse_pairs(registry({**ROW, "code_parameters": "1.0"}), "my.toml").values()
    assert confounds(pair) == [
        "Tokenizers differ: 32000 against 32016 entries.",
        "The code model saw 500B further tokens.",
    ]


def test_size_ratio_is_derived_and_said() -> None:
    (pair,) = parse_pairs(registry(ROW), "my.toml").values()
    assert pair.size_ratio == 2
    assert confounds(pair)[-1].startswith("Sizes differ: the code model has 2.00 times")


def test_family_values_are_shared_and_lists_are_joined() -> None:
    head = '[family.f]\nkind = "encoder"\nsources = ["shared"]\n'
    row = {key: value for key, value in ROW.items() if key != "kind"}
    (pair,) = parse_pairs(registry(row, head=head), "my.toml").values()
    assert (pair.kind, pair.sources) == ("encoder", ("shared", "a paper"))


def test_loading_hands_out_a_copy() -> None:
    load_pairs().clear()
    assert load_pairs() == PAIRS


def test_unknown_pair_suggests_the_nearest() -> None:
    with pytest.raises(
        TwinprobeError, match=r"'qwen2\.5-0\.5'.*did you mean 'qwen2\.5-0\.5b'.*twinprobe show pairs"
    ) as caught:
        get_pair("qwen2.5-0.5")
    assert "\n" not in str(caught.value)


def test_custom_pair_claims_nothing() -> None:
    pair = custom_pair("/models/My Model/", "org/Coder-1B")
    assert (pair.name, pair.base, pair.code) == ("my-model-vs-coder-1b", "/models/My Model/", "org/Coder-1B")
    assert {getattr(pair, field).verdict for field in JUDGEMENTS} == {"unverified"}
    assert pair.size_ratio is None and pair.sources == ()
    (sentence,) = confounds(pair)
    assert all(field.replace("_", " ") in sentence for field in (*JUDGEMENTS, *DESCRIPTIONS))
    with pytest.raises(TwinprobeError, match="needs two models"):
        custom_pair("", "org/b")


def test_judgement_reads_what_it_writes() -> None:
    judgement = Judgement.parse("same_tokenizer", "no: see http://a.b")
    assert judgement == Judgement("no", "see http://a.b")
    assert str(judgement) == "no: see http://a.b"
    assert str(Judgement("unverified")) == "unverified"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"same_tokeniser": '"yes: a"'}, "unknown field 'same_tokeniser' (did you mean 'same_tokenizer'"),
        ({"kind": None, "extra_tokens": None}, "lacks kind, extra_tokens"),
        ({"kind": '"diffusion"'}, "kind must be one of decoder, encoder, encoder-decoder, got 'diffusion'"),
        ({"same_tokenizer": '"maybe: who knows"'}, "same_tokenizer must open with yes, no or unverified"),
        ({"same_tokenizer": '"no"'}, "same_tokenizer needs its reason after a colon"),
        ({"same_tokenizer": '"unverified: not compared"'}, "unverified but not named in 'unverified'"),
        ({"base_parameters": "0"}, "base_parameters must be a positive number of billions, got 0"),
        ({"code_parameters": '"7B"'}, "code_parameters must be a positive number of billions, got '7B'"),
        ({"sources": '"a paper"'}, "sources must be a list of strings"),
        ({"unverified": '["tokenizer"]'}, "unverified names 'tokenizer', which is not a field"),
        ({"base": '""'}, "base must be a non-empty string"),
    ],
)
def test_mistakes_in_a_row_are_named(change: dict[str, Any], expected: str) -> None:
    row = {key: value for key, value in {**ROW, **change}.items() if value is not None}
    text = message(registry(row))
    assert text.startswith("my.toml: pair 'a'")
    assert expected in text


def test_name_used_twice() -> None:
    assert message(registry(ROW, ROW)) == "my.toml: pair 'a' is listed twice; names must be unique"


def test_nameless_pair_is_counted() -> None:
    row = {key: value for key, value in ROW.items() if key != "name"}
    assert message(registry(ROW, row)).startswith("my.toml: pair 'number 2' lacks name")


def test_broken_toml() -> None:
    assert message("[[pair").startswith("my.toml: not valid TOML")
