"""Neutral text: passages that no task uses, captured token by token, to fit maps between two models on.

Two tokenizers may cut a passage differently; tokens are paired where they end at the same character, as there both
models have read the same text. What can not be paired is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from activations.capturing import capture
from activations.errors import TwinprobeError
from activations.models import LoadedModel
from activations.store import ActivationStore
from activations.texts import Text
from analyses.benchmarks.bits_per_byte import passages
from probes.procrustes import Neutral
from probes.tasks.items import Item

CANDIDATES = 20
"""Passages drawn for each one wanted; those of documents that a task uses fall away."""


def neutral_texts(
    items: Iterable[Item], *, count: int, characters: int, seed: int, code: str | None = None, prose: str | None = None
) -> list[Text]:
    """Up to ``count`` passages of code and as many of prose, from documents that none of ``items`` is made of.

    Documents are told apart by name: a passage's group is ``code/NAME`` or ``prose/NAME``, as the groups of items that
    come from the same sources. Passages of one document may overlap, but no two are equal.

    Args:
        items: of every task whose probes will be mapped.
        count: passages of each kind; fewer where the documents do not give more.
        characters: length of a passage.
        seed: seed of the choice.
        code, prose: JSONL files of texts; see :func:`analyses.benchmarks.bits_per_byte.passages`.

    Raises:
        TwinprobeError: the tasks use every document, or none is long enough.
    """
    used = {item.group for item in items}
    found: list[Text] = []
    for kind, path in (("code", code), ("prose", prose)):
        fresh: dict[str, Text] = {}
        for text in passages(kind, path, CANDIDATES * count, characters, seed):
            name = text.group.removeprefix(f"{kind}:")
            if not used & {name, f"{kind}/{name}"}:
                fresh.setdefault(text.text, replace(text, group=f"{kind}/{name}"))
        found += list(fresh.values())[:count]
    if not found:
        raise TwinprobeError(
            f"all documents of {characters} characters are used by the tasks; ask for fewer items, shorter passages, or "
            "give neutral texts of your own"
        )
    return found


def capture_neutral(
    loaded: LoadedModel,
    texts: Sequence[Text],
    out: Path,
    *,
    bos: bool,
    sites: str,
    dtype: str,
    progress: Callable[[int, int], None],
) -> ActivationStore:
    """Capture every token of the neutral texts at ``sites``; of a text longer than the context its beginning."""
    return capture(
        loaded, texts, loaded.sites(sites), out, bos=bos, rows="tokens", dtype=dtype, overlong="truncate",
        progress=progress,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class TokenPairs:
    """Tokens of two models that end at the same character of the same text.

    Attributes:
        source, target: the stores of all tokens.
        source_rows, target_rows: row numbers, one pair per entry, ``[n]``.
        ids: the document of each pair, strings ``[n]``.
        n_unpaired: tokens of either store that are in no pair.
    """

    source: ActivationStore
    target: ActivationStore
    source_rows: npt.NDArray[np.int64]
    target_rows: npt.NDArray[np.int64]
    ids: npt.NDArray[np.str_]
    n_unpaired: int

    def at(self, site: str) -> Neutral:
        """The paired rows at one site of both models."""
        read = (self.source.read(site, self.source_rows), self.target.read(site, self.target_rows))
        return Neutral(*read, self.ids)


def pair_tokens(source: ActivationStore, target: ActivationStore) -> TokenPairs:
    """Pair the tokens of two stores of the same texts; of several that end at one character the last counts.

    Raises:
        TwinprobeError: a text is not the same in both (one may be cut off earlier), or there is nothing to pair.
    """
    texts = {text.id: text.text for text in source.texts}
    for text in target.texts:
        known = texts.get(text.id, "")
        if known[: len(text.text)] != text.text[: len(known)]:
            raise TwinprobeError(f"text {text.id!r} differs between {source.path} and {target.path}; capture it anew")
    ends = [
        store.rows.reset_index(names="row").drop_duplicates(["text", "end"], keep="last")[
            ["text", "end", "group", "row"]
        ]
        for store in (source, target)
    ]
    both = ends[0].merge(ends[1], on=["text", "end"], suffixes=("_source", "_target"))
    if both.empty:
        raise TwinprobeError(f"{source.path} and {target.path} have no token in common; capture the same texts in both")
    return TokenPairs(
        source, target, both.row_source.to_numpy(), both.row_target.to_numpy(), both.group_source.to_numpy(dtype=str),
        source.n_rows + target.n_rows - 2 * len(both),
    )  # fmt: skip
