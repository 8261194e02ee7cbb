"""``patch``: both models of a pair on a task or on one's own items; tables, heat maps, and who was patched at all."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from calling import contents, done, on_small_study, refused, twinprobe
from study_models import learned_items

import cli.patch

if TYPE_CHECKING:
    from conftest import MakeModel

PNG = b"\x89PNG\r\n\x1a\n"
RESIDUAL, EXAMPLE, HEADS = (
    f"patching-items-text-{name}.png"
    for name in ("resid_pre-position-denoising", "resid_pre-position-denoising-example", "z-role-denoising")
)


@pytest.fixture
def patch(study_file: Path, tmp_path: Path) -> Any:
    """``twinprobe patch`` on the two models of the small study, into ``tmp_path/patch``."""
    return on_small_study("patch", study_file, tmp_path / "patch")


@pytest.fixture
def items(tmp_path: Path) -> Path:
    """Items that ``base`` has learned; one more whose answers are one and the same token."""
    return learned_items(tmp_path / "items.jsonl", and_unusable=True)


def test_own_items_are_patched_in_both_models(patch: Any, items: Path, tmp_path: Path) -> None:
    shown = done(patch("--items", items, "--max-items", 4, "--check-exact", 2))
    out = tmp_path / "patch"
    assert set(contents(out)) == {
        "behaviour.csv", "patching.csv", "patching_cells.csv", "retention.csv", RESIDUAL, EXAMPLE, HEADS,
    }  # fmt: skip
    assert all((out / name).read_bytes().startswith(PNG) for name in (RESIDUAL, EXAMPLE, HEADS))
    retention = pd.read_csv(out / "retention.csv").set_index("model")
    assert list(retention.index) == ["base", "code"]
    assert retention.loc["base", "both_right"] >= 15, "base has learned these items"
    assert retention.loc["code", "both_right"] < 10
    assert retention.loc["base", "patched"] == 4
    assert (retention.not_aligned == 1).all() and retention.why_not_aligned.str.contains(
        "share their first token"
    ).all()
    assert (retention.checked <= 2).all() and (retention.max_error < 1e-4).all()
    for model, row in retention.iterrows():
        [line] = [line for line in shown.splitlines() if line.split()[:2] == [model, "text"]]
        assert line.split()[1:4] == ["text", str(row.prompts), str(row.both_right)]
    cells = pd.read_csv(out / "patching_cells.csv")
    assert set(zip(cells.site, cells.by, strict=True)) == {("resid_pre", "position"), ("z", "role")}
    means = (
        cells[(cells.model == "base") & (cells.site == "resid_pre")]
        .groupby(["layer", "role", "item"])
        .recovery.mean()
        .groupby(["layer", "role"])
        .mean()
    )
    table = pd.read_csv(out / "patching.csv")
    table = table[(table.model == "base") & (table.site == "resid_pre")].set_index(["layer", "role"])
    pd.testing.assert_series_equal(table.recovery.sort_index(), means.sort_index(), check_exact=False)
    assert str(out) in shown
    top = table.loc[table.effect.abs().idxmax()]
    [line] = [
        line for line in shown.splitlines() if line.split()[:4] == ["base", "layer", f"{top.name[0]},", top.name[1]]
    ]
    assert line.split()[4] == f"{top.recovery:.3f}"


def test_json_holds_retention_and_maps(patch: Any, items: Path, tmp_path: Path) -> None:
    shown = json.loads(
        done(patch("--items", items, "--max-items", 2, "--by", "all", "--json")), parse_constant=pytest.fail
    )
    assert shown["out"] == str(tmp_path / "patch")
    assert [line["model"] for line in shown["retention"]] == ["base", "code"]
    assert len(shown["patching"]) == len(pd.read_csv(tmp_path / "patch" / "patching.csv"))


def test_a_task_is_patched_in_the_form_asked_for(patch: Any, tmp_path: Path) -> None:
    shown = done(
        patch("--task", "nesting", "--form", "code", "--site", "resid_pre", "--max-prompts", 30, "--max-items", 2)
    )
    assert "Retention on nesting" in shown
    retention = pd.read_csv(tmp_path / "patch" / "retention.csv")
    assert list(retention.form) == ["code", "code"]
    assert (retention.prompts + retention.not_aligned >= 30).all()
    picture = tmp_path / "patch" / "patching-nesting-code-resid_pre-position-denoising.png"
    assert picture.read_bytes().startswith(PNG)


def test_nothing_retained_is_one_line_and_its_tables_stay(patch: Any, tmp_path: Path) -> None:
    """One text with two answers: nothing is right twice."""
    file = tmp_path / "items.jsonl"
    file.write_text('{"id": 1, "clean": "the", "answer": "]", "corrupted": "the", "contrast": ")"}\n')
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch" / "patching-of-an-earlier-run.png").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # pandas on joining empty tables
        ran = patch("--items", file)
    refused(
        ran, "nothing to patch on items", "base answers 1 of 1 prompts wrongly", "behaviour.csv", after_progress=True
    )
    assert {path.suffix for path in (tmp_path / "patch").iterdir()} == {".csv"}
    retention = pd.read_csv(tmp_path / "patch" / "retention.csv")
    assert list(retention.both_right) == list(retention.patched) == [0, 0]
    refused(patch("--items", file, "--attribution", "atp"), "nothing to patch on items", after_progress=True)


def test_no_item_that_fits_the_tokenizer_is_one_line(patch: Any, tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text('{"id": 1, "clean": "the", "answer": "]", "corrupted": "z z", "contrast": ")"}\n')
    refused(patch("--items", file), "no item of items can be patched", "token counts differ (1)")
    retention = pd.read_csv(tmp_path / "patch" / "retention.csv")
    assert list(retention.prompts) == [0, 0]
    assert list(retention.why_not_aligned) == ["token counts differ (1)"] * 2


def test_every_option_of_a_map_is_in_its_tables(patch: Any, items: Path, tmp_path: Path) -> None:
    options = ("--site", "mlp_post", "--site", "q", "--by", "all", "--neurons", 32, "--direction", "both")
    shown = done(patch("--items", items, "--max-items", 3, *options))
    table = pd.read_csv(tmp_path / "patch" / "patching.csv")
    assert set(table.direction) == {"denoising", "noising"}
    assert set(table.by) == {"all"}
    assert sorted(set(table[table.site == "mlp_post"].neurons)) == [0, 32]
    assert sorted(set(table[table.site == "q"]["head"])) == [0, 1, 2, 3]
    for title in ("denoising, mlp_post by all", "noising, q by all"):
        assert title in shown
    names = [f"patching-items-text-{s}-all-{d}.png" for s in ("mlp_post", "q") for d in ("denoising", "noising")]
    assert sorted(path.name for path in (tmp_path / "patch").glob("*.png")) == sorted(names)


def test_a_window_of_all_layers_brings_the_whole_answer(patch: Any, items: Path, tmp_path: Path) -> None:
    done(patch("--items", items, "--max-items", 2, "--site", "resid_post", "--by", "all", "--window", 2))
    table = pd.read_csv(tmp_path / "patch" / "patching.csv")
    assert list(table.window) == [2, 2]
    assert table.recovery.tolist() == pytest.approx([1, 1], abs=1e-4)


def test_the_identity_changes_nothing(patch: Any, items: Path, tmp_path: Path) -> None:
    done(patch("--items", items, "--max-items", 2, "--site", "resid_mid", "--donor", "identity"))
    cells = pd.read_csv(tmp_path / "patch" / "patching_cells.csv")
    assert len(cells) > 50 and (cells.effect == 0).all()


def test_another_metric_is_that_of_the_map(patch: Any, items: Path, tmp_path: Path) -> None:
    shown = done(
        patch("--items", items, "--max-items", 3, "--site", "resid_pre", "--by", "all", "--metric", "probability")
    )
    table, cells, behaviour = (
        pd.read_csv(tmp_path / "patch" / f"{name}.csv") for name in ("patching", "patching_cells", "behaviour")
    )
    assert "contrast donor, probability" in shown
    assert set(table.metric) == {"probability"}
    runs = behaviour[behaviour.model == "base"].set_index("item")
    cells = cells[cells.model == "base"]
    effects = cells.probability - cells["item"].map(runs.probability_corrupted)
    expected = effects.groupby(cells.layer).mean()
    assert table[table.model == "base"].effect.tolist() == pytest.approx(expected.tolist())
    assert expected.abs().max() > 0.1


def test_estimates_come_with_their_agreement(patch: Any, items: Path, tmp_path: Path) -> None:
    options = ("--attribution", "atp", "--site", "z", "--direction", "noising", "--max-items", 3, "--check-cells", 1)
    shown = done(patch("--items", items, *options))
    assert "Agreement of the estimates (atp) with exact patching" in shown
    assert "noising, z by position, contrast donor, estimated by atp" in shown
    agreement = pd.read_csv(tmp_path / "patch" / "agreement.csv").set_index("model")
    exact = pd.read_csv(tmp_path / "patch" / "attribution_exact.csv")
    exact = exact[exact.model == "base"]
    assert set(exact.direction) == {"noising"} and exact["item"].nunique() == agreement.maps["base"] == 1
    expected = exact.estimated.corr(exact.exact, method="spearman")
    assert agreement.spearman["base"] == pytest.approx(expected) and expected > 0.5
    assert not (tmp_path / "patch" / "patching.csv").exists()


def test_across_brings_what_one_model_knows_to_the_other(patch: Any, items: Path, tmp_path: Path) -> None:
    options = ("--site", "resid_post", "--by", "all", "--max-items", 3, "--across", "--json")
    shown = json.loads(done(patch("--items", items, *options)), parse_constant=pytest.fail)
    assert [line["code_right"] < line["base_right"] for line in shown["cross_retention"]] == [True]
    assert {(line["receiver"], line["donor"]) for line in shown["cross"]} == {
        (receiver, donor) for receiver in ("base", "code") for donor in ("other", "identity", "random")
    }
    cells = pd.read_csv(tmp_path / "patch" / "cross_cells.csv")
    assert (cells[cells.donor == "identity"].effect == 0).all()
    # All of the last layer's output is the donor model's run, but for the head that reads it.
    last = cells[(cells.layer == 1) & (cells.donor == "other")]
    assert last.effect.abs().min() > 0.1
    assert (tmp_path / "patch" / "cross-items-text-resid_post-all.png").read_bytes().startswith(PNG)


def test_through_maps_is_labelled_and_has_its_controls(patch: Any, items: Path, tmp_path: Path) -> None:
    options = ("--site", "resid_post", "--by", "role", "--max-items", 2, "--across", "--mapped", "--json")
    shown = json.loads(done(patch("--items", items, *options)), parse_constant=pytest.fail)
    donors = {(line["receiver"], line["donor"]) for line in shown["cross"]}
    assert {donor for _, donor in donors} == {"mapped", "random_map", "identity", "random"}
    assert {receiver for receiver, _ in donors} == {"base", "code"}
    assert (tmp_path / "patch" / "cross-items-text-resid_post-role.png").read_bytes().startswith(PNG)


def test_what_has_no_map_is_one_line(patch: Any, items: Path) -> None:
    refused(patch("--items", items, "--mapped"), "give --across")
    refused(patch("--items", items, "--across", "--mapped", "--site", "z"), "--site resid_pre or --site resid_post")


def test_a_large_job_is_announced(patch: Any, items: Path) -> None:
    """Before it begins: here it then turns out that nothing is retained, as right answers are exchanged for wrong ones."""
    lines = [json.loads(line) for line in items.read_text().splitlines()]
    wrong = [{**line, "answer": line["contrast"], "contrast": line["answer"]} for line in lines]
    items.write_text("".join(json.dumps(line) + "\n" for line in wrong))
    options = ("--site", "resid_pre", "--site", "z", "--by", "position", "--direction", "both")
    ran = patch("--items", items, *options)
    said = [line for line in ran.err.splitlines() if "patched runs" in line]
    assert [line.split(",")[0].strip() for line in said] == ["base", "code"]
    runs, passes, saved = (
        int(said[0].split(after)[0].split()[-1].strip("(").replace(",", ""))
        for after in (" patched runs", " forward passes", " saved")
    )
    assert runs > 10_000 and 0 < passes < runs / 2 and saved == runs - passes
    assert "nothing to patch" in ran.err


def test_answers_of_several_tokens_are_said(patch: Any, items: Path) -> None:
    lines = [json.loads(line) for line in items.read_text().splitlines()[:4]]
    items.write_text("".join(json.dumps({**line, "answer": line["answer"] + " and more"}) + "\n" for line in lines))
    shown = done(patch("--items", items, "--site", "resid_pre", "--by", "all", "--max-items", 2))
    assert "base, text form: answers of 4 of 4 prompts have several tokens; scored is the first one" in shown


def test_the_same_model_twice_gives_the_same_lines(study_file: Path, items: Path, tmp_path: Path) -> None:
    model = study_file.parent / "base"
    options = ("--max-items", 2, "--site", "resid_pre", "--site", "z", "--by", "all")
    done(twinprobe("patch", "--base", model, "--code", model, "--items", items, "--out", tmp_path / "p", *options))
    cells = pd.read_csv(tmp_path / "p" / "patching_cells.csv")
    base, code = (cells[cells.model == role].drop(columns="model").reset_index(drop=True) for role in ("base", "code"))
    pd.testing.assert_frame_equal(base, code, check_exact=True)


def test_the_command_offers_all_there_is() -> None:
    """It has names of its own so that its help loads nothing heavy."""
    from analyses.attribution import checked
    from analyses.patching import donors, metrics
    from analyses.prompts import DIRECTIONS

    assert cli.patch.METHODS == checked.METHODS
    assert tuple(metrics.MIN_GAPS) == cli.patch.METRICS
    assert cli.patch.DONORS == donors.DONORS
    assert cli.patch.DIRECTIONS["both"] == tuple(DIRECTIONS)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--task", "nestin"], ["unknown task 'nestin'", "did you mean 'nesting'"]),
        (["--task", "identifiers"], ["'identifiers'", "no answers and contrasts"]),
        (["--task", "nesting", "--form", "formal"], ["form 'formal'", "code, prose"]),
        ([], ["--task NAME", "--items FILE"]),
        (["--task", "nesting", "--items", "items.jsonl"], ["either --task NAME or --items FILE"]),
        (["--items", "absent.jsonl"], ["absent.jsonl: no such file"]),
        (["--task", "nesting", "--pair", "embedded"], ["either --pair NAME, or both --base MODEL and --code MODEL"]),
        (["--task", "nesting", "--bos", "perhaps"], ["'perhaps'", "auto"]),
        (["--task", "nesting", "--site", "resid_pr"], ["'resid_pr'", "did you mean 'resid_pre'"]),
        (["--task", "nesting", "--by", "roles"], ["by 'roles'", "did you mean 'role'"]),
        (["--task", "nesting", "--neurons", "8"], ["--neurons 8", "add --site mlp_post"]),
        (["--task", "nesting", "--direction", "up"], ["'up'", "denoising"]),
        (["--task", "nesting", "--donor", "other"], ["'other'", "contrast"]),
        (["--task", "nesting", "--metric", "loss"], ["'loss'", "logit_difference"]),
        (["--task", "nesting", "--attribution", "ap"], ["'ap'", "ig-inputs"]),
        (["--task", "nesting", "--attribution", "atp", "--quantization", "8bit"], ["gradients", "8bit"]),
        (["--task", "nesting", "--attribution", "atp", "--donor", "mean"], ["leave out --donor"]),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line(patch: Any, options: list[str], expected: list[str], tmp_path: Path) -> None:
    refused(patch(*options), *expected)
    assert not (tmp_path / "patch").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--pair", "qwen2.5-0.5"], ["unknown pair 'qwen2.5-0.5'", "did you mean 'qwen2.5-0.5b'"]),
        (["--pair", "codebert"], ["encoder pair", "causal"]),
        (["--base", "embedded:text"], ["both --base MODEL and --code MODEL"]),
        (["--base", "embedded:text", "--code", "embedded:cod"], ["no embedded twin 'cod'"]),
        (["--base", "./absent", "--code", "embedded:code"], ["'./absent' is not a folder"]),
    ],
    ids=" ".join,
)
def test_an_unusable_pair_is_one_line(options: list[str], expected: list[str], tmp_path: Path) -> None:
    refused(twinprobe("patch", *options, "--task", "nesting", "--out", tmp_path / "p"), *expected)


def test_an_encoder_is_refused(make_model: MakeModel, items: Path, tmp_path: Path) -> None:
    loaded = make_model("roberta")
    loaded.model.save_pretrained(tmp_path / "encoder")
    loaded.tokenizer.save_pretrained(tmp_path / "encoder")
    model = tmp_path / "encoder"
    ran = twinprobe("patch", "--base", model, "--code", model, "--items", items, "--out", tmp_path / "p")
    refused(ran, "RobertaForMaskedLM", "need decoders")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", ["items.jsonl:1: not valid JSON"]),
        ('{"id": 1, "clean": "x"}', ["items.jsonl:1: 'corrupted' must be a non-empty string"]),
        (
            '{"id": 1, "clean": "x", "corrupted": "y", "answer": "a", "contrast": "b", "candidate": []}',
            ["items.jsonl:1: unknown key 'candidate'", "did you mean 'candidates'"],
        ),
        (
            '{"id": 1, "clean": "x", "corrupted": "y", "answer": "a", "contrast": "b", '
            '"spans": [{"name": "definition", "start": 0, "end": 2}]}',
            ["items.jsonl:1", "span 'definition' covers characters 0 to 2, but the text has 1"],
        ),
        (
            json.dumps({"id": 1, "clean": "x " * 400, "corrupted": "y " * 400, "answer": "a", "contrast": "b"}),
            ["text '1' has", "context is 320"],
        ),
    ],
    ids=["json", "missing", "unknown key", "span", "too long"],
)
def test_a_bad_item_is_one_line(patch: Any, tmp_path: Path, line: str, expected: list[str]) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text(line + "\n")
    refused(patch("--items", file), *expected)
    assert not list((tmp_path / "patch").glob("*"))


def test_foreign_files_are_refused_and_left_alone(patch: Any, items: Path, tmp_path: Path) -> None:
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch" / "thesis.tex").write_text("dear reader")
    refused(patch("--items", items), "holds other files", "choose another --out")
    refused(patch("--items", items, out=items), "choose another --out")
    refused(patch("--items", items, out="/proc/absent"), "/proc/absent")
    assert contents(tmp_path / "patch") == {"thesis.tex": b"dear reader"}
