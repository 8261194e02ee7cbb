from __future__ import annotations

import base64
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tiny import HOSTILE, make_study, make_tables
from tiny_across import NOT_ALIGNED
from tiny_evidence import WHY

from analyses.report import page
from analyses.report.page import look, render, write_report
from analyses.report.pictures import MAPS, draw

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


def without_pictures(out: Path, results: dict[str, Any]) -> Page:
    """The page of results, where its pictures do not matter."""
    return Page(render(results, (out / "study.toml").read_text(encoding="utf-8"), {}))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    written = write_report(out, *make_study(out))
    assert sorted(path.relative_to(out).as_posix() for path in written) == [
        "figures/across.png",
        "figures/alike.png",
        "figures/benchmarks-radar.png",
        "figures/benchmarks.png",
        "figures/between-layers.png",
        "figures/comparisons.png",
        "figures/difficulty.png",
        "figures/heads-nesting-code.png",
        "figures/interventions.png",
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
    results, _ = make_study(tmp_path)
    results["tables"]["scores"][0]["bits_per_byte"] = 7.654321
    results["tables"]["retention"][0]["both_right"] = 987
    text = without_pictures(tmp_path, results).text
    assert "7.654" in text
    assert "base answers 987 of 10 prompts" in text


def test_what_is_missing_is_said(html: str) -> None:
    text = Page(html).text
    assert text.count("not formed: in-form gain too small") == 4  # one direction of each model
    assert "no usable prompt" in text and "token counts differ (7)" in text
    assert "Nothing was retained for any model in nesting, prose form." in text
    assert "code answers 4 of 10 prompts rightly in both texts (guessing among the candidates: about 2)" in text
    assert text.count("not mapped: base has no resid_post.0") == 1
    assert f"binding value, code (base, code, second seed): {WHY}; no prompt was left" in text


def test_the_probes_are_shown_by_every_measure(html: str) -> None:
    text = Page(html).text
    assert text.count("0.344") == 12  # the embedding: four models, three targets and forms
    assert text.count("0.812") == 12  # AUROC
    assert text.count("1.46") == text.count("1.02") == 12  # compression, of labels and of control labels
    assert text.count("0.44 (0.25 to 0.50)") == 8  # R², where the labels are numbers
    assert text.count("0.50 / 0.12 / +0.38") == 24  # capacity: two families
    assert "standard deviation" not in text


def test_several_draws_are_shown_with_their_spread(tmp_path: Path) -> None:
    results, _ = make_study(tmp_path)
    for line in results["tables"]["probes"]:
        line |= {"seeds": 3, "seed_spread": 0.0625}
    text = without_pictures(tmp_path, results).text
    assert text.count("0.062") == 12 and "the spread is the standard deviation" in text


def test_a_ratio_is_only_shown_above_the_controls(html: str) -> None:
    text = Page(html).text
    assert text.count("0.47 (0.20 to 0.80)") == 6  # the code form of two tasks in three directions
    assert text.count("not above the controls") == 2  # prose, but one direction was not mapped
    assert text.count("0.59 (0.30 to 0.90)") == 4  # the form left out, by every model


def test_interventions_show_what_they_did(html: str) -> None:
    text = Page(html).text
    assert text.count("−0.50 (−0.70 to −0.30)") == text.count("−0.60 (−0.80 to −0.40)") == 4
    assert "0.58 → 0.42 (0.57)" in text and "0.19 → 0.75 (0.20)" in text
    assert text.count("code, removal: in 2 of 2 targets and forms") == 2  # among the findings and in its section


def test_benchmarks_have_their_table_and_pictures(html: str) -> None:
    read = Page(html)
    assert "#benchmarks" in {str(link["href"]) for link in read.attributes("a")}
    text = re.sub(r"\s+", " ", read.text)
    assert "generated_arithmeticacc, 1 example 480.250 0.312".replace(" ", "") in text.replace(" ", "")
    assert "+0.4380.31 to 0.56" in text and "acc, 1 example, 25% cut" in text
    assert text.count("code and base differ at p < 0.05 in 1 of 3 tasks") == 2  # among the findings and in its section
    assert "base 2.125 on code text" in text and "go by the table and the intervals above" in text
    alts = " ".join(str(image["alt"]) for image in read.attributes("img"))
    assert "generated_arithmetic: base 0.31 (0.19 to 0.44), code 0.75 (0.62 to 0.88)" in alts
    assert "code 0.00 to 0.67 over 3 tasks" in alts


def test_where_heads_decide_is_told_and_drawn(html: str) -> None:
    read = Page(html)
    assert read.text.count("a single head at one role restores at least half of the answer in 1 of 1 task form") == 2
    assert "+0.75 (0.62 to 0.88)" in read.text and "−0.62 (−0.75 to −0.50)" in read.text
    heads = [str(image["alt"]) for image in read.attributes("img") if "by layer and head" in str(image["alt"])]
    assert ["most with layer 1, head 0 at role last" in text for text in heads] == [True]
    assert "(0.75, 0.62 to 0.88)" in heads[0]


def test_the_two_models_together_have_their_sections(html: str) -> None:
    read = Page(html)
    links = {str(link["href"]) for link in read.attributes("a")}
    assert {"#across", "#alike"} <= links
    assert read.text.count("code → base, residual stream at the last token: base’s lead rises") == 2
    assert "change nothing in any of 30 cells" in read.text
    assert f"binding, code · not aligned: {NOT_ALIGNED}" in read.text
    assert "+1.50 (1.00 to 2.00)" in read.text and "0.38 (0.25 to 0.50)" in read.text
    assert read.text.count("0.25 (0.19 to 0.50)") == 3 and read.text.count("all effects of code are equal") == 1
    assert "Jaccard, top 5" in read.text
    assert read.text.count("code text: CKA of base and code is lowest at embed") == 2
    alts = " ".join(str(image["alt"]) for image in read.attributes("img"))
    assert "code into base, nesting, code: most after layer 1, +1.50 logits" in alts
    assert "code text, base and second seed: 0.81 to 0.88" in alts


def test_what_is_in_the_report_is_not_said_to_be_missing(tmp_path: Path) -> None:
    results, _ = make_study(tmp_path)
    missing = "Not in this report: attribution patching (Kramár et al. 2024), paths between heads, circuits"
    assert f"{missing}." in without_pictures(tmp_path, results).text
    results["tables"]["cross"] = []
    heads = [line for line in results["tables"]["patching"] if line["head"] is not None]
    results["tables"]["patching"] = [line for line in results["tables"]["patching"] if line not in heads]
    assert f"{missing}, patching from one model into the other (Prakash et al. 2024), noising, single heads." in (
        without_pictures(tmp_path, results).text
    )


def test_models_that_can_not_exchange_activations_say_why(tmp_path: Path) -> None:
    results, _ = make_study(tmp_path)
    reason = "the width is 8 and 16"
    for name in TOGETHER:
        results["tables"][name] = []
    results["tables"]["cross_refused"] = [
        {"task": "nesting", "form": form, "reason": reason} for form in ("code", "prose")
    ]
    text = without_pictures(tmp_path, results).text
    assert f"silent about nesting, code; nesting, prose: {reason}." in text
    assert "No activation was put" not in text and "no prompt that either" not in text


def test_names_from_a_user_come_through_as_text(tmp_path: Path) -> None:
    results, tables = make_study(tmp_path)
    for name, lines in results["tables"].items():
        tables[name] = tables[name].replace(
            {"form": {"code": HOSTILE}, "role": {"opener": HOSTILE}, "kind": {"prose": HOSTILE}}
        )
        for line in lines:
            named = {key: HOSTILE for key in ("family", "source_forms", "why_dropped") if line.get(key)}
            given = (("form", "code"), ("role", "opener"), ("kind", "prose"))
            line |= named | {key: HOSTILE for key, value in given if line.get(key) == value}
    results["tables"]["cross_refused"] = [{"task": "roles", "form": HOSTILE, "reason": HOSTILE}]
    results["tables"]["overlap"][3]["reason"] = HOSTILE
    write_report(tmp_path, results, tables)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert HOSTILE not in html
    read = Page(html)
    assert read.text.count(HOSTILE) > 20
    assert sum(HOSTILE in str(image["alt"]) for image in read.attributes("img")) == 10  # all but transfer


def test_other_forms_than_code_and_prose_are_named_as_forms(tmp_path: Path) -> None:
    results, _ = make_study(tmp_path)
    assert "Between code and prose" in without_pictures(tmp_path, results).text
    results["tables"]["probes"][-1]["form"] = "Finnish"
    text = without_pictures(tmp_path, results).text
    assert "Between forms" in text and "between code and prose" not in text


EVIDENCE = ("difficulty", "capacity", "layers", "left_out", "mapped", "interventions")
TOGETHER = ("cross_retention", "cross", "overlap", "similarity")


@pytest.mark.parametrize(
    "absent",
    [
        ("patching",),
        ("patching", "retention"),
        ("transfer",),
        ("scores",),
        ("benchmarks",),
        ("comparisons", "examples"),
        EVIDENCE,
        ("cross", "overlap"),
        TOGETHER,
    ],
)
def test_a_study_may_lack_a_part(tmp_path: Path, absent: tuple[str, ...]) -> None:
    results, _ = make_study(tmp_path)
    results["tables"] |= {name: [] for name in absent}
    if "comparisons" in absent:
        results |= {"findings": [], "calibration": None}
    text = without_pictures(tmp_path, results).text
    assert ("No benchmark was run in this study" in text) == ("BIG-bench" not in text) == (absent == ("benchmarks",))
    if absent == EVIDENCE:
        assert (
            "No probe’s directions were changed in this study" in text
            and "No map between the models was fitted" in text
        )
        assert "By difficulty" not in text and "form left out" not in text and "larger capacity" not in text
    if absent == TOGETHER:
        assert "No activation was put from one model into the other in this study." in text
        assert "activations on neutral passages were not compared" in text
        assert "Do the same heads matter?" not in text and "Kornblith" not in text and "(CMAP" not in text
    if absent == ("cross", "overlap"):
        assert "no prompt that either model answers rightly" in text and "in nesting, prose: nothing could be" in text


@pytest.mark.parametrize(
    "absent",
    [
        ("patching", "transfer", "scores", "benchmarks", "comparisons", "examples", *TOGETHER),
        ("retention", *EVIDENCE),
    ],
)
def test_what_is_absent_is_not_drawn(tmp_path: Path, absent: tuple[str, ...]) -> None:
    results, tables = make_study(tmp_path)
    tables = {name: table.iloc[:0] if name in absent else table for name, table in tables.items()}
    results["tables"] |= {name: [] for name in absent}
    written = {path.stem for path in write_report(tmp_path, results, tables)}
    gone = {"layers": "between-layers", "cross": "across", "similarity": "alike"}
    assert not any(path.startswith(tuple(gone.get(name, name) for name in absent)) for path in written)
    assert ("across" in written) == ("alike" in written) == ("cross" not in absent)


def test_a_study_without_null_says_so(tmp_path: Path) -> None:
    results, _ = make_study(tmp_path, null=False)
    text = without_pictures(tmp_path, results).text
    assert "no null pair" in text and "Without a null pair" in text
    assert "second seed as the donor" not in text


def test_a_map_of_an_earlier_study_goes_away(tmp_path: Path) -> None:
    patching = {"patching": make_tables()["patching"]}
    assert set(draw(tmp_path, patching)) == {f"{kind}-nesting-code" for kind in MAPS}
    assert draw(tmp_path, {}) == {}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["style.css", "across.html.jinja", "figures.py"])
def test_another_look_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    shutil.copytree(page.HERE, tmp_path / "report")
    before = look()
    monkeypatch.setattr(page, "HERE", tmp_path / "report")
    assert look() == before
    with (tmp_path / "report" / name).open("a") as file:
        file.write("\n")
    assert look() != before
