"""The model card of a trained run: data, licence, tokens, loss curve."""

from __future__ import annotations

from typing import Any

import numpy as np

from analyses.pretraining.architectures import NAMES
from analyses.pretraining.design import Data, Design

_BARS = "▁▂▃▄▅▆▇█"


def model_card(design: Design, facts: dict[str, Any], losses: list[float]) -> str:
    """Markdown for the finished run; every figure comes from the design, ``facts`` and ``losses``."""
    run, shape, training = facts["run"], design.architecture, design.training
    share, seen = run["code_share"], facts["tokens_seen"]
    data = [entry for entry in design.data if seen[entry.kind]]
    points = [int(len(losses) * part) for part in (0.01, 0.05, 0.1, 0.25, 0.5, 0.75)]
    rows = [f"| {point} | {np.mean(losses[max(0, point - 25) : point + 25]):.3f} |" for point in points]
    sizes = f"{shape.layers} × {shape.hidden_size}{'' if shape.kind == 'mamba' else f' × {shape.heads}'}"
    return f"""# {design.name}: `{run["name"]}`

A small language model trained by twinprobe to serve as one of a family of models that differ in their training mixture
and in nothing else. It is an instrument for testing methods, not a useful language model.

| | |
|---|---|
| architecture | {NAMES[shape.kind]} |
| share of code | {share:.4g} |
| serves as | {_settings(run["serves"])} |
| seed (initial weights and data order) | {run["seed"]} |
| parameters | {facts["parameters"]:,} |
| layers × width{"" if shape.kind == "mamba" else " × heads"} | {sizes} |
| context | {shape.context} tokens |
| vocabulary | {design.tokenizer.vocabulary} (byte-level BPE trained on equal bytes of prose and code) |
| tokens seen | {_counts(seen)}; in all {facts["tokens"]:,} in {facts["steps"]:,} steps of {training.batch} × {shape.context} |
| passes over the data | {", ".join(f"{kind} {value}" for kind, value in facts["epochs"].items() if seen[kind])} |
| optimiser | AdamW (0.9, 0.95), weight decay {training.weight_decay}, gradients clipped to norm 1 |
| learning rate | up to {training.learning_rate} over the first {training.warmup:.0%} of the steps, then cosine to a tenth |
| precision | {training.precision} compute on float32 weights; stored in bfloat16 |
| trained on | {facts["device"]}, {facts["processes"]} process{"es" if facts["processes"] > 1 else ""}, {facts["software"]} |
| held-out bits per byte | {_held_out(facts["held_out_bits_per_byte"])} |

{_command(facts["command"])}## Data and licences

{chr(10).join(f"- {entry.kind}: `{entry.source}` ({entry.licence}); never trained on: {_never(entry)}" for entry in data)}

{_decontamination(facts["decontamination"])}

The texts themselves are not part of the package. The weights are released under the MIT licence of twinprobe.

## Loss curve

Cross-entropy per token (nats); every tenth step is in `loss.csv`. {_sparkline(losses)}

| step | loss |
|---|---|
{chr(10).join(rows)}
| {len(losses)} | {facts["final_loss"]:.3f} |
"""


def _settings(serves: list[dict[str, Any]]) -> str:
    return ", ".join(f"{point['setting']} at share {point['share']:.4g}" for point in serves) or "a run of its own"


def _counts(seen: dict[str, int]) -> str:
    return ", ".join(f"{kind} {count:,}" for kind, count in seen.items())


def _held_out(values: dict[str, float]) -> str:
    return ", ".join(f"{kind} {value}" for kind, value in values.items()) or "not measured: too little was held out"


def _command(command: str) -> str:
    return f"Made by:\n\n```\n{command}\n```\n\n" if command else ""


def _decontamination(facts: dict[str, Any]) -> str:
    """What was cut out of the training text, of all runs of the design alike."""
    if not facts["against"]:
        return "The training text was not compared with any evaluation set."
    cut = facts["characters_cut"]
    found = ", ".join(f"{name} {count:,}" for name, count in cut.items())
    return (
        f"Passages that share {facts['words']} words in a row with an evaluation set were cut out of the training text of "
        f"all runs, with {facts['margin']} characters on either side: {sum(cut.values()):,} characters"
        f"{f' ({found})' if found else ''}. Sets compared: {', '.join(facts['against'])}."
    )


def _never(entry: Data) -> str:
    parts = [*entry.held_out, *(f"the last {share:.0%} of {rule}" for rule, share in entry.held_out_tail.items())]
    return ", ".join(parts) or "nothing"


def _sparkline(losses: list[float]) -> str:
    means = [float(np.mean(part)) for part in np.array_split(np.array(losses), min(40, len(losses)))]
    low, high = min(means), max(means)
    return "".join(_BARS[int((value - low) / (high - low + 1e-9) * (len(_BARS) - 1))] for value in means)
