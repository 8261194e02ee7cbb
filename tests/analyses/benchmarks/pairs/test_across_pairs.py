"""Gains of pairs beside their internals: reading, matching in size, and what is said about size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from activations.errors import TwinprobeError
from activations.pairs import Pair, custom_pair, load_pairs
from analyses.benchmarks.paired import join, paired_tests
from analyses.benchmarks.pairs.gains import gains, read_scores, size_matched_gains
from analyses.benchmarks.pairs.internals import TAKEN, join_internals, read_internals, read_runs
from analyses.benchmarks.pairs.published import compare_published, read_published
from analyses.benchmarks.pairs.sizes import model_sizes, parameters_in_name, parse_parameters, read_sizes
from analyses.benchmarks.pairs.views import correlations, pair_table, said, size_strata

DATA = [Path(__file__).parents[depth] / "shared" / "data" / "published_scores" for depth in (4, 5)]
LLAMA, CODE = "meta-llama/Llama-2-7b-hf", "codellama/CodeLlama-7b-hf"


def items(folder: Path, model: str, seed: int, share: float = 0.5, **columns: object) -> Path:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({
        "model": model, "task": np.repeat(["quiz", "maze"], 40), "item": np.tile(range(40), 2),
        "score": (rng.random(80) < share).astype(float), "group": np.tile(np.repeat(range(10), 4), 2), **columns,
    })  # fmt: skip
    path = folder / f"{model.rpartition('/')[2]}-{seed}.csv"
    table.to_csv(path, index=False)
    return path


def measured(folder: Path, text: str) -> Path:
    path = folder / "internals.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_gains_of_items_are_those_of_the_paired_tests(tmp_path: Path) -> None:
    scores = read_scores([items(tmp_path, LLAMA, 1), items(tmp_path, CODE.upper(), 2, parameters="6.7b")])
    pair = load_pairs()["codellama-7b"]
    found, apart = gains(scores, [pair], seed=3)
    parts = [scores.items[scores.items.model == model] for model in (LLAMA, CODE.upper())]
    expected = paired_tests(join(*parts).items, seed=3)
    assert found.benchmark.tolist() == expected.task.tolist() == ["quiz", "maze"]
    for name, other in (("gain", "difference"), ("low", "low"), ("high", "high"), ("clusters", "clusters")):
        assert found[name].tolist() == pytest.approx(expected[other].tolist())
    assert apart.empty and scores.parameters == {CODE.casefold(): 6.7e9}
    assert len(scores.models) == 2


def test_gains_of_counts_are_those_of_published(tmp_path: Path) -> None:
    path = tmp_path / "tracking.csv"
    path.write_text(
        f"model,stratum,right,items\n{LLAMA},0,50,90\n{LLAMA},1,5,30\n{CODE},0,60,90\n{CODE},1,15,30\n{CODE},2,1,3\n"
    )
    found, _ = gains(read_scores([path]), [load_pairs()["codellama-7b"]])
    expected = compare_published(read_published(path).scores, [load_pairs()["codellama-7b"]])["published_pairs"].iloc[0]
    [line] = found.to_dict("records")
    assert (line["benchmark"], line["left_out"]) == ("tracking", 1)
    assert [line[name] for name in ("gain", "low", "high")] == pytest.approx(
        [expected[name] for name in ("difference", "low", "high")]
    )


def test_a_published_mean_has_a_gain_and_no_interval(tmp_path: Path) -> None:
    path = tmp_path / "means.csv"
    path.write_text(f"model,task,score\n{LLAMA},mmlu,0.4\n{CODE},mmlu,0.55\n{LLAMA},arc,0.4\n")
    found, _ = gains(read_scores([path]), [load_pairs()["codellama-7b"]])
    [line] = found.to_dict("records")
    assert (line["benchmark"], line["gain"]) == ("mmlu", pytest.approx(0.15)) and np.isnan(line["low"])


def test_nothing_in_common_is_counted(tmp_path: Path) -> None:
    first, second = items(tmp_path, LLAMA, 1), items(tmp_path, CODE, 2, item=np.tile(range(100, 140), 2))
    found, apart = gains(read_scores([first, second]), [load_pairs()["codellama-7b"]])
    assert found.empty and apart.benchmark.tolist() == ["quiz", "maze"]


def test_size_matched_bases_are_of_any_family_and_never_code_models(tmp_path: Path) -> None:
    models = [
        LLAMA,
        CODE,
        "deepseek-ai/deepseek-llm-7b-base",
        "google/gemma-7b",
        "google/gemma-2b",
        "codellama/CodeLlama-7b-Python-hf",
    ]
    scores = read_scores([items(tmp_path, model, seed) for seed, model in enumerate(models)])
    known = list(load_pairs().values())
    sizes = model_sizes(scores.models, known)
    pair = load_pairs()["codellama-7b"]
    found = size_matched_gains(scores, [pair], known, sizes, 1.25)
    assert set(found.base) == {LLAMA, "deepseek-ai/deepseek-llm-7b-base"}
    assert found[found.own].base.unique().tolist() == [LLAMA] and set(found["pair"]) == {"codellama-7b"}
    wider = size_matched_gains(scores, [pair], known, sizes, 1.27)
    assert set(wider.base) == {LLAMA, "deepseek-ai/deepseek-llm-7b-base", "google/gemma-7b"}
    own, _ = gains(scores, [pair])
    assert found[found.own].gain.tolist() == own.gain.tolist()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("meta-llama/Llama-2-7b-hf", 7e9), ("Salesforce/codegen-350M-nl", 350e6), ("codegen2-1B_P", 1e9),
        ("EleutherAI/pythia-1.4b-deduped", 1.4e9), ("bigcode/starcoder2-3b", 3e9), ("stabilityai/stablelm-3b-4e1t", 3e9),
        ("Qwen/Qwen3-30B-A3B", 30e9), ("/data/7b/model", None), ("mistralai/Mixtral-8x7B-v0.1", None),
        ("microsoft/phi-2", None), ("allenai/OLMo-1B", 1e9),
        ("Qwen/Qwen1.5-MoE-A2.7B", None), ("llama-3-8b-1M", None), ("models/mine-13b/", 13e9),
    ],
)  # fmt: skip
def test_size_in_a_name(name: str, expected: float | None) -> None:
    assert parameters_in_name(name) == expected


def test_what_is_given_goes_before_the_registry_and_that_before_the_name() -> None:
    known = list(load_pairs().values())
    models = [LLAMA, "google/gemma-7b", "x/other-13b", "x/none"]
    assert model_sizes(models, known, {LLAMA.casefold(): 1e9}) == {
        LLAMA.casefold(): 1e9, "google/gemma-7b": pytest.approx(8.538e9), "x/other-13b": 13e9,
    }  # fmt: skip
    assert [parse_parameters(text) for text in ("6738000000", "6.738e9", "6.738B", "350m")] == pytest.approx(
        [6.738e9] * 3 + [3.5e8]
    )
    assert read_sizes([f"{LLAMA.upper()}=7b"], models) == {LLAMA.casefold(): 7e9}
    for option, told in (
        (f"{LLAMA}=7", "'7' is no size"),
        ("x/non=7b", "did you mean 'x/none'"),
        ("7b", "names no model"),
    ):
        with pytest.raises(TwinprobeError, match=told):
            read_sizes([option], models)


def test_size_strata() -> None:
    assert size_strata([7.0, 70.0, 6.7, 8.5, 8.4], 1.25) == [0, 2, 0, 1, 1]
    assert size_strata([3.0, 1.0, 2.0], 1) == [2, 0, 1]


def study(folder: Path, base: str, code: str, tables: dict[str, list[dict[str, object]]]) -> Path:
    folder.mkdir()
    (folder / "results.json").write_text(
        json.dumps({"pair": {"name": "x", "base": base, "code": code}, "tables": tables})
    )
    return folder


def test_a_run_gives_pooled_ratios_and_mean_overlaps(tmp_path: Path) -> None:
    """Six tasks; what a probe keeps is 30% in the base model and 60% in the code model, however much it gains in form."""
    transfer = [
        {"model": model, "task": f"t{number}", "target": "a", "source": "code", "form": "prose", "chance": 0.2,
         "in_form": 0.2 + gain, "score": 0.2 + kept * gain, "ratio": None}
        for number, gain in enumerate((0.1, 0.2, 0.3, 0.4, 0.01, 0.5))
        for model, kept in (("base", 0.3), ("code", 0.6), ("random", 0))
    ]  # fmt: skip
    overlap = [
        {"measure": measure, "estimate": value, "task": f"t{number}", "direction": direction, "other": other}
        for number in range(2) for measure, other, direction, value in (
            ("spearman", "code", "denoising", 0.4 + 0.2 * number), ("spearman", "code", "noising", 0.1),
            ("spearman", "code", "noising", None), ("jaccard", "code", "denoising", 0.9),
            ("spearman", "second_seed", "denoising", 0.9),
        )
    ]  # fmt: skip
    run = study(tmp_path / "run", LLAMA, CODE, {"transfer": transfer, "overlap": overlap, "mapped": []})
    found = read_runs([run], load_pairs().values()).set_index("measure")
    assert set(found["pair"]) == {"codellama-7b"}
    assert found.value.to_dict() == pytest.approx({
        "transfer_ratio": 0.6, "transfer_ratio_difference": 0.3, "overlap_denoising": 0.5, "overlap_noising": 0.1,
    })  # fmt: skip
    assert (found.low["transfer_ratio"], found.high["transfer_ratio"]) == pytest.approx((0.6, 0.6))
    assert np.isnan(found.low["overlap_denoising"]), "two tasks give no interval"
    with pytest.raises(TwinprobeError, match="are both of the pair codellama-7b"):
        read_runs([run, run], load_pairs().values())
    with pytest.raises(TwinprobeError, match=r"has no results.json; expected the run folder"):
        read_runs([tmp_path], load_pairs().values())
    csv = read_internals(
        measured(tmp_path, "pair,measure,value\ncodellama-7b,transfer_ratio,1\n"), load_pairs().values()
    )
    with pytest.raises(TwinprobeError, match="comes from two places"):
        join_internals([found.reset_index(), csv])


@pytest.mark.slow
def test_a_run_of_the_study_itself(finished_study: Path) -> None:
    """The columns are where the study writes them."""
    found = read_runs([finished_study], load_pairs().values()).set_index("measure")
    tables = json.loads((finished_study / "results.json").read_text())["tables"]
    alike = pd.DataFrame(tables["overlap"])
    alike = alike[(alike.measure == "spearman") & (alike.other == "code") & alike.estimate.notna()]
    assert len(alike)
    for direction, lines in alike.groupby("direction"):
        assert found.value[f"overlap_{direction}"] == pytest.approx(lines.estimate.mean())
    moved = pd.DataFrame(tables["transfer"])
    sums = moved[moved.model == "code"][["score", "in_form", "chance"]].sum()
    if "transfer_ratio" in found.index:
        assert found.value["transfer_ratio"] == pytest.approx((sums.score - sums.chance) / (sums.in_form - sums.chance))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("pair,measure\na,b\n", "lacks the column value"),
        ("pair,measure,value\n", "has a header and no values"),
        ("pair,measure,value\ncodelama-7b,x,1\n", "line 2: unknown pair 'codelama-7b' (did you mean 'codellama-7b'"),
        (
            "pair,measure,value\ncodellama-7b,x,1\n\ncodellama-7b,x,2\n",
            "line 4: x of codellama-7b is there a second time",
        ),
        ("pair,measure,value\ncodellama-7b,x,\n", "value '' is no number"),
        ("pair,measure,value,low\ncodellama-7b,x,1,a\n", "low 'a' is no number"),
        ("pair,measure,value\ncodellama-7b,,1\n", "measure is empty"),
        ("pair,measure,value\ncodellama-7b,gain,1\n", "a measure can not be called 'gain'"),
        ("pair,measure,value\ncodellama-7b,x_low,1\n", "a measure can not be called 'x_low'"),
    ],
)
def test_internals_that_can_not_be_used(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(TwinprobeError) as raised:
        read_internals(measured(tmp_path, text), load_pairs().values())
    assert told in str(raised.value) and "\n" not in str(raised.value)


def world(seed: int, through_size: bool, count: int = 7) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Pairs whose gain and measure both grow with size, or with one another."""
    rng = np.random.default_rng(seed)
    size = rng.permutation(count) + 1.0
    common = size if through_size else rng.permutation(count) + 1.0
    gain, measure = common + 0.4 * rng.normal(size=(2, count))
    pairs = [custom_pair(f"b/{number}", f"c/{number}") for number in range(count)]
    table = pd.DataFrame({"pair": [pair.name for pair in pairs], "benchmark": "quiz", "gain": gain / 100})
    internals = pd.DataFrame(
        {"pair": table["pair"], "measure": "transfer_ratio", "value": measure, "low": np.nan, "high": np.nan}
    )
    sizes = {model: 1e9 * 2 ** size[number] for number in range(count) for model in (f"b/{number}", f"c/{number}")}
    table = pair_table(table, internals, pairs, sizes)
    return table, correlations(table, ["transfer_ratio"], pd.DataFrame(columns=["benchmark", "pair", "gain"]), 1.25)


