"""``twinprobe show``: what there is, pairs, tasks, sites, and what a store holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli.options import PATH, json_option
from cli.output import print_json, print_table, size


@click.group(
    epilog="\b\nExamples:\n  twinprobe show pairs\n  twinprobe show pairs qwen2.5-0.5b\n  twinprobe show store runs/acts"
)
def show() -> None:
    """Show pairs, tasks, sites, or what a store holds."""


@show.command()
@click.argument("name", required=False)
@json_option
def pairs(name: str | None, as_json: bool) -> None:
    """Published code/base pairs and what makes the two models differ; one pair in full with NAME."""
    from dataclasses import asdict

    from activations.pairs import confounds, get_pair, load_pairs

    if name:
        pair = get_pair(name)
        if as_json:
            print_json({**asdict(pair), "confounds": confounds(pair)})
            return
        click.echo(f"{pair.name} ({pair.family}, {pair.kind})\n  base: {pair.base}\n  code: {pair.code}\n")
        for sentence in confounds(pair):
            click.echo(f"  - {sentence}")
        click.echo("\n  sources:\n" + "\n".join(f"    {source}" for source in pair.sources))
        return
    found = list(load_pairs().values())
    if as_json:
        print_json([asdict(pair) for pair in found])
        return
    print_table(
        f"{len(found)} pairs (details and sources: twinprobe show pairs NAME)",
        ("name", "base", "code", "size ratio", "architecture", "tokenizer", "continued"),
        [
            (
                pair.name, pair.base, pair.code, None if pair.size_ratio is None else f"{pair.size_ratio:.2f}",
                pair.same_architecture.verdict, pair.same_tokenizer.verdict, pair.continued_from_base.verdict,
            )
            for pair in found
        ],
        caption="architecture, tokenizer: are they the same? continued: was the code model trained on from the base?",
    )  # fmt: skip


@show.command()
@click.argument("name", required=False)
@json_option
def tasks(name: str | None, as_json: bool) -> None:
    """Tasks, with an example of each form."""
    from probes.tasks import TASKS, get_task

    chosen = [get_task(name)] if name else list(TASKS.values())
    if as_json:
        print_json([_task(task) for task in chosen])
        return
    for task in chosen:
        described = _task(task)
        kind = "can be patched" if task.causal else "probes only"
        click.echo(f"\n{task.name}: {task.summary} ({kind})")
        click.echo(
            "  targets: " + "; ".join(f"{target} ({', '.join(forms)})" for target, forms in task.targets.items())
        )
        for form, example in described["examples"].items():
            click.echo(f"  {form}:")
            click.echo("\n".join(f"    | {line}" for line in example["text"].splitlines()))
            if example["answer"] is not None:
                click.echo(f"    answer {example['answer']!r}, contrast {example['contrast']!r}")
            labels = ", ".join(f"{name} = {label}" for name, label in example["labels"])
            click.echo(f"    labels {labels}")


def _task(task: Any) -> dict[str, Any]:
    examples: dict[str, Any] = {}
    for item in task.generate(60, 0):
        for form, rendered in item.forms.items():
            labels = [(span.name, span.label) for span in rendered.spans if span.label is not None]
            if form not in examples and labels:
                examples[form] = {
                    "text": rendered.text,
                    "answer": rendered.answer,
                    "contrast": rendered.contrast.answer if rendered.contrast else None,
                    "labels": labels,
                }
    return {"name": task.name, "summary": task.summary, "causal": task.causal,
            "targets": {target: list(forms) for target, forms in task.targets.items()}, "examples": examples}  # fmt: skip


@show.command()
@json_option
def sites(as_json: bool) -> None:
    """Sites that can be captured, and how to select them."""
    from activations.sites import DESCRIPTIONS, WITHOUT_LAYER

    if as_json:
        print_json(DESCRIPTIONS)
        return
    print_table(
        "Sites",
        ("site", "written", "what it is"),
        [(name, name if name in WITHOUT_LAYER else f"{name}.LAYER", text) for name, text in DESCRIPTIONS.items()],
        caption="LAYER is 3, 0-11, 0-11:2 or *; join selections with commas: 'embed,resid_post.*'. One head: z.3.5",
    )


@show.command()
@click.argument("path", type=PATH)
@json_option
def store(path: Path, as_json: bool) -> None:
    """What a store holds: model, texts, rows, sites."""
    from activations.store import ActivationStore

    opened = ActivationStore(path)
    rows, model = opened.rows, opened.provenance["model"]
    taken = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    spans = rows.span.value_counts().to_dict()
    if as_json:
        print_json(
            {**opened.provenance, "n_rows": len(rows), "n_texts": len(opened.texts), "bytes": taken, "spans": spans}
        )
        return
    print_table(
        str(path),
        ("", ""),
        [
            ("model", f"{model['name']} ({model['architecture']}, {model['layers']} layers × {model['width']})"),
            ("computed in", f"{model['compute_dtype']}, {model['attention_kernel']} attention, on {model['device']}"),
            ("stored as", opened.dtype),
            ("texts", f"{len(opened.texts):,}"),
            (
                "rows",
                f"{len(rows):,} ({opened.provenance['rows']}, BOS {'prepended' if opened.provenance['bos'] else 'not used'})",
            ),
            ("spans", ", ".join(f"{name} {count:,}" for name, count in spans.items()) or "none"),
            ("sites", ", ".join(opened.sites)),
            ("on disk", f"{size(taken)}, shards: {opened.provenance['shards']}"),
        ],
    )
