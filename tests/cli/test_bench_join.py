"""``twinprobe bench join`` on tiny models and a few questions of our own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from calling import contents, done, refused, twinprobe
from conftest import MakeModel

from activations.store import ActivationStore

CHOICES = ["the box", "the old man", "rain"]
QUESTIONS = [
    {"query": f"Question: What is {n} and {n * n % 17}?", "choices": CHOICES, "gold": n * n % 3} for n in range(24)
]
SITES = ["embed", "resid_post.0", "resid_post.1", "resid_post.2"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "arc").mkdir(parents=True)
    (folder / "gsm8k").mkdir()
    (folder / "winogrande").mkdir()
    (folder / "arc" / "arc_easy.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in QUESTIONS))
    twins = [
        {"context_options": [f"The {n} man hit", f"The {n} box hit"], "continuation": f"rain {word}.", "gold": n % 2}
        for n in range(12)
        for word in ("up", "down")
    ]
    long = {"context_options": ["up " * 200, "down " * 200], "continuation": "sea.", "gold": 0}
    lines = "".join(f"{json.dumps(row)}\n" for row in [*twins, long])
    (folder / "winogrande" / "winogrande.jsonl").write_text(lines)
    sums = "".join(f"{json.dumps({'question': f'{n}?', 'answer': f'#### {n}'})}\n" for n in range(9))
    for name in ("test", "train"):
        (folder / "gsm8k" / f"{name}.jsonl").write_text(sums)
    return folder


@pytest.fixture(scope="module")
def second_model(make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("second") / "second-llama"
    loaded = make_model("llama", seed=1)
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def test_it_joins_and_goes_on_where_it_was(model_folder: Path, second_model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def run(*options: object) -> str:
        tasks = ("--tasks", "arc_easy,winogrande", "--folds", 3, "--against", second_model)
        ran = twinprobe("bench", "join", model_folder, "--data-dir", data, *tasks, "--out", out, *options)
        if "--json" not in options:
            assert "49 items, 122 rows of activations to capture: 31.2 kB" in ran.err
            assert "winogrande: 1 of the items are longer than the model's context" in ran.err
        return done(ran)

    assert "odds ratio" in run()
    table = pd.read_csv(out / "join.csv")
    assert table.site.tolist() == SITES * 2
    assert table.task.tolist() == ["arc_easy"] * 4 + ["winogrande"] * 4
    assert set(table.clusters) == {24, 13}
    items = pd.read_csv(out / "join_items.csv", dtype={"item": str})
    for line in table.itertuples():
        of_site = items[(items.task == line.task) & (items.site == line.site)]
        assert len(of_site) == line.items
        cells = (
            pd.crosstab(of_site.probe_right, of_site.model_right).reindex([True, False]).reindex([True, False], axis=1)
        )
        counts = [line.both_right, line.probe_only, line.model_only, line.both_wrong]
        assert cells.fillna(0).to_numpy().ravel().tolist() == counts
        assert not of_site.groupby("group").fold.nunique().gt(1).any()
    # The model's answers are those that bench run gives.
    other = tmp_path / "run"
    common = ("--data-dir", data, "--tasks", "arc_easy,winogrande", "--out", other)
    done(twinprobe("bench", "run", model_folder, *common))
    for task in ("arc_easy", "winogrande"):
        assert (out / "model" / f"{task}.csv").read_bytes() == (other / f"{task}.csv").read_bytes()
        scores = pd.read_csv(other / f"{task}.csv").score
        assert table[table.task == task].model_accuracy.tolist() == [scores.mean()] * 4
    # The floor's last token is the same for both of WinoGrande's choices: its probe knows nothing, and says so.
    assert np.isnan(table[(table.task == "winogrande") & (table.site == "embed")].odds_ratio.item())
    store = ActivationStore(out / "model" / "activations" / "arc_easy")
    assert store.sites == SITES and store.n_rows == 72
    assert store.rows.text.tolist()[:4] == ["arc_easy/0/0", "arc_easy/0/1", "arc_easy/0/2", "arc_easy/1/0"]

    before = contents(out)
    for lost in ("join.csv", "model/probes/winogrande/resid_post.1.npy", "model/activations/winogrande/index.h5"):
        (out / lost).unlink()
    told = json.loads(run("--json"))
    again = contents(out)
    assert {name for name in before if before[name] != again.get(name)} == set()
    assert len(told["join"]) == 8 and told["join"][0]["layer"] is None and told["join"][1]["layer"] == 0


def test_mistakes_are_one_line(model_folder: Path, second_model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def run(tasks: str, *options: object, model: Path = model_folder) -> object:
        return twinprobe("bench", "join", model, "--data-dir", data, "--out", out, "--tasks", tasks, *options)

    refused(run("gsm8k"), "gsm8k has written answers only", "leave it out")
    refused(run("arc_easy", "--limit", 4), "4 items in 4 groups, fewer than the 5 folds")
    refused(run("mmlu"), "mmlu", "give the folder that holds")
    refused(run("arc_esy"), "did you mean 'arc_easy'")
    refused(run("arc_easy", "--folds", 2), "2 is not in the range")
    refused(run("arc_easy", "--against", model_folder), "which is MODEL itself")
    refused(run("arc_easy", "--against-revision", "main"), "goes with --against")
    copy = tmp_path / "copy"
    copy.symlink_to(model_folder)
    refused(run("arc_easy", "--against", copy), "has the weights of", after_progress=True)
    refused(run("arc_easy", model=second_model), "is of model", "choose another --out")
    refused(run("arc_easy", "--limit", 20), "is of limit None, not 20; choose another --out")
    refused(run("arc_easy", "--seed", 1), "has probes of other activations, labels or folds", after_progress=True)
    assert not list(tmp_path.glob("**/*.tmp"))
