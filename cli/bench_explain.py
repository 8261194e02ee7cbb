"""``twinprobe bench explain``: how well systems explain code, and whether they differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import COUNT, PATH, bos_option, json_option, loading_options, model_spec, seed_option
from cli.output import duration, interval, print_json, print_table, progress, quiet_libraries, say

if TYPE_CHECKING:
    import pandas as pd

    from analyses.benchmarks.explanation.items import Explained
    from analyses.benchmarks.explanation.scores import Measured

TABLES = ("scores", "comparison", "items")
METRICS = ("bleu", "rouge1", "rouge2", "rougeL", "meteor")
MEANING = (
    "difference: model minus the first system; better: share of resamples in which it scores higher; p: two-sided, Holm over "
    "all lines; *: both below 0.05"
)


@click.command(
    epilog="""\b
Examples:
  twinprobe bench explain --references conala-test.json --hypotheses base.jsonl --hypotheses code.jsonl --out runs/explain
  twinprobe bench explain --references conala-test.json --model org/base --model org/code --out runs/explain
  twinprobe bench explain ... --metric meteor --similarity microsoft/codebert-base

The references are CoNaLa's JSON, or JSONL with id, references (a list), source and group; hypotheses are JSONL with id and
text. BLEU and ROUGE need the extra twinprobe[bench]. docs/BENCHMARKS.md explains every score and test."""
)
@click.option(
    "--references", "references_file", required=True, type=PATH, metavar="FILE", help="Snippets and references."
)
@click.option(
    "--hypotheses", multiple=True, type=PATH, metavar="FILE", help="A system's explanations; give two or more."
)
@click.option("--model", "models", multiple=True, metavar="MODEL", help="Instead: a model that explains them itself.")
@click.option("--metric", "metrics", multiple=True, type=click.Choice(METRICS), help="Only this one; may be repeated.")
@click.option("--similarity", default=None, metavar="MODEL", help="Also BERTScore F1 and F3 of this model's vectors.")
@click.option("--layer", type=click.IntRange(min=0), default=None, help="Its layer; without it at 3/4 of the depth.")
@click.option("--idf", is_flag=True, help="Weigh its tokens by inverse document frequency over the references.")
@click.option("--new-tokens", type=COUNT, default=64, show_default=True, help="Most tokens of a model's explanation.")
@click.option("--resamples", type=click.IntRange(min=100), default=10_000, show_default=True, help="Of each test.")
@click.option("--out", required=True, type=PATH, metavar="DIR", help="Folder for tables and explanations.")
@seed_option
@bos_option
@loading_options
@json_option
def explain(
    references_file: Path, hypotheses: tuple[Path, ...], models: tuple[str, ...], metrics: tuple[str, ...],
    similarity: str | None, layer: int | None, idf: bool, new_tokens: int, resamples: int, out: Path, seed: int, bos: str,
    as_json: bool, **loading: Any,
) -> None:  # fmt: skip
    """BLEU, ROUGE, METEOR and token similarity of explanations of code, and paired tests between systems."""
    quiet_libraries([*models, *([similarity] if similarity else [])])
    from activations.errors import TwinprobeError
    from analyses.benchmarks.explanation.items import read_hypotheses, read_references
    from analyses.benchmarks.explanation.scores import compare, measure, per_item
    from cli.contrasts import check_folder

    if bool(hypotheses) == bool(models):
        raise TwinprobeError("give either --hypotheses FILE or --model MODEL, once for each system")
    if similarity is None and (layer is not None or idf):
        raise TwinprobeError("--layer and --idf say how --similarity MODEL is computed; give that, or leave them out")
    names = [path.stem for path in hypotheses] or list(models)
    if len(set(names)) < len(names):
        raise TwinprobeError(f"systems {', '.join(names)}: two have the same name; give every file a name of its own")
    check_folder(out, (".csv", ".jsonl"))
    items = read_references(references_file)
    texts = {path.stem: read_hypotheses(path, items) for path in hypotheses}
    measure([""], items[:1], metrics or METRICS)  # a package that is not there is found before any model runs
    out.mkdir(parents=True, exist_ok=True)
    for name in models:
        texts[name] = _explained(name, items, new_tokens, out, bos, loading)
    systems = {name: measure(own, items, metrics or METRICS) for name, own in texts.items()}
    if similarity:
        for name, more in _similar(similarity, texts, items, layer, idf, bos, loading).items():
            systems[name] += more
    tables = {
        "scores": _scores(systems),
        "comparison": compare(systems, items, seed=seed, n_resamples=resamples),
        "items": _joined([per_item(name, references_file.stem, own, items) for name, own in systems.items()]),
    }
    for table, content in tables.items():
        (out / f"{table}.csv").unlink(missing_ok=True)
        if len(content):
            content.to_csv(out / f"{table}.csv", index=False)
    if as_json:
        from probes.tables import records

        print_json({**{name: records(tables[name]) for name in TABLES[:2]}, "items": len(items), "out": str(out)})
        return
    _show(systems, tables["comparison"])
    click.echo(f"tables in {out}")


def _explained(
    name: str, items: list[Explained], new_tokens: int, out: Path, bos: str, loading: dict[str, Any]
) -> list[str]:
    """What a model says about every item, kept in a file named after all that it depends on."""
    import hashlib
    import time

    from activations.files import write_whole
    from activations.inputs import resolve_bos
    from activations.models import load_model
    from analyses.benchmarks.explanation.items import read_hypotheses
    from analyses.benchmarks.explanation.writing import TEMPLATE
    from analyses.benchmarks.explanation.writing import explain as explain_with

    loaded = load_model(model_spec(name, None, loading), check=loading["self_check"])
    opened = resolve_bos(bos, [loaded.tokenizer])
    given = [loaded.provenance(), opened, TEMPLATE, new_tokens, [(item.id, item.source) for item in items]]
    path = out / f"explained-{hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:16]}.jsonl"
    if path.exists():
        return read_hypotheses(path, items)
    sources = [item.source for item in items]
    if len(sources) > 32:
        began = time.perf_counter()
        explain_with(loaded, sources[:4], bos=opened, new_tokens=new_tokens)
        say(f"{name}: about {duration((time.perf_counter() - began) / 4 * len(sources))} at most")
    with progress(f"explaining with {name}") as report:
        texts = explain_with(
            loaded, sources, bos=opened, new_tokens=new_tokens,
            progress=lambda done, total: report("snippets", done, total),
        )  # fmt: skip
    lines = [json.dumps({"id": item.id, "text": text}) + "\n" for item, text in zip(items, texts, strict=True)]
    write_whole(path, "".join(lines).encode())
    return texts


def _similar(
    model: str, texts: dict[str, list[str]], items: list[Explained], layer: int | None, idf: bool, bos: str,
    loading: dict[str, Any],
) -> dict[str, list[Measured]]:  # fmt: skip
    """F1 and F3 of every system; all of them in one go, so that references are read once."""
    from activations.inputs import resolve_bos
    from activations.models import load_model
    from analyses.benchmarks.explanation.scores import averaged
    from analyses.benchmarks.explanation.similarity import similarity_scores

    loaded = load_model(model_spec(model, None, loading), check=loading["self_check"])
    everything = [text for own in texts.values() for text in own]
    references = [item.references for item in items] * len(texts)
    with progress(f"similarity by {model}") as report:
        table = similarity_scores(
            loaded, everything, references, bos=resolve_bos(bos, [loaded.tokenizer]), layer=layer, idf=idf,
            progress=lambda done, total: report("texts", done, total),
        )  # fmt: skip
    parts = {name: table.iloc[number * len(items) :][: len(items)] for number, name in enumerate(texts)}
    return {
        name: [averaged(f"similarity_{kind}", part[kind].to_numpy()) for kind in ("f1", "f3")]
        for name, part in parts.items()
    }


def _scores(systems: dict[str, list[Measured]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        [{"model": name, "metric": one.name, "score": one.corpus} for name, own in systems.items() for one in own]
    )


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat(tables, ignore_index=True)


def _show(systems: dict[str, list[Measured]], comparison: pd.DataFrame) -> None:
    from probes.tables import records

    columns = [one.name for one in next(iter(systems.values()))]
    rows = [[name, *(one.corpus for one in own)] for name, own in systems.items()]
    print_table("Explanations of code", ["system", *columns], rows, caption="0 to 1, all items together")
    if not len(comparison):
        return
    print_table(
        f"Against {comparison.base.iloc[0]}",
        ["system", "metric", "difference", "interval", "better", "p, bootstrap", "p, randomisation", ""],
        [
            [
                line["model"], line["metric"], line["difference"], interval(line["low"], line["high"]), line["better"],
                line["p_bootstrap_holm"], line["p_randomisation_holm"], "*" if line["significant"] else "",
            ]
            for line in records(comparison)
        ],
        caption=MEANING,
    )  # fmt: skip
