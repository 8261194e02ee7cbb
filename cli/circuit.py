"""``twinprobe circuit``: the circuit of a contrast in both models of a pair, how far it can be trusted, what they share."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from cli.contrasts import check_folder, chosen_items, chosen_models, chosen_pair, contrast_options, reading_options
from cli.options import COUNT, PATH
from cli.output import interval, print_json, print_table, progress

if TYPE_CHECKING:
    from analyses.circuits.result import CircuitResult

Line = dict[str, Any]


@click.command(
    epilog="""\b
Examples:
  twinprobe circuit --pair embedded --task nesting --form code --out runs/circuit
  twinprobe circuit --pair embedded --task nesting --edges 20 --method eap --out runs/circuit

A circuit is chosen on one half of the items that a model answers rightly in both texts, and measured on the other half.
docs/PATCHING.md explains every figure."""
)
@contrast_options
@click.option("--max-items", type=COUNT, default=64, show_default=True, help="Retained items used per form.")
@click.option(
    "--method",
    type=click.Choice(["eap", "eap-ig"]),
    default="eap-ig",
    show_default=True,
    help="How edges are scored: from one gradient, or from its mean along a path between the two runs.",
)
@click.option("--steps", type=COUNT, default=5, show_default=True, help="Gradients averaged by eap-ig.")
@click.option("--edges", type=COUNT, default=None, help="Edges of the circuit, before those on no path are taken away.")
@click.option(
    "--faithfulness",
    type=click.FloatRange(0, 1, min_open=True),
    default=None,
    help="Instead of --edges: as few of 1, 2, 4, ... edges as are so faithful on the choosing items.  [default: 0.85]",
)
@click.option(
    "--random-draws", type=COUNT, default=10, show_default=True, help="Random circuits of equal size, of each kind."
)
@click.option(
    "--check-exact",
    type=click.IntRange(min=2),
    default=100,
    show_default=True,
    help="Edges whose estimate is compared with an exact path patch.",
)
@click.option("--out", required=True, type=PATH, metavar="FOLDER", help="Folder for JSON files and pictures.")
@reading_options
def circuit(
    pair: str | None,
    base: str | None,
    code: str | None,
    task: str | None,
    items_file: Path | None,
    forms: tuple[str, ...],
    max_prompts: int,
    max_items: int,
    method: str,
    steps: int,
    edges: int | None,
    faithfulness: float | None,
    random_draws: int,
    check_exact: int,
    out: Path,
    seed: int,
    bos: str,
    as_json: bool,
    **loading: Any,
) -> None:
    """Find the circuit that gives the answer in each model of a pair, measure it, and compare the two."""
    from activations.errors import TwinprobeError

    names = chosen_pair(pair, base, code)
    items, label, used = chosen_items(task, items_file, forms, seed)
    if edges is not None and faithfulness is not None:
        raise TwinprobeError(
            f"--edges {edges} and --faithfulness {faithfulness:g} both say how large; give one of them"
        )
    if loading["quantization"]:
        raise TwinprobeError(
            f"circuits need gradients, and {loading['quantization']} weights have none; leave out --quantization"
        )
    check_folder(out, (".json", ".png"))
    specs, prepend = chosen_models(names, bos, loading)
    from activations.models import load_model
    from analyses.circuits.finding import find_circuit
    from analyses.prompts import prompts

    out.mkdir(parents=True, exist_ok=True)  # a place that can not be written is found before the work is done
    for old in (*out.glob("circuit-*.png"), *out.glob("circuit-*.json")):
        old.unlink()
    found: dict[tuple[str, str], CircuitResult] = {}
    without: dict[tuple[str, str], TwinprobeError] = {}
    with progress(f"circuits of {label}") as report:
        for role, spec in specs.items():
            loaded = load_model(spec, check=loading["self_check"])
            for form in used:
                kept, dropped = prompts(loaded, items, form, prepend)
                try:
                    if not kept:
                        reasons = ", ".join(f"{reason} ({count})" for reason, count in sorted(dropped.items()))
                        raise TwinprobeError(f"no item of {label} in {form} form gives a usable prompt: {reasons}")
                    found[form, role] = find_circuit(
                        loaded, kept[:max_prompts], method=method, steps=steps, n_edges=edges,
                        target=faithfulness or 0.85, max_items=max_items, random_draws=random_draws,
                        check_exact=check_exact, seed=seed, progress=partial(report, f"{role}, {form} form"),
                    )  # fmt: skip
                except TwinprobeError as error:
                    # A model that does not do the task has no circuit for it; the other one's is shown all the same.
                    without[form, role] = error
    if not found:
        raise next(iter(without.values()))
    files = _write(found, label, out)
    shared = [_shared(form, found[form, "base"], found[form, "code"]) for form in used if _both(found, form)]
    if as_json:
        circuits = [{"role": role, **result.to_json(task=label, form=form)} for (form, role), result in found.items()]
        refused = [{"role": role, "form": form, "reason": str(reason)} for (form, role), reason in without.items()]
        print_json({"circuits": circuits, "without": refused, "overlap": shared, "out": str(out)})
        return
    _show(found, label)
    _show_shared(shared)
    for (form, role), reason in without.items():
        click.echo(f"no circuit of {role}, {form} form: {reason}")
    click.echo("\n".join(files))


def _both(found: dict[tuple[str, str], CircuitResult], form: str) -> bool:
    return all((form, role) in found for role in ("base", "code"))


def _write(found: dict[tuple[str, str], CircuitResult], label: str, out: Path) -> list[str]:
    """A JSON file and a picture of every circuit; their paths."""
    from analyses.circuits.drawing import draw_circuit

    files = []
    for (form, role), result in found.items():
        path = out / f"circuit-{quote(label, safe='')}-{quote(form, safe='')}-{role}.json"
        result.write(path, role=role, task=label, form=form)
        draw_circuit(result, f"{role}: {label}, {form} form", path.with_suffix(".png"))
        files += [str(path), str(path.with_suffix(".png"))]
    return files


def _shared(form: str, base: CircuitResult, code: CircuitResult) -> Line:
    """How many edges the two circuits share, and how many two random choices of as many edges would."""
    ours, theirs = (
        set(zip(kept.sender, kept.receiver, strict=True))
        for kept in (result.edges[result.edges.kept] for result in (base, code))
    )
    same = list(zip(base.edges.sender, base.edges.receiver, strict=True)) == list(
        zip(code.edges.sender, code.edges.receiver, strict=True)
    )
    if not same:
        return {"form": form, "base": len(ours), "code": len(theirs), "reason": "the models have other nodes or edges"}
    both = len(ours & theirs)
    return {
        "form": form, "base": len(ours), "code": len(theirs), "shared": both,
        "by_chance": len(ours) * len(theirs) / base.graph.n_edges, "jaccard": both / len(ours | theirs), "reason": None,
    }  # fmt: skip


def _show(found: dict[tuple[str, str], CircuitResult], label: str) -> None:
    rows, checks = [], []
    for (form, role), result in found.items():
        one = result.to_json()
        held_out = one["items"].get("held out", 0)
        needed = result.minimality
        rows.append(
            (
                role, form, f"{one['items'].get('choosing', 0)} + {held_out}", f"{result.n_edges} of {result.graph.n_edges}",
                one["faithfulness"]["estimate"], interval(one["faithfulness"]["low"], one["faithfulness"]["high"]),
                one["completeness"]["estimate"], interval(one["completeness"]["low"], one["completeness"]["high"]),
                *(one["random"].get(kind, {}).get("mean") for kind in ("edges", "paths")),
                f"{int((needed.low > 0).sum())} of {len(needed)}",
            )
        )  # fmt: skip
        for drawn, agreement in one["agreement"].items():
            names = ("cells", "spearman", "sign", "false_negatives", "top")
            checks.append((role, form, drawn, *(agreement[name] for name in names)))
    print_table(
        f"Circuits of {label}",
        (
            "model", "form", "items", "edges", "faithfulness", "interval", "completeness", "interval", "random edges",
            "random paths", "needed",
        ),
        rows,
        caption="items: that chose the circuit + that it was measured on; faithfulness: of the circuit alone; completeness: "
        "faithfulness of all but the circuit; random: mean faithfulness of random circuits of equal size; needed: edges "
        "without which faithfulness falls, with its whole interval, of those left out one at a time.",
    )  # fmt: skip
    print_table(
        "Agreement of estimated edges with exact path patching",
        ("model", "form", "edges drawn from", "edges", "spearman", "sign", "false_negatives", "top"),
        checks,
        caption="random: edges drawn from all; circuit: edges of the circuit. false_negatives: share of the top edges by "
        "exact magnitude that are not among the top estimates.",
    )


def _show_shared(shared: list[Line]) -> None:
    for line in shared:
        sizes = f"{line['form']} form: base has {line['base']} edges, code {line['code']}"
        if line["reason"]:
            click.echo(f"{sizes}; not compared, as {line['reason']}")
            continue
        click.echo(
            f"{sizes}; {line['shared']} are shared (were edges drawn at random, {line['by_chance']:.1f} would be), Jaccard "
            f"{line['jaccard']:.2f}"
        )
