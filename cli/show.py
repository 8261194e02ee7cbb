"""``twinprobe show``: what there is, pairs, tasks, sites, and what a store holds."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import PATH, json_option
from cli.output import print_json, print_table, size

if TYPE_CHECKING:
    from activations.store import ActivationStore


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
    """Tasks, with an example of each form; NAME:PATH for one that is read from files."""
    from probes.tasks import SOURCES, TASKS, get_task

    chosen = [get_task(name)] if name else list(TASKS.values())
    sources = [] if name else list(SOURCES.values())
    if as_json:
        read = [{"name": f"{each.name}:PATH", "summary": each.summary, "path": each.path} for each in sources]
        print_json([*(_task(task) for task in chosen), *read])
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
    if sources:
        click.echo("\nRead from files (docs/FORMATS.md); an example: twinprobe show tasks NAME:PATH")
        for each in sources:
            click.echo(f"  {each.name}:PATH  {each.summary}; PATH is {each.path}")


def _task(task: Any) -> dict[str, Any]:
    examples: dict[str, Any] = {}
    for item in task.generate(60, 0):
        for form, rendered in item.forms.items():
            labels = [(span.name, span.label) for span in rendered.spans if span.label is not None]
            labels += [(relation.target, relation.label) for relation in rendered.relations]
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
    """What a store holds, a folder or a packed file: model, texts, rows, sites."""
    from activations.store import ActivationStore

    facts = _store(ActivationStore(path))
    if as_json:
        print_json(facts)
        return
    model, overlong = facts["model"], facts["overlong"]
    rules = {
        "tokens": "every token",
        "last": "last tokens",
        "positions": f"positions {', '.join(map(str, facts['positions']))}",
        "spans": f"spans, {facts['pool']} of their tokens",
    }
    closed = "" if facts["closing"] is None else f", texts closed by token {facts['closing']}"
    too_long = f"{overlong['texts']:,} cut by {overlong['rule']}, {overlong['lost_spans']:,} spans lost"
    lines = {
        "model": [f"{model['name']} ({model['architecture']}, {model['layers']} layers × {model['width']})"],
        "fingerprint": [model["fingerprint"] + (f", commit {model['commit']}" if model["commit"] else "")],
        "computed in": [
            f"{model['compute_dtype']}, {facts['attention_kernel']} attention, on {model['device']}, by {facts['engine']}"
        ],
        "texts": [f"{facts['n_texts']:,} (overlong: {'none' if overlong['rule'] == 'error' else too_long})"],
        "tokens": [f"{facts['n_tokens']:,} (BOS {'prepended' if facts['bos'] else 'not used'}{closed})"],
        "rows": [f"{facts['n_rows']:,} ({rules[facts['rows']]})"],
        "spans": [
            f"{name} {sum(labels.values()):,}" + (f": {_counts(labels)}" if set(labels) != {""} else "")
            for name, labels in facts["labels"].items()
        ],
        "sites": [
            f"{written} ({count} × {width}, {size(each)}{' each' if count > 1 else ''})"
            for written, count, width, each in _site_groups(facts["site_widths"], facts["site_bytes"])
        ],
        "activations": [f"{size(sum(facts['site_bytes'].values()))} as {facts['storage_dtype']}"],
        "on disk": [f"{size(facts['bytes'])}, {facts['kept_as']}, shards: {facts['shards']}"],
        "merged from": [
            f"{parent['name']} ({parent['rows']:,} rows × {len(parent['sites'])} sites)"
            for parent in facts.get("merged", ())
        ],
    }
    print_table(
        str(path),
        ("", ""),
        [(name if not number else "", line) for name, said in lines.items() for number, line in enumerate(said)],
    )


def _store(opened: ActivationStore) -> dict[str, Any]:
    """The provenance of a store, and what can be counted."""
    from activations.hdf5 import STORED_BYTES

    labels: dict[str, dict[str, int]] = {}
    if opened.provenance["rows"] == "spans":
        for (span, label), count in Counter(zip(opened.rows.span, opened.rows.label, strict=True)).items():
            labels.setdefault(span, {})[label or ""] = count
    widths = {site: opened.width(site) for site in opened.sites}
    return {
        **opened.provenance,
        "kept_as": "packed in one file" if opened.packed else "folder",
        "bytes": opened.size,
        "n_texts": len(opened.texts),
        "n_tokens": opened.n_tokens,
        "n_rows": opened.n_rows,
        "spans": {span: sum(found.values()) for span, found in labels.items()},
        "labels": labels,
        "site_widths": widths,
        "site_bytes": {site: opened.n_rows * width * STORED_BYTES[opened.dtype] for site, width in widths.items()},
    }


def _counts(labels: dict[str, int]) -> str:
    return ", ".join(f"{label or 'no label'} {count:,}" for label, count in labels.items())


def _site_groups(widths: dict[str, int], sizes: dict[str, int]) -> list[tuple[str, int, int, int]]:
    """Sites alike but for their layer as one: how they are written, how many, their width and bytes each."""
    layers: dict[tuple[str, str, int], list[int]] = {}
    for site, width in widths.items():
        match = re.fullmatch(r"(.*?\.)([0-9]+)((?:\..*)?)", site)
        before, layer, after = match.groups() if match else (site, None, "")
        layers.setdefault((before, after, width), []).extend([] if layer is None else [int(layer)])
    groups = []
    for (before, after, width), found in layers.items():
        runs: list[list[int]] = []
        for layer in sorted(found):
            if runs and layer == runs[-1][-1] + 1:
                runs[-1].append(layer)
            else:
                runs.append([layer])
        for run in runs or [[]]:
            between = f"{run[0]}-{run[-1]}" if len(run) > 1 else "".join(map(str, run))
            first = f"{before}{run[0] if run else ''}{after}"
            groups.append((f"{before}{between}{after}", max(len(run), 1), width, sizes[first]))
    return groups