def test_size_is_told_from_specialisation() -> None:
    words: dict[bool, list[str]] = {True: [], False: []}
    given: dict[bool, list[float]] = {True: [], False: []}
    for through_size in (True, False):
        for seed in range(8):
            table, related = world(seed, through_size)
            views = related[related.measure == "transfer_ratio"].set_index("view")
            assert views.spearman["all"] > 0.7 and views.p_spearman["all"] < 0.05
            given[through_size].append(views.p_spearman["given size"])
            words[through_size] += [line for line in said(related, table) if line.startswith("quiz, transfer_ratio")]
    assert np.mean(np.array(given[True]) < 0.05) <= 0.25 and np.mean(np.array(given[False]) < 0.05) > 0.8
    assert sum("size may explain" in line or "Size alone explains" in line for line in words[True]) >= 6
    assert sum("also given size" in line for line in words[False]) >= 6


def test_every_column_of_the_table_is_taken() -> None:
    table, _ = world(0, True)
    assert {name for name in table if not name.startswith("transfer_ratio")} <= set(TAKEN)


def test_few_pairs_get_a_table_and_no_word() -> None:
    table, related = world(0, True, count=3)
    assert len(table) == 3 and related.spearman.isna().all()
    assert "nothing is said below 4" in said(related, table)[0]
    table, related = world(1, True, count=4)
    assert "with so few pairs no p is below 0.083" in said(related, table)[0]


