"""Sentences with their trees, as files of dependencies and of constituents hold them.

For the structural probes a sentence gives the spans to capture and the gold values to fit: with the rows of
``sentence.spans`` in order, ``DistanceProbe().fit(rows, [s.distances() for s in sentences])``, and the same with
:meth:`Sentence.depths` for the depth probe. The words are the leaves of a constituency tree, so its distances run over
the phrases between them. The readers are :mod:`probes.conllu` and :mod:`probes.brackets`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probes.trees import tree_depths, tree_distances


@dataclass(frozen=True, eq=False)
class Sentence:
    """A sentence of ``w`` words in a tree of ``n`` nodes.

    Attributes:
        text: the sentence, spaced as in running text.
        group: the document, or the sentence's own line where the file marks no documents.
        spans: character offsets (start, end) of every word, in order, ``w`` of them.
        tags: their parts of speech.
        words: ``[w]``, the node of every word.
        labels: of every node its relation to its parent, or its phrase label (a word's part of speech).
        parents: ``[n]``, the parent of every node, -1 for the root.
    """

    text: str
    group: str
    spans: tuple[tuple[int, int], ...]
    tags: tuple[str, ...]
    words: NDArray[np.int64]
    labels: tuple[str, ...]
    parents: NDArray[np.int64]

    def distances(self) -> NDArray[np.float64]:
        """Edges between every two words, ``[w, w]``."""
        return tree_distances(self.parents)[np.ix_(self.words, self.words)]

    def depths(self) -> NDArray[np.float64]:
        """Edges from the root to every word, ``[w]``."""
        return tree_depths(self.parents)[self.words]
