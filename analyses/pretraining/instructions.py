"""Read instructions: prompts with the response wanted, in prose or in code."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activations.errors import TwinprobeError
from activations.texts import numbered_lines, parse_json
from analyses.pretraining.corpora import Document
from analyses.pretraining.decontamination import EvaluationSets, decontaminate
from analyses.pretraining.prompted import Prompted, encode
from analyses.pretraining.tables import Kind

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from analyses.pretraining.tuning_design import Instructions

PROMPT = "### Instruction\n{prompt}\n### Response\n"
"""What comes before the response. An end-of-text stands before it, and another one after the response."""


@dataclass(frozen=True)
class Instruction:
    """A prompt and the response wanted."""

    kind: Kind
    prompt: str
    response: str
    held_out: bool


@dataclass(frozen=True, eq=False)
class Encoded:
    """Examples by kind, to tune on and held out, and how many instructions were left out of both, by reason and kind."""

    training: dict[Kind, list[Prompted]] = field(default_factory=dict)
    held_out: dict[Kind, list[Prompted]] = field(default_factory=dict)
    left_out: dict[str, Counter[Kind]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """A hash of every example in order."""
        digest = hashlib.sha256()
        for part in (self.training, self.held_out):
            for kind in sorted(part):
                for example in part[kind]:
                    digest.update(f"{kind} {len(example.ids)} {example.scored_from} ".encode() + example.ids.tobytes())
        return digest.hexdigest()


def read_instructions(sources: Sequence[Instructions], root: Path) -> list[Instruction]:
    """Every instruction of every source, in order.

    A line has strings ``prompt`` and ``response``, or Alpaca's ``instruction``, ``input`` (may be missing or empty; it follows
    the instruction after a blank line) and ``output``. Other keys are ignored. Equal prompts are all held out or none is.

    Raises:
        TwinprobeError: a file is missing or empty, or a line is not an instruction.
    """
    instructions: list[Instruction] = []
    for source in sources:
        path, before = root / source.path, len(instructions)
        for number, line in numbered_lines(path):
            prompt, response = _parts(parse_json(line, f"{path}:{number}"), f"{path}:{number}")
            instructions.append(Instruction(source.kind, prompt, response, _position(prompt) < source.held_out))
        if len(instructions) == before:
            raise TwinprobeError(f"{path}: no instructions; expected JSON lines with 'prompt' and 'response'")
    return instructions


def _parts(raw: Any, where: str) -> tuple[str, str]:
    names = ("instruction", "output") if isinstance(raw, dict) and "instruction" in raw else ("prompt", "response")
    if not isinstance(raw, dict) or not all(isinstance(raw.get(name), str) and raw[name].strip() for name in names):
        raise TwinprobeError(
            f"{where}: expected a JSON object with non-empty strings 'prompt' and 'response', or 'instruction' and 'output'"
        )
    prompt, response = (raw[name] for name in names)
    given = raw.get("input", "") if names[0] == "instruction" else ""
    if not isinstance(given, str):
        raise TwinprobeError(f"{where}: 'input' must be a string, got {given!r}")
    return (f"{prompt}\n\n{given}" if given.strip() else prompt), response


def _position(prompt: str) -> float:
    """A number from 0 up to 1 that is a function of the prompt alone."""
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:6], "big") / 2**48


def without(
    sets: EvaluationSets, instructions: Iterable[Instruction], left_out: dict[str, Counter[Kind]]
) -> list[Instruction]:
    """The instructions that share no run of words with an evaluation set; the others are counted in ``left_out``."""
    count, kept = left_out.setdefault("shared_with_evaluation_sets", Counter()), []
    for instruction in instructions:
        document = Document(instruction.kind, "", f"{instruction.prompt}\n{instruction.response}")
        if list(decontaminate(document, sets, 0)) == [document]:
            kept.append(instruction)
        else:
            count[instruction.kind] += 1
    return kept


def encode_all(
    instructions: Iterable[Instruction],
    tokenizer: PreTrainedTokenizerBase,
    context: int,
    left_out: dict[str, Counter[Kind]],
) -> Encoded:
    """Instructions as examples; those longer than ``context`` tokens are left out whole and counted.

    Cut to length they would teach a model to break off.
    """
    encoded = Encoded(left_out=left_out)
    too_long = left_out.setdefault("too_long", Counter())
    for instruction in instructions:
        example = encode(PROMPT.format(prompt=instruction.prompt), instruction.response, tokenizer)
        if len(example.ids) > context:
            too_long[instruction.kind] += 1
        else:
            part = encoded.held_out if instruction.held_out else encoded.training
            part.setdefault(instruction.kind, []).append(example)
    return encoded
