"""Let a model explain snippets of code: greedy continuations of a fixed prompt."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from activations.errors import TwinprobeError
from activations.inputs import batches, encode, pad_id
from activations.models import LoadedModel
from activations.texts import Text

TEMPLATE = "# Python code:\n{source}\n\n# In one sentence, the code above does the following:\n#"
"""The prompt; the model's first line that says something is its explanation."""


def explain(
    loaded: LoadedModel,
    sources: Sequence[str],
    *,
    bos: bool,
    new_tokens: int = 64,
    batch_tokens: int = 8192,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """The explanation of every snippet, up to the end of its line; it may be empty.

    Args:
        loaded: a decoder.
        sources: the snippets.
        bos: whether BOS opens every prompt.
        new_tokens: most tokens of an explanation.
        batch_tokens: padded tokens of a batch, with those to come.
        progress: called with snippets done and snippets in all.

    Raises:
        TwinprobeError: the model is no decoder, or a prompt with the tokens to come does not fit its context.
    """
    loaded.require_decoder()
    prompts = [Text(str(number), TEMPLATE.format(source=source)) for number, source in enumerate(sources)]
    ids = [one.ids for one in encode(loaded.tokenizer, prompts, bos, sys.maxsize)]
    longest = max(map(len, ids), default=0)
    if longest + new_tokens > loaded.context:
        raise TwinprobeError(
            f"a prompt of {longest} tokens and {new_tokens} to come do not fit the context of {loaded.spec.name}, "
            f"{loaded.context}; ask for fewer new tokens, or leave long snippets out"
        )
    found = [""] * len(ids)
    done = 0
    for batch in batches([len(row) + new_tokens for row in ids], batch_tokens):
        for index, text in zip(batch, _continued(loaded, [ids[i] for i in batch], new_tokens), strict=True):
            found[index] = text.lstrip("# \n").split("\n", 1)[0].strip()
        done += len(batch)
        progress(done, len(ids))
    return found


def _continued(loaded: LoadedModel, rows: Sequence[tuple[int, ...]], new_tokens: int) -> list[str]:
    import torch
    from transformers import GenerationConfig

    filler = pad_id(loaded.tokenizer)
    width = max(map(len, rows))
    tokens = torch.tensor([[filler] * (width - len(row)) + list(row) for row in rows], device=loaded.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=loaded.device)
    # Greedy whatever a checkpoint's own generation settings say.
    greedy = GenerationConfig(
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        max_new_tokens=new_tokens,
        pad_token_id=filler,
        eos_token_id=loaded.tokenizer.eos_token_id,
    )
    with torch.inference_mode():
        given = loaded.model.generate(input_ids=tokens, attention_mask=mask, generation_config=greedy)
    texts: list[str] = loaded.tokenizer.batch_decode(given[:, width:], skip_special_tokens=True)
    return texts
