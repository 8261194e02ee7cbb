"""Similarity of texts by the vectors that a model gives their tokens: BERTScore, with CodeBERTScore's F3.

Zhang et al. 2020, "BERTScore: Evaluating Text Generation with BERT": every token of one text is matched with the most similar
token of the other by cosine; precision is the mean over the hypothesis, recall over the reference. Zhou et al. 2023,
"CodeBERTScore" (arXiv 2302.05527), adds F3, in which recall weighs nine times as much. Neither's rescaling by a baseline, nor
CodeBERTScore's context before the texts and its leaving out of punctuation, is done here. BOS, EOS and other added tokens are
read by the model and not matched.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from activations.engines import make_engine
from activations.errors import TwinprobeError
from activations.inputs import Encoded, batches, encode, pad, pad_id
from activations.models import LoadedModel
from activations.sites import Site
from activations.texts import Text

Floats = NDArray[np.float64]
DEPTH = 0.75
"""Where in the stack the vectors are taken by default; the layers that Zhang et al. 2020 chose lie around there."""
COLUMNS = ("precision", "recall", "f1", "f3")


def similarity_site(loaded: LoadedModel, layer: int | None = None) -> Site:
    """``resid_post`` of a layer, counted from 0; of the encoder where a model has two stacks.

    Raises:
        TwinprobeError: the model has no such layer.
    """
    stack = next(iter(loaded.shapes))
    if layer is None:
        layer = max(0, round(DEPTH * loaded.shapes[stack].layers) - 1)
    return loaded.sites(".".join(part for part in (stack, "resid_post", str(layer)) if part))[0]


def similarity_scores(
    loaded: LoadedModel,
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    bos: bool,
    layer: int | None = None,
    idf: bool = False,
    batch_tokens: int = 8192,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """BERTScore of every hypothesis against its references, of which the one with the highest F1 counts.

    Args:
        loaded: any encoder or decoder, or an encoder-decoder, of which the encoder is read.
        hypotheses: texts to be scored, ``n`` of them; an empty one scores 0.
        references: one or more texts for each.
        bos: whether BOS opens every text.
        layer: whose ``resid_post`` is compared, from 0; by default the one at three quarters of the depth.
        idf: weigh tokens by their inverse document frequency over the different references, ``log((N + 1) / (df + 1))``.
        batch_tokens: padded tokens of a forward pass.
        progress: called with texts read and texts in all.

    Returns:
        Columns precision, recall, f1, f3, one line per hypothesis.

    Raises:
        TwinprobeError: no such layer, a text is longer than the model's context, or a reference is empty.
    """
    texts = [*hypotheses, *(text for own in references for text in own)]
    encoded = _encoded(loaded, texts, bos)
    empty = sum(text not in encoded for own in references for text in own)
    if empty:
        raise TwinprobeError(f"{empty} references give no tokens; every reference needs a text")
    vectors = token_vectors(loaded, encoded, similarity_site(loaded, layer), batch_tokens, progress)
    tokens = {text: list(one.ids[one.own.start : one.own.stop]) for text, one in encoded.items()}
    different = dict.fromkeys(text for own in references for text in own)
    rarity = inverse_frequencies([tokens[text] for text in different]) if idf else None

    def weights(text: str) -> Floats:
        return np.array([1.0 if rarity is None else rarity(token) for token in tokens[text]])

    lines = []
    for text, own in zip(hypotheses, references, strict=True):
        if text not in vectors:
            lines.append((0.0, 0.0, 0.0, 0.0))
            continue
        scores = [match(vectors[text], vectors[other], weights(text), weights(other)) for other in own]
        lines.append(max(scores, key=lambda score: score[2]))
    return pd.DataFrame(lines, columns=list(COLUMNS))


def match(
    hypothesis: Floats, reference: Floats, hypothesis_weights: Floats, reference_weights: Floats
) -> tuple[float, float, float, float]:
    """Precision, recall, F1 and F3 of unit vectors ``[h, d]`` against ``[r, d]``, with a weight for each of them.

    Where all weights of a text are 0, they count as equal.
    """
    cosines = hypothesis @ reference.T
    precision = _weighted(cosines.max(1), hypothesis_weights)
    recall = _weighted(cosines.max(0), reference_weights)
    return precision, recall, f_score(precision, recall, 1), f_score(precision, recall, 3)


def f_score(precision: float, recall: float, beta: float) -> float:
    """F-beta, in which recall weighs ``beta ** 2`` times as much as precision; 0 where both are 0 or cancel out."""
    below = beta**2 * precision + recall
    return (1 + beta**2) * precision * recall / below if below > 0 else 0.0


def inverse_frequencies(documents: Sequence[Sequence[int]]) -> Callable[[int], float]:
    """The weight of a token over documents of token ids, ``log((N + 1) / (df + 1))`` (Zhang et al. 2020, plus one)."""
    counts: Mapping[int, int] = Counter(token for document in documents for token in set(document))
    return lambda token: math.log((len(documents) + 1) / (counts.get(token, 0) + 1))


def token_vectors(
    loaded: LoadedModel,
    encoded: Mapping[str, Encoded],
    site: Site,
    batch_tokens: int = 8192,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Floats]:
    """Unit vectors ``[tokens, d]`` of the texts' own tokens at a site."""
    names = list(encoded)
    engine = make_engine(loaded, [site], longest=max((len(one) for one in encoded.values()), default=1))
    found: dict[str, Floats] = {}
    for batch in batches([len(encoded[name]) for name in names], batch_tokens):
        ids, mask = pad([encoded[names[index]].tokens for index in batch], pad_id(loaded.tokenizer), loaded.device)
        rows = engine.forward(ids, mask, [site])[site].double().cpu().numpy()
        rows /= np.linalg.norm(rows, axis=-1, keepdims=True).clip(1e-12)
        for line, index in enumerate(batch):
            own = encoded[names[index]].own
            found[names[index]] = rows[line, own.start : own.stop].copy()
        progress(len(found), len(names))
    return found


def _encoded(loaded: LoadedModel, texts: Sequence[str], bos: bool) -> dict[str, Encoded]:
    """Each different text once; those without a token are left out."""
    different = [text for text in dict.fromkeys(texts) if text.strip()]
    given = [Text(f"{text[:40]}", text) for text in different]
    return dict(zip(different, encode(loaded.tokenizer, given, bos, loaded.context, loaded.closing), strict=True))


def _weighted(values: Floats, weights: Floats) -> float:
    return float(np.average(values, weights=weights if weights.sum() > 0 else None))
