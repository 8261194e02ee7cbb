"""Labels for the rows of a store, from the store's own spans or from a JSONL file.

One JSON object per line of the file::

    {"text": "a1", "position": 3, "label": "noun", "split": "train", "group": "doc7", "control": "dog"}

``text`` and ``label`` are required. ``position`` (a token's position, BOS counted) or ``span`` (a span's name) says which
row of the text is meant; without either it is the text's only row. ``split`` is ``train``, ``dev`` or ``test``, on every
line or on none; ``group`` defaults to the text's; ``control`` (the Hewitt & Liang key) to the span's, or else to the
token's characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from activations.errors import TwinprobeError, did_you_mean
from activations.store import ActivationStore
from activations.texts import numbered_lines, parse_object
from probes.rows import SPLITS, RowLabels
from probes.splits import split_groups

KEYS = ("text", "label", "position", "span", "split", "group", "control")


@dataclass(frozen=True, eq=False)
class Labelled:
    """Which rows of a store are probed (``rows``, numbers) and what is known about them."""

    rows: npt.NDArray[np.int64]
    about: RowLabels


def labelled_spans(store: ActivationStore) -> list[str]:
    """The names of the spans that carry labels.

    Raises:
        TwinprobeError: no span has a label.
    """
    names = sorted(set(store.rows.span[store.rows.label.notna()]))
    if not names:
        raise TwinprobeError(
            f"{store.path} has no labelled spans; give labels with --labels FILE, or capture texts whose spans have labels "
            "with --rows spans"
        )
    return names


def labels_from_spans(store: ActivationStore, span: str, seed: int) -> Labelled:
    """Use the labels that the store's spans of that name carry.

    Raises:
        TwinprobeError: no span has a label, or none of that name.
    """
    rows, names = store.rows, labelled_spans(store)
    if span not in names:
        raise TwinprobeError(
            f"no labelled span is called {span!r}{did_you_mean(span, names)}; there are {', '.join(names)}"
        )
    chosen = rows[rows.label.notna() & (rows.span == span)]
    return _labelled(store, chosen.assign(split=None), seed)


def labels_from_file(store: ActivationStore, path: str | Path, seed: int) -> Labelled:
    """Read a labels file and find each line's row in the store.

    Raises:
        TwinprobeError: a bad line, named by number; a line that matches no row or several; a row labelled twice.
    """
    rows = store.rows
    by_text = {name: part for name, part in rows.groupby("text", sort=False)}
    found: dict[int, tuple[int, dict[str, Any]]] = {}
    for number, line in numbered_lines(Path(path)):
        where = f"{path}:{number}"
        entry = _entry(line, where)
        row = _find(by_text, entry, where)
        if row in found:
            raise TwinprobeError(f"{where}: this row already has a label, from line {found[row][0]}")
        found[row] = (number, entry)
    if not found:
        raise TwinprobeError(f"{path}: no labels found; expected one JSON object per line with 'text' and 'label'")
    with_split = [number for number, entry in found.values() if entry.get("split")]
    if with_split and len(with_split) < len(found):
        without = next(number for number, entry in found.values() if not entry.get("split"))
        raise TwinprobeError(
            f"{path}:{without}: no 'split', but line {with_split[0]} has one; give it on every line or none"
        )
    chosen = rows.loc[list(found)].copy()
    entries = [entry for _, entry in found.values()]
    chosen["label"] = [entry["label"] for entry in entries]
    chosen["split"] = [entry.get("split") for entry in entries]
    chosen["group"] = [entry.get("group", group) for entry, group in zip(entries, chosen.group, strict=True)]
    # A span keeps its own key; a token's is its characters.
    keys = [key or word for key, word in zip(chosen.control, _words(store, chosen), strict=True)]
    chosen["control"] = [entry.get("control", key) for entry, key in zip(entries, keys, strict=True)]
    return _labelled(store, chosen, seed)


def _entry(line: str, where: str) -> dict[str, Any]:
    entry = {key: value for key, value in parse_object(line, where, KEYS).items() if value is not None}
    for key in ("text", "label"):
        if not isinstance(entry.get(key), str | int | bool) or entry[key] == "":
            raise TwinprobeError(f"{where}: {key!r} is required, a string or a whole number; got {entry.get(key)!r}")
    for key in ("span", "group", "control"):
        if not isinstance(entry.get(key, ""), str | int | float):
            raise TwinprobeError(f"{where}: {key!r} must be a string or a number, got {entry[key]!r}")
    if type(entry.get("position", 0)) is not int:
        raise TwinprobeError(f"{where}: 'position' must be a whole number, got {entry['position']!r}")
    if "position" in entry and "span" in entry:
        raise TwinprobeError(f"{where}: both 'position' and 'span'; give one of them")
    if entry.get("split", SPLITS[0]) not in SPLITS:
        raise TwinprobeError(f"{where}: split {entry['split']!r} is not one of {', '.join(SPLITS)}")
    return {key: str(value) if key != "position" else value for key, value in entry.items()}


def _find(by_text: dict[Any, pd.DataFrame], entry: dict[str, Any], where: str) -> int:
    rows = by_text.get(entry["text"])
    if rows is None:
        raise TwinprobeError(f"{where}: the store has no text {entry['text']!r}{did_you_mean(entry['text'], by_text)}")
    for key in ("position", "span"):
        if key in entry:
            rows = rows[rows[key] == entry[key]]
    if len(rows) != 1:
        meant = f"{len(rows)} rows" if len(rows) else "no row"
        raise TwinprobeError(f"{where}: {meant} of text {entry['text']!r} match; name one with 'position' or 'span'")
    return int(rows.index[0])


def _words(store: ActivationStore, rows: pd.DataFrame) -> list[str]:
    """The characters of each row's tokens."""
    texts = {text.id: text.text for text in store.texts}
    ranges = zip(rows.text, rows.start, rows.end, strict=True)
    return [texts[name][start:end] for name, start, end in ranges]


def _labelled(store: ActivationStore, rows: pd.DataFrame, seed: int) -> Labelled:
    splits = rows.split.tolist() if rows.split.notna().all() else split_groups(rows.group.tolist(), seed)
    return Labelled(rows.index.to_numpy(), about_rows(store, rows, items=rows.group.tolist(), splits=splits))


def about_rows(
    store: ActivationStore,
    rows: pd.DataFrame,
    *,
    items: Sequence[str],
    splits: Sequence[str],
    difficulties: Sequence[int] = (),
) -> RowLabels:
    """What a store knows of some of its rows, lines of ``store.rows``, with cluster, split and difficulty of each."""
    read = {text: ids.to_numpy() for text, ids in store.inputs.groupby("text", sort=False).token}
    return RowLabels(
        labels=rows.label.to_numpy(dtype=str),
        controls=rows.control.to_numpy(dtype=str),
        items=np.array(items),
        groups=rows.group.to_numpy(dtype=str),
        splits=np.array(splits),
        texts=[read[name][: position + 1].tolist() for name, position in zip(rows.text, rows.position, strict=True)],
        tokens=[[token] for token in rows.token],
        positions=rows.position.to_numpy(),
        difficulties=np.array(difficulties, dtype=np.int64),
    )
