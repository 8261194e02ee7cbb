"""Prompts, files that can not be read, marks of written answers, and a run that is taken up again; no data needed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from conftest import MakeModel
from scipy.stats import binomtest

from activations.errors import TwinprobeError
from analyses.benchmarks.local import agieval, arc, bbh, gsm8k, hellaswag, logiqa, mmlu, truthfulqa, winogrande
from analyses.benchmarks.local.grading import grade_choices, summary
from analyses.benchmarks.local.questions import Part, Prompt, Question, asked
from analyses.benchmarks.local.run import jobs, run
from analyses.benchmarks.local.tasks import TASKS, presets, settings
from analyses.benchmarks.local.writing import until, written
from analyses.benchmarks.multiple_choice import Item, score_choices
from analyses.statistics import wilson

if TYPE_CHECKING:
    from activations.models import LoadedModel


def put(path: Path, *lines: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines), "utf-8")
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A few questions of our own, in the authors' formats."""
    folder = tmp_path / "data"
    put(folder / "mmlu/test/box_law_test.csv", "Is a box a box?,no,yes,once,never,B", '"Two, or three?",2,3,4,5,A')
    put(folder / "mmlu/dev/box_law_dev.csv", "Where is it?,here,there,up,down,C", "When?,a,b,c,d,D")
    query = {"query": "Question: What is red?", "choices": ["the box", "rain"], "gold": 0}
    put(folder / "arc/arc_easy.jsonl", query, {**query, "query": "Question: What is wet?", "gold": 1})
    put(folder / "gsm8k/test.jsonl", {"question": "One and two?", "answer": "1+2=<<1+2=3>>3\n#### 3"})
    put(folder / "gsm8k/train.jsonl", *({"question": f"{n}?", "answer": f"#### {n}"} for n in range(9)))
    return folder


def contexts(part: Part, shots: int) -> list[str]:
    return [one.what.context if isinstance(one.what, Item) else one.what.text for one in asked([part], shots)]


def test_mmlu(data: Path) -> None:
    (part,) = mmlu.read(data)
    opening = "The following are multiple choice questions (with answers) about box law.\n\n"
    example = "Where is it?\nA. here\nB. there\nC. up\nD. down\nAnswer: C\n\n"
    assert contexts(part, 1)[0] == opening + example + "Is a box a box?\nA. no\nB. yes\nC. once\nD. never\nAnswer: "
    assert [one.what.gold for one in asked([part], 0)] == [(1,), (0,)]  # type: ignore[union-attr]
    with pytest.raises(TwinprobeError, match="2 few-shot examples, 5 are asked for"):
        asked([part], 5)


def test_arc_draws_examples_from_the_other_questions(data: Path) -> None:
    (part,) = arc.read(data, "arc_easy")
    assert contexts(part, 1) == [
        "Question: What is wet?\nAnswer: rain\n\nQuestion: What is red?\nAnswer: ",
        "Question: What is red?\nAnswer: the box\n\nQuestion: What is wet?\nAnswer: ",
    ]


def test_a_limit_does_not_change_what_is_drawn() -> None:
    questions = tuple(Question(str(n), f"{n}: ", "x", ("x", "y"), (0,), group=f"g{n % 10}") for n in range(40))
    part = Part("numbers", questions)
    whole = asked([part], 5)
    assert asked([part], 5, limit=7) == whole[:7]
    assert len({one.what.context.rsplit("\n\n", 1)[0] for one in whole}) > 30  # type: ignore[union-attr]
    assert asked([part], 5, seed=1) != whole
    for number, one in enumerate(whole):
        examples = [int(line.split(":")[0]) for line in one.what.context.split("\n\n")[:-1]]  # type: ignore[union-attr]
        assert len(set(examples)) == 5
        assert number % 10 not in {example % 10 for example in examples}  # none of the same group


def test_hellaswag_is_cleaned(tmp_path: Path) -> None:
    row = {"ind": 4, "activity_label": "Boxes", "ctx_a": "[header] Open it [title] Now  look.", "ctx_b": "the cat",
           "label": "1", "endings": ["[step] runs.", "sits ."], "source_id": "a"}  # fmt: skip
    put(tmp_path / "hellaswag/val.jsonl", row)
    (question,) = hellaswag.read(tmp_path)[0].questions
    assert question.text == "Boxes: Open it. Now look. The cat "
    assert (question.choices, question.gold, question.id) == ((" runs.", "sits ."), (1,), "4")


