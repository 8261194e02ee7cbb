"""The second stage: tune every pretrained run on instructions, once with each mix of the design.

With two runs (one that saw code, one that did not) and two mixes (one with code, one without) these are the four cells of
Ma et al. 2024 ("At Which Training Stage Does Code Data Help LLMs Reasoning?", arXiv 2309.16298).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from activations.errors import TwinprobeError
from activations.files import write_whole
from analyses.pretraining.decontamination import EvaluationSets
from analyses.pretraining.design import Design, Kind, Run
from analyses.pretraining.finished import write_model
from analyses.pretraining.instructions import PROMPT, Encoded, encode_all, read_instructions, without
from analyses.pretraining.loop import UNSCORED, Batch, Report, loss_function, optimise
from analyses.pretraining.mixing_schedules import kinds, phases
from analyses.pretraining.packing import mixture
from analyses.pretraining.processes import processes
from analyses.pretraining.prompted import Prompted, pad
from analyses.pretraining.provenance import provenance
from analyses.pretraining.tuning_card import tuned_model_card
from analyses.pretraining.tuning_design import Mix, Tuning

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

EVALUATION_EXAMPLES = 256
"""Of each kind, held out, that the loss is taken on before and after tuning."""


def tuned_folder(out: Path, run: Run, mix: Mix) -> Path:
    """Where the model of a run tuned with a mix belongs; its own folder there is ``model``."""
    return out / f"{run.name}+{mix.name}"


def untuned(design: Design, out: Path, runs: Sequence[Run]) -> list[tuple[Run, Mix]]:
    """Every run with every mix that it is still to be tuned with."""
    mixes = design.tuning.mix if design.tuning else ()
    return [
        (run, mix)
        for run in runs
        for mix in mixes
        if not (tuned_folder(out, run, mix) / "model" / "model.safetensors").exists()
    ]


def check_instructions(design: Design, data_dir: Path, out: Path, runs: Sequence[Run]) -> None:
    """Read the instructions that ``runs`` are still to be tuned on: a mistake in them is to show before pretraining.

    Raises:
        TwinprobeError: see :func:`analyses.pretraining.instructions.read_instructions`.
    """
    if design.tuning and untuned(design, out, runs):
        read_instructions(design.tuning.data, data_dir)


def example_order(order: Sequence[Kind], rows: Mapping[Kind, int], seed: int) -> list[tuple[Kind, int]]:
    """``(kind, row)`` of each example.

    Each kind is read in an order of its own, shuffled anew every time over and a function of ``seed`` and of how many ``rows``
    it has alone: whatever the mix, the first example of a kind is the same, and the second.
    """
    drawn = {kind: iter(mixture(dict(rows), float(kind == "code"), order.count(kind), seed)) for kind in set(order)}
    return [next(drawn[kind]) for kind in order]


def tune_design(
    design: Design, data_dir: Path, out: Path, report: Report, runs: Sequence[Run], command: str = ""
) -> dict[str, Path]:
    """Tune the pretrained ``runs`` with every mix of the design; return the folder of each model under ``run+mix``.

    Args:
        command: what was typed, for the model cards.

    Raises:
        TwinprobeError: see :func:`analyses.pretraining.instructions.read_instructions`; also when a kind that a mix needs has
            no instruction left that fits, or ``out`` holds models tuned on others.
    """
    from transformers import PreTrainedTokenizerFast

    tuning = design.tuning
    if tuning is None:
        return {}
    missing = untuned(design, out, runs)
    processes().wait()  # until all have looked: the first may finish a model without the others
    if missing:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(out / missing[0][0].name / "model")
        encoded = _encode(design, tuning, data_dir, tokenizer, report)
        _record(tuning, encoded, out)
        for run, mix in missing:
            facts = {"design": design.name, **provenance(command)}
            _tune(tuning, run, mix, encoded, tokenizer, out, report, facts)
    return {f"{run.name}+{mix.name}": tuned_folder(out, run, mix) / "model" for run in runs for mix in tuning.mix}


def _encode(
    design: Design, tuning: Tuning, data_dir: Path, tokenizer: PreTrainedTokenizerFast, report: Report
) -> Encoded:
    report("reading instructions", 0, 1, "")
    left_out: dict[str, Counter[Kind]] = {}
    instructions = read_instructions(tuning.data, data_dir)
    against = design.decontamination
    if against.against:
        sets = EvaluationSets(against.against, data_dir, against.words)
        instructions = without(sets, instructions, left_out)
    context = design.architecture.context
    encoded = encode_all(instructions, tokenizer, context, left_out)
    for mix in tuning.mix:
        for kind in sorted(mix.needs - set(encoded.training)):
            raise TwinprobeError(
                f"{data_dir}: no {kind} instruction is left to tune on, but mix {mix.name!r} needs some "
                f"({left_out['too_long'][kind]} do not fit the context of {context} tokens); give more, or shorter ones"
            )
    report("reading instructions", 1, 1, "")
    return encoded


def _record(tuning: Tuning, encoded: Encoded, out: Path) -> None:
    """Note what the models of ``out`` are tuned on, or check that it is still the same."""
    path = out / "tuning.json"
    text = json.dumps({"tuning": tuning.model_dump(mode="json"), "instructions": encoded.digest}, indent=2) + "\n"
    if path.exists() and path.read_text() != text:
        raise TwinprobeError(
            f"{out} holds models tuned with other settings or instructions (tuning.json); choose another --out, "
            "or remove that file and the folders with '+' in their names"
        )
    if not path.exists() and processes().first:
        write_whole(path, text.encode())


def _tune(
    tuning: Tuning,
    run: Run,
    mix: Mix,
    encoded: Encoded,
    tokenizer: PreTrainedTokenizerFast,
    out: Path,
    report: Report,
    facts: Mapping[str, Any],
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder = tuned_folder(out, run, mix)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    rows = {kind: len(examples) for kind, examples in encoded.training.items()}
    order = example_order(kinds(mix.schedule, mix.ratios, tuning.examples), rows, run.seed)
    examples = [encoded.training[kind][row] for kind, row in order]

    def batch_at(step: int) -> Batch:
        return pad(examples[step * tuning.batch : (step + 1) * tuning.batch])

    pretrained, crowd = out / run.name / "model", processes()
    model = AutoModelForCausalLM.from_pretrained(pretrained, dtype=torch.float32).to(crowd.device)
    before = _held_out_losses(model, encoded)
    losses = optimise(model, batch_at, tuning.steps, tuning, checkpoint, folder.name, report)
    if crowd.first:
        model = model.to(torch.bfloat16).float()
        after = _held_out_losses(model, encoded)
        first_stage = json.loads((pretrained / "training.json").read_text())
        facts = {
            **facts,
            "run": {**first_stage["run"], "tuning": mix.name},
            **_seen(tuning, mix, order, encoded),
            "steps": len(losses),
            "parameters": model.num_parameters(),
            "final_loss": round(float(np.mean(losses[-100:])), 4),
            "held_out_loss": {
                kind: {"before": round(before[kind], 4), "after": round(after[kind], 4)} for kind in after
            },
            "first_stage": first_stage,
        }
        card = tuned_model_card(tuning, facts, (pretrained / "README.md").read_text(encoding="utf-8"))
        write_model(folder, model.to(torch.bfloat16), tokenizer, losses, facts, card)
        checkpoint.unlink(missing_ok=True)
    crowd.wait()


def _held_out_losses(model: PreTrainedModel, encoded: Encoded) -> dict[Kind, float]:
    """Nats per token of the responses to held-out prompts, by kind, in float32."""
    import torch

    loss = loss_function(model.eval(), "float32")
    means: dict[Kind, float] = {}
    with torch.inference_mode():
        for kind, examples in encoded.held_out.items():
            total, count = 0.0, 0
            for batch in _batches(examples[:EVALUATION_EXAMPLES]):
                scored = int((batch.labels != UNSCORED).sum())
                total += loss(batch.ids, batch.labels).item() * scored
                count += scored
            means[kind] = total / count
    model.train()
    return means


def _batches(examples: Sequence[Prompted]) -> list[Batch]:
    return [pad(examples[start : start + 16]) for start in range(0, len(examples), 16)]


def _seen(tuning: Tuning, mix: Mix, order: Sequence[tuple[Kind, int]], encoded: Encoded) -> dict[str, Any]:
    """What a model was tuned on, for ``training.json``."""
    examples = [encoded.training[kind][row] for kind, row in order]
    seen = [kind for kind, _ in order]
    counts = _counts(seen)
    stages = phases(mix.schedule, mix.ratios, tuning.examples)
    return {
        "mix": mix.model_dump(mode="json"),
        "template": PROMPT + "{response}",
        "examples": counts,
        "phases": [{"ratio": name, **_counts(seen[places.start : places.stop])} for name, places in stages],
        "epochs": {kind: round(count / len(encoded.training[kind]), 3) for kind, count in counts.items() if count},
        "left_out": {reason: dict(count) for reason, count in encoded.left_out.items()},
        "tokens": sum(len(example.ids) for example in examples),
        "scored_tokens": {
            kind: sum(len(one.ids) - one.scored_from for one, at in zip(examples, seen, strict=True) if at == kind)
            for kind in counts
        },
    }


def _counts(seen: Sequence[Kind]) -> dict[Kind, int]:
    return {"prose": seen.count("prose"), "code": seen.count("code")}
