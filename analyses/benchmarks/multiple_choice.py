"""Multiple choice: the log-likelihood of every choice after its context, and which choice has the highest.

Tokenised and scored as EleutherAI's lm-evaluation-harness does it (Gao et al., github.com/EleutherAI/lm-evaluation-harness):
context and choice are encoded as one text and cut where the context alone would end, white space at the end of the context
counts to the choice, and what is too long loses tokens from the left. Unlike there, BOS stays in front when that happens,
and normalisation is by bytes of UTF-8 (the harness' ``acc_norm`` divides by characters, its ``acc_bytes`` by bytes).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from activations.errors import TwinprobeError
from activations.inputs import batches, encode, opening_token, pad, pad_id
from activations.models import LoadedModel
from activations.texts import Text

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Item:
    """A question: ``context`` with one of ``choices`` put right after it, of which those numbered ``gold`` are right.

    ``id`` is unique within its ``subject``, the task or part of a task that it belongs to. ``leads``, one per choice where
    there are any, stand between context and choice and are not scored: the same words after several beginnings.
    """

    id: str
    subject: str
    context: str
    choices: tuple[str, ...]
    gold: tuple[int, ...]
    leads: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problem = ""
        if len(self.choices) < 2 or not all(self.choices):
            problem = f"choices {self.choices!r}; expected 2 or more, none of them empty"
        elif not self.gold or not set(self.gold) <= set(range(len(self.choices))):
            problem = f"right choices {self.gold!r}; expected 1 or more numbers from 0 to {len(self.choices) - 1}"
        elif self.leads and len(self.leads) != len(self.choices):
            problem = f"{len(self.leads)} leads for {len(self.choices)} choices; expected as many, or none"
        if problem:
            raise TwinprobeError(f"item {self.id!r} of {self.subject}: {problem}")

    def before(self, choice: int) -> str:
        """All that stands before a choice."""
        return self.context + (self.leads[choice] if self.leads else "")


def score_choices(
    loaded: LoadedModel,
    items: Sequence[Item],
    *,
    bos: bool,
    batch_tokens: int = 4096,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """The log-likelihood of every choice of every item, one line per choice.

    Args:
        loaded: a decoder.
        items: what to ask.
        bos: whether BOS opens every text. Without it, an empty context is a BOS (or EOS) all the same.
        batch_tokens: padded tokens of a forward pass.
        progress: called with choices done and choices in all.

    Returns:
        Columns subject, item, choice (its number), gold, log_likelihood (nats, summed over its tokens), tokens (scored),
        bytes (of the choice, without white space taken over from the context), cut (tokens of the context left out).

    Raises:
        TwinprobeError: the model is no decoder, a choice is longer than its context, two items share subject and id, or
            there is nothing to predict from.
    """
    loaded.require_decoder()
    _check_unique(items)
    asked = [(item, choice) for item in items for choice in range(len(item.choices))]
    requests = _requests(loaded, asked, bos)
    # Choices of one token differ in what is read off, not in what is run.
    rows: dict[Tokens, list[int]] = {}
    for number, request in enumerate(requests):
        rows.setdefault(request.inputs, []).append(number)
    inputs, found, done = list(rows), [0.0] * len(requests), 0
    for batch in batches([len(ids) for ids in inputs], batch_tokens):
        together = [inputs[row] for row in batch]
        targets = [[requests[number].targets for number in rows[ids]] for ids in together]
        for ids, likelihoods in zip(together, _log_likelihoods(loaded, together, targets), strict=True):
            for number, likelihood in zip(rows[ids], likelihoods, strict=True):
                found[number] = likelihood
            done += len(likelihoods)
        progress(done, len(requests))
    return pd.DataFrame(
        [
            {
                "subject": item.subject, "item": item.id, "choice": choice, "gold": choice in item.gold,
                "log_likelihood": likelihood, "tokens": len(request.targets),
                "bytes": len(item.choices[choice].encode()), "cut": request.cut,
            }
            for (item, choice), request, likelihood in zip(asked, requests, found, strict=True)
        ]
    )  # fmt: skip


def grade(choices: pd.DataFrame) -> pd.DataFrame:
    """Which choice of each item has the highest log-likelihood, as it is and per byte; of equal ones the first.

    Args:
        choices: as :func:`score_choices` gives it; any log-likelihoods will do.

    Returns:
        One line per item: subject, item, choices (how many), chance (of a blind guess to be right), picked and picked_norm
        (numbers of choices), acc and acc_norm (1.0 where the picked one is right), cut (tokens left out of the longest text).
        The mean of acc over 0/1 items is BIG-bench's ``multiple_choice_grade``.
    """
    keys = ["subject", "item"]
    by_item = choices.assign(norm=choices.log_likelihood / choices.bytes).groupby(keys, sort=False)
    about = by_item.agg(choices=("choice", "size"), chance=("gold", "mean"), cut=("cut", "max"))
    for column, end in (("log_likelihood", ""), ("norm", "_norm")):
        best = choices.loc[by_item[column].idxmax()]
        about = about.assign(**{f"picked{end}": best.choice.to_numpy(), f"acc{end}": best.gold.to_numpy(dtype=float)})
    return about.reset_index()[[*keys, "choices", "chance", "picked", "acc", "picked_norm", "acc_norm", "cut"]]


@dataclass(frozen=True)
class _Request:
    """Tokens to run, and those to read off at the last positions, the last target after the last input."""

    inputs: Tokens
    targets: Tokens
    cut: int


def _check_unique(items: Iterable[Item]) -> None:
    seen: set[tuple[str, str]] = set()
    for item in items:
        if (item.subject, item.id) in seen:
            raise TwinprobeError(f"two items of {item.subject} have the id {item.id!r}; ids must be unique")
        seen.add((item.subject, item.id))


def _requests(loaded: LoadedModel, asked: Sequence[tuple[Item, int]], bos: bool) -> list[_Request]:
    before = [item.before(choice) for item, choice in asked]
    parts = [(text.rstrip(), text + item.choices[choice]) for text, (item, choice) in zip(before, asked, strict=True)]
    texts = list(dict.fromkeys(text for pair in parts for text in pair if text))
    encoded = encode(loaded.tokenizer, [Text("", text) for text in texts], False, sys.maxsize)
    tokens = {"": (), **{text: one.ids for text, one in zip(texts, encoded, strict=True)}}
    requests = []
    for (item, choice), (context, whole) in zip(asked, parts, strict=True):
        ids = tokens[whole]
        # Where the tokenizer melts the choice into the context's last token, that token is what there is to score.
        start = min(len(tokens[context]), len(ids) - 1)
        opening = _opening(loaded) if bos or not start else ()
        cut = max(0, len(opening) + len(ids) - 1 - loaded.context)
        if cut > start - (not opening):
            raise TwinprobeError(
                f"item {item.id!r} of {item.subject}: choice {choice} has {len(ids) - start} tokens, which do not fit the "
                f"model's context of {loaded.context}; leave such items out"
            )
        requests.append(_Request((*opening, *ids[cut:-1]), ids[start:], cut))
    return requests


def _opening(loaded: LoadedModel) -> Tokens:
    found = (opening_token(loaded.tokenizer), loaded.tokenizer.eos_token_id)
    token = next((token for token in found if token is not None), None)
    if token is None:
        raise TwinprobeError(
            f"{loaded.spec.name} has no BOS or EOS token to put before a text, and a choice without a context needs one"
        )
    return (int(token),)


def _log_likelihoods(
    loaded: LoadedModel, rows: Sequence[Tokens], targets: Sequence[Sequence[Tokens]]
) -> list[list[float]]:
    """Per row the summed log-likelihood of each of its targets, all of which end after the row's last token."""
    import torch

    tokens, mask = pad(rows, pad_id(loaded.tokenizer), loaded.device)
    widths = [max(map(len, of_row)) for of_row in targets]
    kept = torch.zeros_like(mask, dtype=torch.bool)
    for line, (ids, width) in enumerate(zip(rows, widths, strict=True)):
        kept[line, len(ids) - width : len(ids)] = True

    def keep(_module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (args[0][kept.to(args[0].device)][None], *args[1:])

    # The model's own way to the logits (scaling, soft caps), over the positions that are read alone.
    handle = loaded.module("unembed").register_forward_pre_hook(keep)
    try:
        with torch.inference_mode():
            logits = loaded.model(input_ids=tokens, attention_mask=mask, use_cache=False).logits[0]
    finally:
        handle.remove()
    logs = logits.float().log_softmax(-1).split(widths)
    return [[_summed(own, target) for target in of_row] for own, of_row in zip(logs, targets, strict=True)]


def _summed(logs: Float[torch.Tensor, "pos vocab"], target: Tokens) -> float:
    positions = range(len(logs) - len(target), len(logs))
    return float(logs[list(positions), list(target)].double().sum())