def test_winogrande_scores_the_end_after_both_beginnings(tmp_path: Path, make_model: MakeModel) -> None:
    rows = {"context_options": ["The box or the coin", "The box or the rain"], "continuation": "was red.", "gold": 1}
    other = {**rows, "context_options": ["It", "He"], "gold": 0}
    put(tmp_path / "winogrande/winogrande.jsonl", rows, {**rows, "continuation": "was old.", "gold": 0}, other)
    (part,) = winogrande.read(tmp_path)
    item, twin, _ = (one.what for one in asked([part], 1))
    assert isinstance(item, Item)
    assert isinstance(twin, Item)
    assert item.context == twin.context == "It was red.\n\n"  # never the twin
    loaded = make_model("llama")
    plain = [Item(str(n), "s", item.before(n), ("was red.", "x"), (0,)) for n in range(2)]
    expected = score_choices(loaded, plain, bos=True).log_likelihood[::2].tolist()
    assert score_choices(loaded, [item], bos=True).log_likelihood.tolist() == pytest.approx(expected, rel=1e-5)
    assert expected[0] != pytest.approx(expected[1], rel=1e-3)
    with pytest.raises(TwinprobeError, match="1 leads for 2 choices"):
        Item("a", "s", "", ("x", "y"), (0,), ("one",))


def test_truthfulqa_has_both_forms(tmp_path: Path) -> None:
    head = "﻿Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source"
    put(tmp_path / "truthfulqa/TruthfulQA.csv", head, "A,Boxes,Is it?,Yes,Yes; It is.; Yes,No; It is not;,x")
    choices = {form: truthfulqa.read(tmp_path, form)[0].questions[0] for form in ("mc1", "mc2")}
    assert (choices["mc1"].choices, choices["mc1"].gold) == (("Yes.", "No.", "It is not."), (0,))
    assert (choices["mc2"].choices, choices["mc2"].gold) == (("Yes.", "It is.", "No.", "It is not."), (0, 1))
    assert contexts(truthfulqa.read(tmp_path, "mc1")[0], 0) == ["Q: Is it?\nA: "]
    put(tmp_path / "truthfulqa/primer.txt", "Q: Was it?", "A: It was.", "", "")
    assert contexts(truthfulqa.read(tmp_path, "mc1")[0], 0) == ["Q: Was it?\nA: It was.\n\nQ: Is it?\nA: "]


def test_logiqa_and_agieval(tmp_path: Path) -> None:
    block = ["", "b", "It is a box.It is red.", "Which?", "A.one", "B.two", "C.three", "D.four"]
    put(tmp_path / "logiqa/Test.txt", *block)
    put(tmp_path / "logiqa/Eval.txt", *block)
    (part,) = logiqa.read(tmp_path)
    text = "Passage: It is a box. It is red.\nQuestion: Which?\nChoices:\nA. one\nB. two\nC. three\nD. four\nAnswer: "
    assert (part.questions[0].text, part.questions[0].gold) == (text, (1,))
    row = {"passage": None, "question": "Which?", "options": ["(A)one", "(B)two"], "label": "B"}
    put(tmp_path / "agieval/sat.jsonl", row)
    put(tmp_path / "agieval/jec-qa-kd.jsonl", {**row, "label": ["A", "B"]}, {**row, "label": []})
    chinese, english = agieval.read(tmp_path)
    assert english.questions[0].text == "Q: Which? Answer Choices: (A)one (B)two\nA: Among A through B, the answer is "
    assert [question.gold for question in chinese.questions] == [(0, 1)]
    put(tmp_path / "agieval/sat.jsonl", {**row, "label": "C"})
    with pytest.raises(TwinprobeError, match=r"sat\.jsonl:1: right options 'C'"):
        agieval.read(tmp_path)


