"""How alike the activations of the two models are, between two seeds of base and a random model: the sentence on it."""

from __future__ import annotations

from collections.abc import Sequence

from analyses.report.words import Line, count, interval, number

MEASURES = {"cka": "CKA", "procrustes": "Procrustes distance", "centred_cosine": "centred cosine", "cosine": "cosine"}
"""How the measures of similarity are called."""


def same_site(similarity: Sequence[Line]) -> list[Line]:
    """The lines that compare a site with itself in base and another model."""
    return [line for line in similarity if line["site_a"] == line["site_b"] and line["model_a"] == "base"]


def alike(similarity: Sequence[Line]) -> list[str]:
    """Per kind of text, where base and code are least alike, beside two seeds of base and a random model there."""
    known = [line for line in same_site(similarity) if line["measure"] == "cka" and line["value"] is not None]
    sentences = []
    for kind in dict.fromkeys(line["kind"] for line in known):
        by_model = {
            model: {line["site_a"]: line for line in known if (line["model_b"], line["kind"]) == (model, kind)}
            for model in ("code", "second_seed", "random")
        }
        pair, seeds, floor = by_model.values()
        if not pair:
            continue
        site, least = min(pair.items(), key=lambda entry: float(entry[1]["value"]))
        said = f"{kind} text: CKA of base and code is lowest at {site}, {_value(least)}"
        beside = [
            f"{name} there {_value(lines[site])}"
            for name, lines in (("two seeds of base", seeds), ("base and the random model", floor))
            if site in lines
        ]
        said += "".join(f"; {each}" for each in beside) + "."
        if seeds:
            below, above = _apart(pair, seeds)
            said += (
                f" With intervals apart, base and code are less alike than two seeds in {below} of "
                f"{count(len(pair), 'site')} and more alike in {above}."
            )
        sentences.append(said)
    return sentences


def _apart(pair: dict[str, Line], seeds: dict[str, Line]) -> tuple[int, int]:
    """At how many sites the pair's whole interval lies below that of the seeds, and at how many above."""
    known = [
        (line, seeds[site])
        for site, line in pair.items()
        if site in seeds and None not in (line["low"], line["high"], seeds[site]["low"], seeds[site]["high"])
    ]
    below = sum(line["high"] < null["low"] for line, null in known)
    return below, sum(line["low"] > null["high"] for line, null in known)


def _value(line: Line) -> str:
    return f"{number(line['value'], 2)} ({interval(line['low'], line['high'], 2)})"
