"""Files of examples: every form is read, archives stay packed, and what is no example is refused by its line."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path

import pytest
from real_examples import real

from activations.errors import TwinprobeError
from analyses.pretraining.evaluation.finetuning import known_categories
from analyses.pretraining.evaluation.transformations import CategoryFrom, Example, read_examples, sample


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("category_from", "line", "expected"),
    [
        (
            "column",
            "A dog ran .\trun ( agent = dog )\tlexical",
            Example("A dog ran .", "run ( agent = dog )", "lexical"),
        ),
        (
            "last word",
            "the yak moved . decl\tthe yak moved .",
            Example("the yak moved . decl", "the yak moved .", "decl"),
        ),
        ("nothing", "a b\tb a", Example("a b", "b a", "")),
    ],
)
def test_a_line_is_an_example(tmp_path: Path, category_from: CategoryFrom, line: str, expected: Example) -> None:
    path = write(tmp_path / "examples.tsv", line, "", "a é b\t\u2028é\tlexical")
    assert read_examples(path, category_from)[0] == expected
    assert len(read_examples(path, category_from)) == 2


def test_an_archive_is_read_where_it_lies(tmp_path: Path) -> None:
    write(tmp_path / "one.tsv", "a b\tb a\tx")
    write(tmp_path / "two.tsv", "c d\td c\ty")
    for name, members in {"one.zip": ["one"], "both.zip": ["one", "two"]}.items():
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member in members:
                archive.write(tmp_path / f"{member}.tsv", f"sets/{member}.tsv")
    before = sorted(tmp_path.rglob("*"))
    assert read_examples(tmp_path / "one.zip", "column") == [Example("a b", "b a", "x")]
    assert read_examples(tmp_path / "both.zip" / "sets" / "two.tsv", "column") == [Example("c d", "d c", "y")]
    for path in ("both.zip", "both.zip/two.tsv"):
        with pytest.raises(TwinprobeError, match=r"name one file of the archive.* holds sets/one.tsv, sets/two.tsv"):
            read_examples(tmp_path / path, "column")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("lines", "category_from", "expected"),
    [
        (["a\tb\tx", "no tabs here"], "column", "line 2: 'no tabs here'; expected source, TAB, target, TAB, category"),
        (["a\tb"], "column", "expected source, TAB, target, TAB, category"),
        (["a\t \tx"], "nothing", "expected source, TAB, target"),
        ([""], "nothing", "has no examples"),
    ],
)
def test_a_line_that_is_none_is_refused(
    tmp_path: Path, lines: list[str], category_from: CategoryFrom, expected: str
) -> None:
    with pytest.raises(TwinprobeError, match="examples.tsv") as error:
        read_examples(write(tmp_path / "examples.tsv", *lines), category_from)
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_files_that_can_not_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.tsv").write_bytes("é\té".encode("latin-1"))
    (tmp_path / "broken.zip").write_bytes(b"no archive")
    for name, expected in {
        "absent.tsv": "no such file",
        "latin.tsv": "not UTF-8",
        "broken.zip": "can not be read",
    }.items():
        with pytest.raises(TwinprobeError, match=expected):
            read_examples(tmp_path / name, "nothing")


def test_a_sample_has_so_many_of_each_category_in_the_order_of_the_file() -> None:
    examples = [Example(str(number), "t", "rare" if number % 40 == 7 else "common") for number in range(100)]
    chosen = sample(examples, 10)
    assert Counter(example.category for example in chosen) == {"common": 10, "rare": 3}
    assert chosen == sorted(chosen, key=lambda example: int(example.source)) == sample(examples, 10)
    assert chosen != [*examples[:10], *chosen[10:]]
    assert sample(examples, None) == sample(examples, 1000) == examples


def test_the_kinds_of_cogs_are_those_of_its_generalisation_set() -> None:
    kinds = known_categories("cogs")
    assert Counter(kinds.values()) == {"lexical": 18, "structural": 3}
    for name in ("cogs", "cogs_vf"):
        assert {example.category for example in read_examples(real(f"{name}/gen.tsv"), "column")} == {*kinds}


def test_the_sets_of_slog_are_read_from_their_encrypted_archive() -> None:
    sets = real("slog") / "generalization_sets.zip"
    path = sets / "generalization_sets" / "gen_varfreeLF.tsv"
    examples = read_examples(path, "column", "SLOG")
    assert Counter(example.category for example in examples) == dict.fromkeys(known_categories("slog"), 1000)
    for password in (None, "wrong"):
        with pytest.raises(TwinprobeError, match="zip_password"):
            read_examples(path, "column", password)


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(TwinprobeError, match="'scan'; expected cogs, slog"):
        known_categories("scan")