def test_bbh_asks_for_letters_for_yes_and_no_and_in_writing(tmp_path: Path) -> None:
    tasks = {
        "colours": [("Which?\nOptions:\n(A) red\n(B) blue", "(B)"), ("Which?\nOptions:\n(A) red\n(B) blue", "(A)")],
        "lies": [("True?", "Yes"), ("False?", "No")],
        "sums": [("1 + 2 =", "3"), ("1 + 3 =", "4"), ("1 + 4 =", "5")],
    }
    for name, rows in tasks.items():
        put(tmp_path / f"bbh/bbh/{name}.json", {"examples": [{"input": a, "target": b} for a, b in rows]})
        prompt = "canary\n-----\nAbout it.\n\nQ: One?\nA: Let's think.\nIt is so. So the answer is {}."
        put(tmp_path / f"bbh/cot-prompts/{name}.txt", prompt.format(rows[0][1]))
    colours, lies, sums = bbh.read(tmp_path)
    assert [question.choices for question in colours.questions] == [("(A)", "(B)")] * 2
    assert [question.choices for question in lies.questions] == [("No", "Yes")] * 2
    assert contexts(lies, 1)[0] == "About it.\n\nQ: One?\nA: Yes\n\nQ: True?\nA: "
    written_one, *_ = (one.what for one in asked([sums], 1))
    assert written_one == Prompt("0", "sums", "About it.\n\nQ: One?\nA: 3\n\nQ: 1 + 2 =\nA:", "3", bbh.STOPS)


@pytest.mark.parametrize(
    ("answer", "strict", "flexible"),
    [
        ("So 2 and 3.\n#### 1,234", "1234", "1234"),
        ("#### $5", gsm8k.NONE, "5"),
        ("It is $18.50 in all.", gsm8k.NONE, "18.50"),
        ("#### 7.", "7", "7"),
        ("#### -3 and then 4", "-3", "4"),
        ("none", gsm8k.NONE, gsm8k.NONE),
    ],
)
def test_final_numbers(answer: str, strict: str, flexible: str) -> None:
    assert (gsm8k.strict(answer), gsm8k.flexible(answer)) == (strict, flexible)


def test_metrics_of_known_likelihoods() -> None:
    """Per character the second wins, per byte the third, as it is the first."""
    item = Item("a", "s", "", ("x", "abcdef", "漢字漢"), (0,))
    table = pd.DataFrame({"subject": "s", "item": "a", "choice": [0, 1, 2], "gold": [True, False, False],
                          "log_likelihood": [-2.0, -3.0, -4.0], "tokens": 1, "bytes": [1, 6, 9], "cut": 0})  # fmt: skip
    (line,) = grade_choices([item], table).itertuples()
    assert (line.acc, line.acc_norm, line.acc_bytes) == (1.0, 0.0, 0.0)
    assert line.mc2 == line.confidence == pytest.approx(1 / (1 + math.exp(-1) + math.exp(-2)))
    for gold, name in ((1, "acc_norm"), (2, "acc_bytes")):
        turned = grade_choices([item], table.assign(gold=[number == gold for number in range(3)]))
        assert (turned.acc[0], turned[name][0]) == (0.0, 1.0)
        assert turned.confidence[0] == line.confidence > turned.mc2[0], "of the choice that was picked, right or wrong"


def test_intervals() -> None:
    reference = binomtest(7, 10).proportion_ci(method="wilson")
    assert np.array(wilson(7, 10)) == pytest.approx(np.array([reference.low, reference.high]))
    score = np.repeat([1.0, 0.0, 1.0, 1.0], 25)
    table = pd.DataFrame({"subject": "s", "score": score, "chance": 0.5, "cut": 0, "group": np.arange(100)})
    alone, together = summary(table), summary(table.assign(group=np.repeat(range(4), 25)))
    assert np.array([alone["low"], alone["high"]]) == pytest.approx(np.array(wilson(0.75 * 99, 99)), abs=1e-9)
    assert together["standard_error"] > 4 * alone["standard_error"]
    assert together["low"] < alone["low"] - 0.2  # four clusters of equal items are worth four items
    assert summary(table.assign(score=1.0))["low"] == pytest.approx(float(wilson(100, 100)[0]))