def test_families_and_sizes_are_compared_among_themselves() -> None:
    """Two families of one architecture each, one of which gains more and transfers more; inside them the order is reversed."""
    registered = load_pairs()
    names = [
        "codellama-7b",
        "codellama-13b",
        "codellama-70b",
        "qwen2.5-0.5b",
        "qwen2.5-3b",
        "qwen2.5-7b",
        "qwen2.5-14b",
    ]
    pairs: list[Pair] = [registered[name] for name in [*names, "codellama-34b"]]
    gain = [0.3, 0.2, 0.1, 0.04, 0.03, 0.02, 0.01, 0.9]
    value = [5.1, 5.2, 5.3, 1.1, 1.2, 1.3, 1.4, 0.0]
    frame = pd.DataFrame({"pair": [pair.name for pair in pairs], "benchmark": "quiz", "gain": gain})
    internals = pd.DataFrame({"pair": frame["pair"], "measure": "m", "value": value, "low": np.nan, "high": np.nan})
    models = [name for pair in pairs for name in (pair.base, pair.code)]
    table = pair_table(frame, internals, pairs, model_sizes(models, pairs))
    related = correlations(table, ["m"], pd.DataFrame(columns=["benchmark", "pair", "gain"]), 1.25)
    views = related[related.measure == "m"].set_index("view")
    assert views.points["all"] == 8 and views.points["within family"] == 7, "codellama-34b is of another architecture"
    assert views.spearman["within family"] == pytest.approx(-1) and views.p_spearman["within family"] == pytest.approx(
        2 / 144, abs=0.01
    )
    assert views.spearman["family qwen2.5"] == pytest.approx(-1) and "family codellama" not in views.index
    assert views.points["within size"] == 4, "7b with 7b and 13b with 14b"
    assert any("meta-llama/Llama-2-70b-hf in several pairs" in line for line in said(related, table))


