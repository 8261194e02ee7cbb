"""The model card of a trained run: data, licence, tokens, loss curve."""

from __future__ import annotations

from typing import Any

import numpy as np

from analyses.pretraining.design import Design

_BARS = "▁▂▃▄▅▆▇█"


def model_card(design: Design, facts: dict[str, Any], losses: list[float]) -> str:
    """Markdown for the finished run; every figure comes from ``facts`` and ``losses``."""
    run, shape, training = facts["run"], design.architecture, design.training
    share = run["code_share"]
    kinds = {"prose": 1 - share, "code": share}
    data = [entry for entry in design.data if kinds[entry.kind] > 0]
    points = [int(len(losses) * part) for part in (0.01, 0.05, 0.1, 0.25, 0.5, 0.75)]
    rows = [f"| {point} | {np.mean(losses[max(0, point - 25) : point + 25]):.3f} |" for point in points]
    held_out = facts["held_out_bits_per_byte"]
    return f"""# {design.name}: `{run["name"]}`

A small Llama-shaped decoder trained by twinprobe to serve as one of a pair of models that differ in their training
mixture and in nothing else. It is an instrument for testing methods, not a useful language model.

| | |
|---|---|
| share of code | {share:.0%} |
| seed (initial weights and data order) | {run["seed"]} |
| parameters | {facts["parameters"]:,} |
| layers × width × heads | {shape.layers} × {shape.hidden_size} × {shape.heads} |
| context | {shape.context} tokens |
| vocabulary | {design.tokenizer.vocabulary} (byte-level BPE trained on equal bytes of prose and code) |
| tokens seen | {facts["tokens"]:,} in {facts["steps"]:,} steps of {training.batch} × {shape.context} |
| passes over the data | {", ".join(f"{kind} {value}" for kind, value in facts["epochs"].items() if kinds[kind] > 0)} |
| optimiser | AdamW (0.9, 0.95), weight decay {training.weight_decay}, peak rate {training.learning_rate}, cosine |
| precision | {training.precision} compute on float32 weights; stored in bfloat16 |
| held-out bits per byte | {", ".join(f"{kind} {value}" for kind, value in held_out.items())} |

## Data and licences

{chr(10).join(f"- {entry.kind}: `{entry.path}` ({entry.licence}); never trained on: {_never(entry)}" for entry in data)}

The texts themselves are not part of the package. The weights are released under the MIT licence of twinprobe.

## Loss curve

Cross-entropy per token (nats); every tenth step is in `loss.csv`. {_sparkline(losses)}

| step | loss |
|---|---|
{chr(10).join(rows)}
| {len(losses)} | {facts["final_loss"]:.3f} |
"""


def _never(entry: Any) -> str:
    parts = [*entry.held_out, *(f"the last {share:.0%} of {rule}" for rule, share in entry.held_out_tail.items())]
    return ", ".join(parts) or "nothing"


def _sparkline(losses: list[float]) -> str:
    means = [float(np.mean(part)) for part in np.array_split(np.array(losses), min(40, len(losses)))]
    low, high = min(means), max(means)
    return "".join(_BARS[int((value - low) / (high - low + 1e-9) * (len(_BARS) - 1))] for value in means)
