"""Published scores: reading, matching to the registry, planted effects, and the findings of Kim et al. 2024."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import fisher_exact

from activations.errors import TwinprobeError
from activations.pairs import custom_pair, get_pair, load_pairs
from analyses.benchmarks.pairs.matching import match_pairs
from analyses.benchmarks.pairs.published import compare_published, read_published
from analyses.benchmarks.pairs.stratified import common_odds_ratio, count_tables, difference, homogeneity
from analyses.statistics import holm

DATA = [Path(__file__).parents[depth] / "shared" / "data" / "published_scores" for depth in (4, 5)]
PAPER = {
    "codellama-7b": (21.3, 31.9, 7.9, 12.3),
    "codellama-13b": (33.3, 54.8, 16.0, 32.9),
    "codellama-70b": (62.1, 69.8, 43.7, 54.2),
    "deepseek-7b": (23.5, 53.7, 7.3, 33.6),
    "gemma-7b": (42.7, 46.1, 14.0, 21.7),
}
"""Percent right overall and with 2 operations, base and code, as quoted from table 6 of Kim et al. 2024."""
MODELS = {
    "m/base": [(90, 100), (50, 100), (3, 9)],
    "m/code": [(91, 100), (80, 100), (9, 9)],
    "m/other": [(60, 100), (20, 100), (2, 9)],
}


@pytest.fixture(scope="module")
def kim() -> Path:
    for folder in DATA:
        if (folder / "kim2024_entity_tracking_by_numops.csv").exists():
            return folder / "kim2024_entity_tracking_by_numops.csv"
    pytest.skip(
        f"needs kim2024_entity_tracking_by_numops.csv in {DATA[0]}: the findings of Kim et al. 2024 are NOT tested"
    )


def scores() -> pd.DataFrame:
    lines = [(model, str(k), *counts) for model, levels in MODELS.items() for k, counts in enumerate(levels)]
    return pd.DataFrame(lines, columns=["model", "stratum", "right", "items"])


def written(folder: Path, text: str) -> Path:
    path = folder / "scores.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_two_layouts_say_the_same(tmp_path: Path) -> None:
    plain = read_published(
        written(tmp_path, "items,model,stratum,right,note\n1083,m/a,2, 86 ,x\n\n29,m/a,7,1,\n1083,m/b,2,133,y\n")
    )
    text = "model_name,num_ops,accuracy,count\nModel A (7B) (m/a),2,7.94,1083\nModel A (7B) (m/a),7,3.45,29\nm/b,2,12.28,1083\n"
    percent = read_published(written(tmp_path, text))
    assert plain.scores.to_dict("list") == percent.scores[plain.scores.columns].to_dict("list")
    assert plain.scores.to_dict("list") == {
        "model": ["m/a", "m/a", "m/b"], "stratum": ["2", "7", "2"], "right": [86, 1, 133], "items": [1083, 29, 1083],
    }  # fmt: skip
    assert plain.repeated == percent.repeated == 0


def test_repeated_lines_are_counted_and_contradictions_refused(tmp_path: Path) -> None:
    head = "model,stratum,right,items\nm/a,0,1,5\nm/a,1,2,5\n"
    assert read_published(written(tmp_path, head + "m/a,0,1,5\n")).repeated == 1
    with pytest.raises(TwinprobeError, match=r"line 4: m/a has another score at stratum 0"):
        read_published(written(tmp_path, head + "m/a,0,2,5\n"))


PLAIN, PERCENT = "model,stratum,right,items\n", "model_name,num_ops,accuracy,count\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", r"is empty; expected the columns model, stratum, right, items"),
        (PLAIN, r"has a header and no scores"),
        (
            "model,stratum,score\nm,0,1\n",
            r"has the columns model, stratum, score; expected model, stratum, right, items",
        ),
        (PLAIN + "m,0,1,2\n,0,1,2\n", r"line 3: model is empty"),
        (PLAIN + "m,0,0.5,2\n", r"line 2: right '0\.5' is no count"),
        (PLAIN + "m,0,1,-2\n", r"line 2: items '-2' is no count"),
        (PLAIN + "m,0,3,2\n", r"line 2: 3 right answers of 2 items"),
        (PLAIN + "m,0,0,0\n", r"line 2: 0 right answers of 0 items"),
        (PERCENT + "m,0,101,20\n", r"line 2: accuracy '101' is no percentage"),
        (PERCENT + "m,0,,20\n", r"line 2: accuracy '' is no percentage"),
        (PERCENT + "m,0,50.00,20\nm,1,50.03,20\n", r"line 3: no whole number of 20 items is 50\.03%"),
        (PLAIN + 'm,0,1,2\n"m,0,1,2\n', r"is no CSV file in UTF-8"),
    ],
)
def test_what_can_not_be_used_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(TwinprobeError, match=expected) as refused:
        read_published(written(tmp_path, text))
    assert "\n" not in str(refused.value) and "scores.csv" in str(refused.value)


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TwinprobeError, match="no such file"):
        read_published(tmp_path / "absent.csv")


def test_models_are_matched_to_the_registry() -> None:
    models = ["Meta-Llama/LLAMA-2-7b-hf", "codellama/CodeLlama-7b-hf", "google/gemma-7b", "some/model"]
    found = match_pairs(models, load_pairs().values())
    assert [pair.name for pair in found.pairs] == ["codellama-7b"]
    half = {pair.name: absent for pair, absent in found.half}
    assert half == {
        "codellama-7b-python": "codellama/CodeLlama-7b-Python-hf",
        "gemma-7b": "google/codegemma-7b",
        "starcoder2-7b": "bigcode/starcoder2-7b",
    }
    assert found.unpaired == ("some/model",)


def test_tables_hold_what_the_tests_say() -> None:
    pairs = [custom_pair("m/base", "m/code"), custom_pair("m/other", "M/CODE")]
    tables = compare_published(scores(), pairs, chance="m/other")
    overall, levels = tables["published_pairs"], tables["published_levels"]
    base, code, other = (np.array(MODELS[name]) for name in ("m/base", "m/code", "m/other"))
    first = count_tables(code[:, 0], code[:, 1], base[:, 0], base[:, 1])
    line = overall.iloc[0]
    assert (line.pair, line.base, line.code, line.levels) == ("base-vs-code", "m/base", "m/code", 3)
    assert (line.base_accuracy, line.code_accuracy) == pytest.approx((143 / 209, 180 / 209))
    assert line.chance == pytest.approx(82 / 209)
    assert (line.difference, line.low, line.high) == pytest.approx(tuple(vars(difference(first)).values()))
    assert (line.odds_ratio, line.p) == (common_odds_ratio(first).odds_ratio, common_odds_ratio(first).p)
    assert (line.p_same, line.same_df) == (homogeneity(first).p, 2)
    assert overall.p_holm.to_list() == holm(overall.p).tolist()
    assert levels.p_holm.to_list() == holm(levels.p).tolist() and len(levels) == 6
    at_one = levels[levels.stratum == "1"]
    assert at_one.p_holm_pairs.to_list() == holm(at_one.p).tolist()
    assert (at_one.p_holm_pairs <= at_one.p_holm).all() and (at_one.p < at_one.p_holm_pairs).any()
    small = levels[(levels.pair == "base-vs-code") & (levels.stratum == "2")].iloc[0]
    assert small.method == "exact" and small.p == pytest.approx(fisher_exact([[9, 0], [3, 6]]).pvalue)
    assert levels.chance.to_list() == pytest.approx([*(other[:, 0] / other[:, 1])] * 2)
    assert not compare_published(scores(), pairs)["published_pairs"].chance.notna().any()


def test_the_planted_level_is_found_and_no_other() -> None:
    """One of three levels differs, among five pairs of which four do not."""
    rng = np.random.default_rng(0)
    lines = []
    for pair in range(5):
        for role in ("base", "code"):
            for level, rate in enumerate((0.9, 0.5, 0.2)):
                gain = 0.25 * (pair == 3 and role == "code" and level == 1)
                lines.append((f"p{pair}/{role}", level, rng.binomial(400, rate + gain), 400))
    table = pd.DataFrame(lines, columns=["model", "stratum", "right", "items"]).astype({"stratum": str})
    pairs = [custom_pair(f"p{pair}/base", f"p{pair}/code") for pair in range(5)]
    found = compare_published(table, pairs)
    levels, overall = found["published_levels"], found["published_pairs"]
    clear = levels[levels.p_holm < 0.05]
    assert [*zip(clear.index // 3, clear.stratum, strict=True)] == [(3, "1")] and (clear.difference > 0.1).all()
    assert (overall.p_holm < 0.05).to_list() == [False, False, False, True, False]
    assert (overall.p_same_holm < 0.05).to_list() == [False, False, False, True, False]


def test_levels_of_one_model_only_are_left_out_and_counted() -> None:
    table = scores().query("not (model == 'm/code' and stratum == '2')")
    found = compare_published(table, [custom_pair("m/base", "m/code")])
    line = found["published_pairs"].iloc[0]
    assert (line.levels, line.levels_left_out, line.base_items) == (2, 1, 200)
    table = scores().query("(model == 'm/base') == (stratum == '0')")
    with pytest.raises(TwinprobeError, match=r"m/base and m/code have no stratum in common \(0 and 1, 2\)"):
        compare_published(table, [custom_pair("m/base", "m/code")])


def test_comparisons_that_can_not_be_made_are_refused() -> None:
    pairs = [custom_pair("m/base", "m/code")]
    with pytest.raises(TwinprobeError, match="no pair has scores of both its models"):
        compare_published(scores(), [])
    with pytest.raises(TwinprobeError, match=r"chance 'm/othr' is no model of the file.*'m/other'"):
        compare_published(scores(), pairs, chance="m/othr")
    with pytest.raises(TwinprobeError, match="chance has no score at stratum 1"):
        compare_published(scores().query("model != 'm/other' or stratum == '0'"), pairs, chance="m/other")


def test_the_findings_of_kim_et_al(kim: Path) -> None:
    read = read_published(kim)
    assert (read.scores.model.nunique(), len(read.scores), read.repeated) == (37, 37 * 8, 8)
    matched = match_pairs(dict.fromkeys(read.scores.model), load_pairs().values())
    assert {pair.name for pair in matched.pairs} == {*PAPER, "codellama-34b"}
    assert "random/random" in matched.unpaired and "google/gemma-2b-it" in matched.unpaired
    assert get_pair("gemma-2b") in [pair for pair, _ in matched.half]
    tables = compare_published(read.scores, matched.pairs, chance="random/random")
    overall = tables["published_pairs"].set_index("pair")
    levels = tables["published_levels"].set_index(["pair", "stratum"])
    assert (overall.base_items == 5012).all() and levels.code_items["gemma-7b", "7"] == 29
    assert overall.chance.to_list() == pytest.approx([0.211] * 6, abs=5e-4)
    assert levels.chance["gemma-7b", "2"] == pytest.approx(0.127, abs=5e-4)
    for pair, (base, code, base_two, code_two) in PAPER.items():
        shown = [
            overall.base_accuracy[pair], overall.code_accuracy[pair],
            levels.base_accuracy[pair, "2"], levels.code_accuracy[pair, "2"],
        ]  # fmt: skip
        assert [100 * value for value in shown] == pytest.approx([base, code, base_two, code_two], abs=0.051), pair
        assert overall.odds_low[pair] > 1 and overall.p_holm[pair] < 1e-4, "code models track entities better"
        assert levels.p_holm[pair, "2"] < 0.05 and levels.low[pair, "2"] > 0
    clear = levels[levels.p_holm < 0.05]
    better = {pair: "".join(part[part.difference > 0].reset_index().stratum) for pair, part in clear.groupby("pair")}
    assert better == {
        "codellama-7b": "012", "codellama-13b": "012345", "codellama-34b": "", "codellama-70b": "234", "gemma-7b": "12",
        "deepseek-7b": "012345",
    }  # fmt: skip
    worse = clear[clear.difference < 0].index.to_list()
    assert worse == [("codellama-34b", "0"), ("codellama-34b", "2"), ("gemma-7b", "0")]
    assert overall.size_ratio["codellama-34b"] < 0.51, (
        "the one pair whose code model is worse is half the size of its base"
    )
    assert (overall.p_same_holm < 0.05).all(), "the gain depends on the number of operations in every pair"