def test_holm_is_over_benchmarks_and_measures_of_a_view() -> None:
    table, _ = world(3, False)
    table = pd.concat([table, table.assign(benchmark="maze", gain=table.gain.to_numpy()[::-1])])
    related = correlations(table, ["transfer_ratio"], pd.DataFrame(columns=["benchmark", "pair", "gain"]), 1.25)
    every = related[(related["view"] == "all") & (related.measure == "transfer_ratio")]
    assert every.p_holm.min() == pytest.approx(min(1, 2 * every.p_spearman.min()))
    assert related[related.measure == "parameters"].p_holm.isna().all()


def test_the_gains_of_kim_and_others(tmp_path: Path) -> None:
    path = next((one / "kim2024_entity_tracking_by_numops.csv" for one in DATA if one.exists()), None)
    if path is None:
        pytest.skip(
            f"needs kim2024_entity_tracking_by_numops.csv in {DATA[0]}: the gains of Kim et al. 2024 are NOT tested"
        )
    scores, known = read_scores([path]), list(load_pairs().values())
    names = ["codellama-7b", "codellama-13b", "codellama-70b", "deepseek-7b", "gemma-7b"]
    found, _ = gains(scores, [load_pairs()[name] for name in names])
    assert found.gain.tolist() == pytest.approx([0.106, 0.215, 0.076, 0.301, 0.034], abs=0.002)
    matched = size_matched_gains(scores, [load_pairs()["gemma-7b"]], known, model_sizes(scores.models, known), 1.25)
    assert matched.set_index("base").gain.to_dict() == pytest.approx(
        {"google/gemma-7b": 0.034, "deepseek-ai/deepseek-llm-7b-base": 0.226}, abs=0.002
    )


def test_scores_that_can_not_be_used(tmp_path: Path) -> None:
    first = items(tmp_path, LLAMA, 1)
    with pytest.raises(TwinprobeError, match="a second time for model"):
        read_scores([first, items(tmp_path, LLAMA.upper(), 2)])
    with pytest.raises(TwinprobeError, match="is a folder; expected a CSV"):
        read_scores([tmp_path])
    with pytest.raises(TwinprobeError, match="no such file"):
        read_scores([tmp_path / "absent.csv"])
    with pytest.raises(TwinprobeError, match="parameters '7' of x/y is no size"):
        read_scores([items(tmp_path, "x/y", 3, parameters="7")])
    (tmp_path / "quiz.csv").write_text(f"model,stratum,right,items\n{LLAMA},0,1,2\n")
    with pytest.raises(TwinprobeError, match="'quiz' is a task of one file and the name of another"):
        read_scores([first, tmp_path / "quiz.csv"])