def test_until() -> None:
    assert until("one\n\nQ two", ("Q", "\n\n")) == "one"
    assert until("one", ("Q",)) == "one"


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_written_answers_are_the_most_probable_tokens(make_model: MakeModel, architecture: str) -> None:
    """Token by token without a cache or padding; the same in a batch with longer texts."""
    import torch

    loaded = make_model(architecture)
    prompts = [
        Prompt(str(n), "s", text, "", ()) for n, text in enumerate(("x = 1\ny", "The captain put the coin", "a"))
    ]
    together = written(loaded, prompts, bos=True, tokens=6)
    for prompt, found in zip(prompts, together, strict=True):
        ids = [loaded.tokenizer.bos_token_id, *loaded.tokenizer(prompt.text, add_special_tokens=False)["input_ids"]]
        start = len(ids)
        while len(ids) < start + 6 and ids[-1] != loaded.tokenizer.eos_token_id:
            with torch.no_grad():
                ids.append(int(loaded.model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert found == loaded.tokenizer.decode(ids[start:], skip_special_tokens=True)
    assert any(together)
    stop = together[0][1:3]
    (stopped,) = written(loaded, [Prompt("0", "s", prompts[0].text, "", (stop,))], bos=True, tokens=6)
    assert stopped == together[0][: together[0].find(stop)]
    long = Prompt("0", "s", prompts[1].text * 60, "", ())
    assert written(loaded, [long], bos=True, tokens=6) == written(loaded, [long, prompts[0]], bos=True, tokens=6)[:1]


def test_a_run_is_taken_up_again_and_never_mixed(data: Path, tmp_path: Path, make_model: MakeModel) -> None:
    loaded: LoadedModel = make_model("llama", max_position_embeddings=512)
    out = tmp_path / "out"
    out.mkdir()
    work = jobs(settings(["mmlu", "gsm8k", "arc_easy"], None, shots=1), data)
    steps: list[tuple[int, int]] = []
    records = [run(job, loaded, True, out, lambda done, total: steps.append((done, total))) for job in work]
    assert steps[-1] == (2, 2)
    table = pd.read_csv(out / "mmlu.csv")
    assert list(table)[:8] == ["model", "task", "subject", "item", "score", "chance", "group", "cut"]
    direct = score_choices(loaded, work[0].items, bos=True)
    assert table.acc.tolist() == grade_choices(work[0].items, direct).acc.tolist()
    assert records[0]["summary"]["items"] == 2
    assert records[0]["about"]["bos"] is True
    assert records[0]["about"]["chat_template"] == "not applied"
    assert {"strict", "flexible", "written"} < set(pd.read_csv(out / "gsm8k.csv"))
    again = [run(job, loaded, True, out, lambda _done, _total: pytest.fail("asked again")) for job in work]
    assert again == json.loads(json.dumps(records))
    with pytest.raises(TwinprobeError, match="is of bos True, not False; choose another --out"):
        run(work[0], loaded, False, out, lambda _done, _total: None)
    with pytest.raises(TwinprobeError, match="is of weights"):
        run(work[0], make_model("llama", seed=1, max_position_embeddings=512), True, out, lambda _done, _total: None)


def test_names_and_presets(data: Path) -> None:
    for known in presets().values():
        for setting in known.tasks:
            assert setting.metric in ("acc", "acc_norm", "mc2", *TASKS[setting.task].marks)
    shots = {setting.task: (setting.shots, setting.metric) for setting in settings([], "open-llm-leaderboard")}
    assert shots == {"arc_challenge": (25, "acc_norm"), "hellaswag": (10, "acc_norm"), "mmlu": (5, "acc"),
                     "truthfulqa_mc2": (0, "mc2"), "winogrande": (5, "acc"), "gsm8k": (5, "strict")}  # fmt: skip
    assert [setting.limit for setting in settings(["mmlu"], "offline-small")] == [2]
    wrong: tuple[tuple[list[str], str | None, str], ...] = (
        (["mmul"], None, "no task 'mmul' .did you mean 'mmlu'"),
        ([], "offline", "no preset 'offline'"),
        (["bbh"], "offline-small", "no task 'bbh'"),
        ([], None, "no tasks given"),
    )
    for names, preset, message in wrong:
        with pytest.raises(TwinprobeError, match=message):
            settings(names, preset)
    with pytest.raises(TwinprobeError, match="give the folder that holds the benchmarks' files"):
        jobs(settings(["bbh"], None), data)
