from __future__ import annotations

import base64
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from tiny import HOSTILE, make_study

from analyses.report import page
from analyses.report.page import look, write_report

VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """The elements of a page; fails on a tag that is closed out of order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += data

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    written = write_report(out, *make_study(out))
    assert sorted(path.relative_to(out).as_posix() for path in written) == [
        "figures/comparisons.png",
        "figures/layers.png",
        "figures/patching-nesting-code.png",
        "figures/scores.png",
        "figures/transfer.png",
        "report.html",
    ]
    return out


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


def test_the_page_needs_nothing_from_outside(html: str) -> None:
    elements = Page(html).elements
    loaded = [
        value for _, attributes in elements for name, value in attributes.items() if name in ("src", "href", "srcset")
    ]
    assert loaded
    assert all(str(value).startswith(("data:", "#")) for value in loaded)
    assert not {"script", "iframe", "object", "embed"} & {tag for tag, _ in elements}
    assert "@import" not in html and "url(" not in html


def test_every_link_inside_the_page_arrives(html: str) -> None:
    read = Page(html)
    places = {attributes["id"] for _, attributes in read.elements if "id" in attributes}
    assert {str(link["href"]).removeprefix("#") for link in read.attributes("a")} <= places


def test_every_picture_is_inside_and_described(run: Path, html: str) -> None:
    images = Page(html).attributes("img")
    data = {base64.b64decode(str(image["src"]).removeprefix("data:image/png;base64,")) for image in images}
    assert data == {path.read_bytes() for path in (run / "figures").glob("*.png")}
    assert all(len(str(image["alt"])) > 40 and re.search(r"\d\.\d", str(image["alt"])) for image in images)


def test_settings_are_shown_by_their_value(html: str) -> None:
    # In a template, ``settings.items`` is the method of the dictionary, not the setting called items.
    text = Page(html).text
    assert " object at 0x" not in text
    assert re.search(r"\d+ items per task", text)
    assert re.search(r"up to \d+ retained ones patched", text)


def test_names_come_through_as_text(html: str) -> None:
    assert HOSTILE not in html
    assert Page(html).text.count(HOSTILE) >= 2  # base and the random model; the title


def test_the_numbers_are_those_of_the_results(tmp_path: Path) -> None:
    results, tables = make_study(tmp_path)
    results["tables"]["scores"][0]["bits_per_byte"] = 7.654321
    results["tables"]["retention"][0]["both_right"] = 987
    write_report(tmp_path, results, tables)
    text = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "7.654" in text
    assert "base answers 987 of 10 prompts" in text


def test_what_is_missing_is_said(html: str) -> None:
    text = Page(html).text
    assert text.count("not formed: in-form gain too small") == 4  # one direction of each model
    assert "no usable prompt" in text and "token counts differ (7)" in text
    assert "Nothing was retained for any model in nesting, prose form." in text
    assert "code answers 4 of 10 prompts rightly in both texts (guessing among the candidates: about 2)" in text


@pytest.mark.parametrize(
    "absent", [("patching",), ("patching", "retention"), ("transfer",), ("scores",), ("comparisons", "examples")]
)
def test_a_study_may_lack_a_part(tmp_path: Path, absent: tuple[str, ...]) -> None:
    results, tables = make_study(tmp_path)
    for name in absent:
        tables[name] = tables[name].iloc[:0]
        results["tables"][name] = []
    if "comparisons" in absent:
        results |= {"findings": [], "calibration": None}
    written = {path.stem for path in write_report(tmp_path, results, tables)}
    assert not any(path.startswith(absent) for path in written)
    Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_a_study_without_null_says_so(tmp_path: Path) -> None:
    results, tables = make_study(tmp_path, null=False)
    write_report(tmp_path, results, tables)
    text = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "no null pair" in text and "Without a null pair" in text


def test_a_map_of_an_earlier_study_goes_away(tmp_path: Path) -> None:
    results, tables = make_study(tmp_path)
    write_report(tmp_path, results, tables)
    write_report(tmp_path, results, tables | {"patching": pd.DataFrame()})
    assert not list((tmp_path / "figures").glob("patching-*"))


@pytest.mark.parametrize("name", ["style.css", "report.html.jinja", "figures.py"])
def test_another_look_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    shutil.copytree(page.HERE, tmp_path / "report")
    before = look()
    monkeypatch.setattr(page, "HERE", tmp_path / "report")
    assert look() == before
    with (tmp_path / "report" / name).open("a") as file:
        file.write("\n")
    assert look() != before
