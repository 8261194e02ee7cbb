"""Instructions: what a line may be, which are held out, and what of them is scored."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from conftest import MakeModel

from activations.errors import TwinprobeError
from analyses.pretraining.decontamination import EvaluationSets
from analyses.pretraining.instructions import PROMPT, Instruction, encode_all, read_instructions, without
from analyses.pretraining.loop import UNSCORED, loss_function
from analyses.pretraining.prompted import encode, pad
from analyses.pretraining.tuning_design import Instructions


def source(folder: Path, *lines: object, held_out: float = 0.0) -> Instructions:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "a.jsonl").write_text(text, encoding="utf-8")
    return Instructions(kind="prose", path="a.jsonl", licence="CC0", held_out=held_out)


def test_both_styles_are_read(tmp_path: Path) -> None:
    given = source(
        tmp_path,
        {"prompt": "Say {x}\u2028", "response": "y", "id": 3},
        "",
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        {"instruction": "Greet.", "input": "", "output": "Hi"},
        {"instruction": "Greet.", "output": "Ho"},
    )
    read = read_instructions([given], tmp_path)
    assert [(one.prompt, one.response) for one in read] == [
        ("Say {x}\u2028", "y"), ("Add.\n\n1 2", "3"), ("Greet.", "Hi"), ("Greet.", "Ho"),
    ]  # fmt: skip
    assert {(one.kind, one.held_out) for one in read} == {("prose", False)}


def test_a_share_of_the_prompts_is_held_out_whatever_stands_around_them(tmp_path: Path) -> None:
    lines = [{"prompt": f"Count to {number % 1000}", "response": str(number)} for number in range(2000)]
    read = read_instructions([source(tmp_path, *lines, held_out=0.2)], tmp_path)
    held_out = {one.prompt for one in read if one.held_out}
    assert len(held_out) == pytest.approx(200, abs=40)
    assert not held_out & {one.prompt for one in read if not one.held_out}
    again = read_instructions([source(tmp_path, *lines[::-3], held_out=0.2)], tmp_path)
    assert all(one.held_out == (one.prompt in held_out) for one in again)
    more = read_instructions([source(tmp_path, *lines, held_out=0.4)], tmp_path)
    assert held_out < {one.prompt for one in more if one.held_out}


EXPECTED = "expected a JSON object with non-empty strings 'prompt' and 'response', or 'instruction' and 'output'"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"prompt": "a"}', f":2: {EXPECTED}"),
        ('{"prompt": "a", "response": " "}', f":2: {EXPECTED}"),
        ('{"instruction": "a", "response": "b"}', f":2: {EXPECTED}"),
        ('["a", "b"]', f":2: {EXPECTED}"),
        ('{"instruction": "a", "input": 3, "output": "b"}', ":2: 'input' must be a string, got 3"),
        ('{"prompt": "a", ', ":2: not valid JSON ("),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, expected: str) -> None:
    given = source(tmp_path, {"prompt": "a", "response": "b"}, line)
    with pytest.raises(TwinprobeError) as caught:
        read_instructions([given], tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'a.jsonl'}{expected}")
    assert "\n" not in str(caught.value)


def test_files_must_be_there_and_hold_something(tmp_path: Path) -> None:
    given = source(tmp_path, "")
    with pytest.raises(TwinprobeError, match=r"a\.jsonl: no instructions; expected JSON lines with 'prompt'"):
        read_instructions([given], tmp_path)
    with pytest.raises(TwinprobeError, match=r"a\.jsonl: no such file"):
        read_instructions([given], tmp_path / "absent")


def test_instructions_from_evaluation_sets_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "exam.txt").write_text("one two three four five six seven")
    sets = EvaluationSets(["exam.txt"], tmp_path, 5)
    asked = Instruction("prose", "What is: two THREE, four five six?", "x", False)
    answered = Instruction("code", "Go on.", "three four five six seven", False)
    apart = Instruction("code", "one two three four", "six seven", False)  # never five in a row
    left_out: dict[str, Counter[str]] = {}
    assert without(sets, [asked, answered, apart], left_out) == [apart]
    assert left_out == {"shared_with_evaluation_sets": {"prose": 1, "code": 1}}


def test_only_the_response_and_its_end_are_scored(make_model: MakeModel) -> None:
    tokenizer = make_model("llama").tokenizer
    short, long = (encode(PROMPT.format(prompt=text), f"{text}!", tokenizer) for text in ("a", "the {old} man"))
    batch = pad([short, long])
    assert batch.ids.shape == batch.labels.shape == (2, len(long.ids))
    for row, (example, text) in enumerate(((short, "a"), (long, "the {old} man"))):
        end = len(example.ids)
        ids = batch.ids[row]
        assert tokenizer.decode(ids[1:end]) == f"{PROMPT.format(prompt=text)}{text}!{tokenizer.eos_token}"
        assert ids[0] == tokenizer.eos_token_id
        assert ids[end:].tolist() == [0] * (len(long.ids) - end)
        scored = batch.labels[row] != UNSCORED
        assert tokenizer.decode(batch.labels[row][scored]) == f"{text}!{tokenizer.eos_token}"
        assert torch.equal(batch.labels[row][scored], ids[scored])
    assert len(short.ids) < len(long.ids)


@pytest.mark.parametrize("name", ["llama", "neox-parallel", "gpt2"])
def test_padding_changes_no_loss(make_model: MakeModel, name: str) -> None:
    """The loss of a padded batch against the mean over the scored tokens of its examples, each alone and unpadded."""
    loaded = make_model(name)
    texts = [("a", "b"), ("the old man went", "down to the sea"), ("x = 1", "y = x + 2 and more")]
    examples = [encode(prompt, response, loaded.tokenizer) for prompt, response in texts]
    loss = loss_function(loaded.model.eval(), "float32")
    with torch.inference_mode():
        together = loss(*(lambda batch: (batch.ids, batch.labels))(pad(examples))).item()
        nats, count = 0.0, 0
        for example in examples:
            ids = torch.from_numpy(example.ids).long()
            scores = loaded.model(input_ids=ids[None]).logits[0].log_softmax(-1)
            for place in range(example.scored_from, len(ids)):
                nats -= scores[place - 1, ids[place]].item()
                count += 1
    assert together == pytest.approx(nats / count, abs=1e-5)


def test_what_does_not_fit_is_left_out_and_counted(make_model: MakeModel) -> None:
    tokenizer = make_model("llama").tokenizer
    instructions = [Instruction("prose", "Go on.", "and " * length, length % 2 == 0) for length in range(1, 9)]
    sizes = [len(encode(PROMPT.format(prompt="Go on."), one.response, tokenizer).ids) for one in instructions]
    encoded = encode_all(instructions, tokenizer, sizes[4], {})
    assert [len(example.ids) for example in encoded.training["prose"]] == [sizes[0], sizes[2], sizes[4]]
    assert [len(example.ids) for example in encoded.held_out["prose"]] == [sizes[1], sizes[3]]
    assert encoded.left_out == {"too_long": {"prose": 3}}
    others = (
        encode_all(instructions[:-1], tokenizer, sizes[4], {}),
        encode_all(instructions[1:], tokenizer, sizes[4], {}),
    )
    assert others[0].digest == encoded.digest != others[1].digest
