"""One tokenizer for all runs, and documents packed into blocks of one context length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from analyses.pretraining.corpora import Document
from analyses.pretraining.design import Kind

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END_OF_TEXT, PAD = "<|endoftext|>", "<|pad|>"
Blocks = npt.NDArray[np.uint16]


def train_tokenizer(
    documents: Sequence[Document], vocabulary: int, bytes_per_kind: int, seed: int
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE with digits split, on equally many bytes of each kind of document."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    def sample() -> Iterable[str]:
        generator = np.random.default_rng(seed)
        for kind in sorted({document.kind for document in documents}):
            texts = [document.text for document in documents if document.kind == kind]
            taken = 0
            for index in generator.permutation(len(texts)):
                if taken >= bytes_per_kind:
                    break
                taken += len(texts[index].encode())
                yield texts[index]

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, pad_token=PAD, padding_side="right"
    )


def pack(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerFast,
    context: int,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[Kind, Blocks]:
    """Tokenise, join the documents of a kind with end-of-text, and cut into shuffled blocks.

    Returns:
        For each kind that fills a block, ``uint16 [blocks, context]``. The order is a function of ``seed`` alone.
    """
    blocks: dict[Kind, Blocks] = {}
    for kind in sorted({document.kind for document in documents}):
        ids: list[int] = []
        ofkind = [document for document in documents if document.kind == kind]
        for done, document in enumerate(ofkind, start=1):
            ids.append(tokenizer.eos_token_id)
            ids.extend(tokenizer(document.text, add_special_tokens=False, verbose=False)["input_ids"])
            progress(done, len(ofkind))
        stream = np.array(ids[: len(ids) // context * context], dtype=np.uint16).reshape(-1, context)
        if len(stream):
            blocks[kind] = stream[np.random.default_rng(seed).permutation(len(stream))]
    return blocks


def mixture(
    blocks: dict[Kind, Blocks], code_share: float, count: int
) -> tuple[list[tuple[Kind, int]], dict[Kind, float]]:
    """The order of blocks of a run: code blocks spread evenly so that their share holds at every point.

    Each kind is read in its own fixed order, so runs of one seed see the same prose first, whatever their share.

    Returns:
        ``(kind, row)`` for each of ``count`` blocks, and how many times over each kind is read.
    """
    order: list[tuple[Kind, int]] = []
    used: dict[Kind, int] = {"prose": 0, "code": 0}
    for index in range(count):
        kind: Kind = "code" if int((index + 1) * code_share) > int(index * code_share) else "prose"
        order.append((kind, used[kind] % len(blocks[kind])))
        used[kind] += 1
    return order, {kind: used[kind] / len(blocks[kind]) for kind in blocks}
