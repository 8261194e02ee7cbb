"""A loaded model as lm-evaluation-harness sees it: the harness' own class for Hugging Face models around ours.

Requests, batches, truncation and log-likelihoods are the harness'. Ours are four things that it would take from elsewhere:
the rule for BOS, the context's length, room for an answer in short contexts, and what is said about the model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from activations.errors import TwinprobeError
from activations.inputs import opening_token
from activations.models import LoadedModel

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedTokenizerBase

Progress = Callable[[int, int], None]
WRITTEN = 256
"""The most tokens of an answer where a task says nothing, as in the harness."""


def harness_model(loaded: LoadedModel, *, bos: bool, batch: int, progress: Progress = lambda done, total: None) -> HFLM:
    """A model for ``lm_eval.simple_evaluate``; the loaded model and its tokenizer stay as they are.

    Args:
        loaded: a decoder.
        bos: whether BOS opens every text, whatever the tokenizer does by itself; once, where a chat template has it already.
        batch: texts of a forward pass.
        progress: called with answers done and answers in all, for each kind of request anew.

    Raises:
        TwinprobeError: the model is no decoder, or its tokenizer has no BOS and no EOS.
    """
    from lm_eval.models.huggingface import HFLM

    loaded.require_decoder()

    class LoadedLM(HFLM):  # type: ignore[misc,unused-ignore]
        @property
        def max_gen_toks(self) -> int:
            return min(WRITTEN, loaded.context // 2)

        def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = True) -> Any:
            return super().loglikelihood(self._counted(requests), disable_tqdm=True)

        def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = True) -> Any:
            return super().loglikelihood_rolling(self._counted(requests), disable_tqdm=True)

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = True) -> Any:
            return super().generate_until(self._counted(requests), disable_tqdm=True)

        def _counted(self, requests: Sequence[Any]) -> Sequence[Any]:
            self.cache_hook = _Counter(len(requests), progress)
            return requests

        def get_model_info(self) -> dict[str, Any]:
            # The harness would ask the hub for the commit of a model that may not be there.
            return {
                "model_num_parameters": loaded.model.num_parameters(),
                "model_dtype": loaded.model.dtype,
                "model_revision": loaded.spec.revision or "main",
                "model_sha": loaded.commit or "",
                "bos": bos,
            }

    opening = opening_token(loaded.tokenizer)
    prefix = loaded.tokenizer.eos_token_id if opening is None else opening
    if prefix is None:
        raise TwinprobeError(f"{loaded.spec.name} has no BOS or EOS token; the harness needs one to put before a text")
    return LoadedLM(
        pretrained=loaded.model,
        tokenizer=_with_bos(loaded.tokenizer, opening if bos else None),
        backend="causal",
        max_length=loaded.context,
        batch_size=batch,
        add_bos_token=bos,
        prefix_token_id=prefix,
    )


class _Counter:
    """Stands where the harness keeps answers in a cache, and counts them."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def add_partial(self, _attribute: str, _request: object, _answer: object) -> None:
        self._done += 1
        self._progress(self._done, self._total)


def _with_bos(tokenizer: PreTrainedTokenizerBase, opening: int | None) -> PreTrainedTokenizerBase:
    """A copy (the harness sets its padding) that adds BOS and nothing else where special tokens are asked for.

    Left to themselves, tokenizers with a BOS may add none (GPT-2's) or an EOS too.
    """
    from tokenizers.processors import TemplateProcessing

    own = copy.deepcopy(tokenizer)
    if opening is None:
        return own
    token = {"id": "opening", "ids": [opening], "tokens": [own.convert_ids_to_tokens(opening)]}
    own.backend_tokenizer.post_processor = TemplateProcessing(
        single=["opening", "$A"], pair=["opening", "$A", "$B"], special_tokens=[token]
    )
    return own
