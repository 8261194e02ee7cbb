"""The model card of a tuned run: what it was tuned on, and the card of the model it began as."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from analyses.pretraining.tuning_design import Tuning


def tuned_model_card(tuning: Tuning, facts: Mapping[str, Any], first_card: str) -> str:
    """Markdown on both stages; every figure of the second comes from ``facts``, all of the first from its own card."""
    run, mix = facts["run"], facts["mix"]
    used = [source for source in tuning.data if facts["examples"][source.kind]]
    phases = [f"| {phase['ratio']} | {phase['prose']:,} | {phase['code']:,} |" for phase in facts["phases"]]
    held_out = [f"| {kind} | {loss['before']} | {loss['after']} |" for kind, loss in facts["held_out_loss"].items()]
    left_out = [
        f"{reason.replace('_', ' ')}: {', '.join(f'{kind} {count:,}' for kind, count in counts.items())}"
        for reason, counts in facts["left_out"].items()
        if counts
    ]
    return f"""# {facts["design"]}: `{run["name"]}` tuned with mix `{run["tuning"]}`

A small decoder trained by twinprobe in two stages, pretraining and instruction tuning, each with its own mixture of prose
and code. It is an instrument for testing methods, not a useful assistant. The first stage is described below, by the
card of the model `{run["name"]}`.

## Second stage: instruction tuning

| | |
|---|---|
| schedule | {mix["schedule"]}, prose to code {", ".join(mix["ratios"])} |
| examples | {", ".join(f"{kind} {count:,}" for kind, count in facts["examples"].items())} |
| passes over the instructions | {", ".join(f"{kind} {value}" for kind, value in facts["epochs"].items())} |
| tokens | {facts["tokens"]:,} in {facts["steps"]:,} steps |
| of which scored | {", ".join(f"{kind} {count:,}" for kind, count in facts["scored_tokens"].items())} |
| instructions left out | {"; ".join(left_out) or "none"} |
| seed (order of the instructions) | {run["seed"]} |
| optimiser | AdamW (0.9, 0.95), batch {tuning.batch}, weight decay {tuning.weight_decay} |
| learning rate | up to {tuning.learning_rate} over the first {tuning.warmup:.0%} of the steps, then cosine to a tenth |
| precision | {tuning.precision} compute on float32 weights; begun from and stored in bfloat16 |
| trained on | {facts["device"]}, {facts["processes"]} process{"es" if facts["processes"] > 1 else ""}, {facts["software"]} |
| final loss | {facts["final_loss"]} nats per token of the response |

The loss is taken on the response and the end-of-text after it. An end-of-text stands before the prompt:

```
{facts["template"]}
```

| phase (prose:code) | prose | code |
|---|---|---|
{chr(10).join(phases)}

| held-out responses, nats per token | before | after |
|---|---|---|
{chr(10).join(held_out)}

{chr(10).join(f"- {source.kind}: `{source.path}` ({source.licence}); {source.held_out:.0%} held out" for source in used)}

## First stage

{re.sub(r"^#", "##", first_card.split(chr(10), 1)[1].strip(), flags=re.MULTILINE)}
"""
