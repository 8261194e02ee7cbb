"""Merge stores: of one model over different texts, or over the same texts at different sites."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from activations.errors import TwinprobeError
from activations.packing import require_sound
from activations.records import first_difference
from activations.sites import parse_site
from activations.store import ActivationStore
from activations.tables import Columns, columns
from activations.texts import Text, text_set_hash
from activations.writer import Shard, StoreWriter

_OF_THE_SITES = ("engine", "attention_kernel")
"""What stores of different sites may differ in; a merge lists them all."""
_OF_THE_FILES = ("schema", "shards", "shard_bytes", "shard_tokens", "merged")
"""Keys of a provenance that say how a store is cut, or where it comes from, and nothing about its rows."""


@dataclass(frozen=True)
class _Piece:
    """A shard to be: the same rows and tokens of one or several stores, the first of its texts counting as ``text``."""

    stores: Sequence[ActivationStore]
    rows: tuple[int, int]
    tokens: tuple[int, int]
    text: int = 0

    def columns(self, store: ActivationStore, kind: str) -> Columns:
        found = columns(store.layout, kind, *(self.rows if kind == "rows" else self.tokens))
        return {**found, "text": found["text"] + self.text}

    def read(self) -> Shard:
        values = {
            parse_site(site): store.raw(site, np.arange(*self.rows)) for store in self.stores for site in store.sites
        }
        return Shard(self.columns(self.stores[0], "rows"), values, self.columns(self.stores[0], "inputs"))


def merge(
    stores: Sequence[ActivationStore | str | Path],
    out: str | Path,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
    notice: Callable[[str], None] = lambda sentence: None,
) -> ActivationStore:
    """Write one store folder ``out`` with the rows of several stores, what is finished of it being kept.

    Stores of the same model, row rule, types and sites over different texts become one over all texts, in the order
    given; stores over the same texts, with the same rows, become one with all their sites. The rows are those a single
    capture would have written, only the cut into shards may differ; the parents are noted in the provenance. About as
    much memory is used as capturing takes.

    Args:
        stores: two or more, folders or packed files; each is verified first.
        out: the folder of the new store.
        progress: called with what is being done, steps done and steps in all.
        notice: called with a sentence for each shard of an earlier run that is damaged and written again.

    Raises:
        TwinprobeError: the stores do not go together (the first difference is shown), one is not sound, or ``out`` holds
            something else.
    """
    parents = [store if isinstance(store, ActivationStore) else ActivationStore(store) for store in stores]
    if len(parents) < 2:
        raise TwinprobeError(f"{len(parents)} store was given; merging takes two or more")
    same_texts = len({store.provenance["texts"] for store in parents}) == 1
    provenance, texts, pieces = (_over_sites if same_texts else _over_texts)(parents)
    for store in parents:
        require_sound(store, partial(progress, f"verifying {store.path}"))
    if same_texts:
        _check_equal_rows(pieces)
    with StoreWriter(out, provenance, texts, len(pieces)) as writer:
        missing = writer.missing(notice)
        progress("shards", len(pieces) - len(missing), len(pieces))
        for done, number in enumerate(missing, start=len(pieces) - len(missing) + 1):
            writer.write(number, pieces[number].read())
            progress("shards", done, len(pieces))
        return writer.finish(changed=bool(missing))


Plan = tuple[dict[str, Any], list[Text], list[_Piece]]


def _over_texts(parents: Sequence[ActivationStore]) -> Plan:
    """Different texts, everything else alike."""
    _refuse_differences(parents, "texts", "overlong")
    for site in parents[0].sites:
        for store in parents[1:]:
            if (one := parents[0].width(site)) != (other := store.width(site)):
                raise _apart(parents[0], store, f"rows of {site} have {other} numbers there and {one} here")
    for first, second in combinations(parents, 2):
        if shared := {text.id for text in first.texts} & {text.id for text in second.texts}:
            raise _apart(first, second, f"both hold text {min(shared)!r}")
    overlong = [store.provenance["overlong"] for store in parents]
    for store, rule in zip(parents, overlong, strict=True):
        if rule["rule"] != overlong[0]["rule"]:
            raise _apart(parents[0], store, f"its overlong rule is {rule['rule']}, here it is {overlong[0]['rule']}")
    texts = [text for store in parents for text in store.texts]
    counts = {key: sum(item[key] for item in overlong) for key in ("texts", "lost_spans")}
    pieces = []
    before = 0
    for store in parents:
        rows, tokens = pairwise(store.layout.rows.tolist()), pairwise(store.layout.tokens.tolist())
        pieces += [_Piece([store], *bounds, before) for bounds in zip(rows, tokens, strict=True)]
        before += len(store.texts)
    changed = {"texts": text_set_hash(texts), "overlong": {**overlong[0], **counts}}
    return _provenance(parents, changed), texts, pieces


def _over_sites(parents: Sequence[ActivationStore]) -> Plan:
    """The same texts and rows, different sites."""
    _refuse_differences(parents, "sites", *_OF_THE_SITES)
    for first, second in combinations(parents, 2):
        if shared := [site for site in first.sites if site in second.sites]:
            raise _apart(first, second, f"both hold {shared[0]} of the same texts")
        if (one := first.n_rows) != (other := second.n_rows):
            raise _apart(first, second, f"it has {other} rows, here are {one}")
    # Shards end wherever those of any parent do, so that none is larger than theirs together.
    cuts = [zip(store.layout.rows.tolist(), store.layout.tokens.tolist(), strict=True) for store in parents]
    ends = sorted(set(chain.from_iterable(cuts)))
    pieces = [_Piece(parents, (a, b), (c, d)) for (a, c), (b, d) in pairwise(ends)]
    joined = {
        key: ", ".join(dict.fromkeys(name for store in parents for name in store.provenance[key].split(", ")))
        for key in _OF_THE_SITES
    }
    sites = [site for store in parents for site in store.sites]
    return _provenance(parents, {"sites": sites, **joined}), parents[0].texts, pieces


def _check_equal_rows(pieces: Sequence[_Piece]) -> None:
    for piece in pieces:
        first, *others = piece.stores
        for kind in ("rows", "inputs"):
            held = piece.columns(first, kind)
            for store in others:
                for name, column in piece.columns(store, kind).items():
                    if not np.array_equal(column, held[name]):
                        start, stop = piece.rows
                        raise _apart(first, store, f"its {kind}/{name} are others in rows {start} to {stop - 1}")


def _refuse_differences(parents: Sequence[ActivationStore], *free: str) -> None:
    for store in parents[1:]:
        found = first_difference(store.provenance, parents[0].provenance, (*_OF_THE_FILES, *free))
        if found is not None:
            key, there, here = found
            raise _apart(parents[0], store, f"its {key} is {there}, here it is {here}")


def _apart(here: ActivationStore, there: ActivationStore, difference: str) -> TwinprobeError:
    return TwinprobeError(
        f"{there.path} can not be merged with {here.path}: {difference}; expected stores that differ in their texts only "
        "or in their sites only"
    )


def _provenance(parents: Sequence[ActivationStore], changed: dict[str, Any]) -> dict[str, Any]:
    """That of the first parent, with what the whole has otherwise and a note of each parent."""
    kept = {key: value for key, value in parents[0].provenance.items() if key not in _OF_THE_FILES}
    noted = ("texts", "overlong", "sites", *_OF_THE_SITES, "merged")
    merged = [
        {"name": store.path.resolve().name, "rows": store.n_rows}
        | {key: store.provenance[key] for key in noted if key in store.provenance}
        for store in parents
    ]
    return {**kept, **changed, "merged": merged}
