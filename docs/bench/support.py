"""Which engine serves which site of which architecture, measured on tiny random models, as the page docs/SUPPORT.md.

    python docs/bench/support.py > docs/SUPPORT.md

A test (tests/activations/engines/test_parity.py) makes the same measurement and fails when the page differs.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
MEASURED = "Measured with "
"""The line that may differ from one machine to the next begins like this."""

Marks = dict[tuple[str | None, str], str]

PAGE = """\
# What is supported

Three engines run a model and hand out its activations; `--engine` chooses one, and `auto` (the default) takes `hooks`
where it serves every site asked for and `transformer_lens` otherwise. This page is written by `docs/bench/support.py`
from the measurement that is also an ordinary test, `tests/activations/engines/test_parity.py`.

{measured}

## The matrix

**h** `hooks`, **t** `transformer_lens`, **n** `nnsight`; · means that the architecture has no such site. Wherever an
engine is named it gave the same rows as the others, and as the model's own arithmetic, on a batch of texts of different
lengths: in float32 within 1e-5 of the largest value at the site, and in bfloat16 (residual stream and final norm)
equal to the last bit to what Hugging Face gives under the same attention kernel. Where an engine is not named it
refuses the site with a message that says why; nothing is skipped silently.

{table}

Checked on models of these classes with random weights, in all their layers. On {others} the engines were compared
with one another wherever several serve a site, and agreed. Other decoders in TransformerLens' table of architectures
load as well; on load every model gets a self-check of where its sites are.

## The engines

| | `hooks` | `transformer_lens` | `nnsight` |
|---|---|---|---|
| serves | what goes into or comes out of a module | these, and `pattern`, `rot_q`, `rot_k`, `q` `k` `v` of fused projections, any bridge hook | the same as `hooks` |
| for | everything it serves: it is the default | what no module shows | models that run elsewhere: several GPUs, NDIF |
| works on | the model itself, untouched | a shell: modules of its own around the model's weights | a shell; on NDIF the model's name |
| attention kernel | the model's (SDPA, Flash, ...) | eager | the model's |
| memory beyond the model's | none | attention patterns, (heads × tokens²) per text and layer; copies of the fused query, key and value matrices of GPT-NeoX and CodeGen | none |

All three run the body without the unembedding, stop at the last site asked for, and apply the choice of rows on the
model's own device, so that only wanted rows leave it. None of them alters the model or its tokenizer. A shell shares the
model's parameters, so there is no second set of weights; TransformerLens would otherwise replace the model's modules,
switch it to eager attention and edit its tokenizer, and nnsight leave a wrapper on each module. Importing nnsight adds a
`save` method to every Python object of the process; it is imported only when its engine is used.

Eager attention and SDPA round differently. In float32 the difference is within the bound above; in bfloat16 it is some
units of the last of 8 bits, so a store should not mix rows of two engines. A store records its engine.

## The sites

{sites}

- **Per head**: `z`, `q`, `k`, `v`, `rot_q`, `rot_k` and `pattern` hold all heads side by side; `z.3.5` is head 5 of
  layer 3. With grouped queries `k`, `v` and `rot_k` have one head per key, fewer than `q`.
- **`q`, `k`** are what the projections give: in Qwen3 before the norm of queries and keys, in all models before the
  rotary embedding. `rot_q`, `rot_k` are what enters the dot product.
- **`pattern`** rows are as wide as the longest input (times the heads): one probability per key, 0 for keys beyond a
  text's own. Rows of different stores have different widths.
- **Granite** multiplies the embedding and what each block adds; `embed`, `attn_out` and `mlp_out` are after that.
- **Gemma 2** normalises what attention and MLP add; `attn_out` and `mlp_out` are after that norm.
- **Encoders** (RoBERTa, CodeBERT, BERT) normalise *after* each addition. `attn_out` and `mlp_out` are what is added,
  before the norm; `resid_mid` is the stream between the two, after the first norm; `resid_post` the stream after the
  second. There is no final norm, so no `ln_final`: the last `resid_post` is what the head reads. `embed` is the word
  embedding before positions are added. Texts are read as `<s> text </s>`.
- **Encoder-decoders** (T5, CodeT5) have two stacks: `encoder.resid_post.3`, `decoder.z.0.2`. The encoder reads the text
  and its end; the decoder reads its start token and then the same text, and the row of a token in a `decoder` site is the
  state right after reading that token. The start token itself gives no row; in `decoder.pattern` it is the first key, so
  these rows are wider by one per head. `cross_attn_out` is what attention to the encoder adds.

## What is refused, and why

- `resid_mid` where attention and MLP run in parallel (GPT-NeoX with `use_parallel_residual`, CodeGen): there is no such
  point.
- `rot_q`, `rot_k` without rotary embedding: learned (GPT-2, GPT-BigCode, RoBERTa) or relative positions (T5).
- `mlp_post` of a mixture of experts: there is one per expert.
- `q`, `k`, `v` by `hooks` and `nnsight` where one matrix projects all three; `transformer_lens` serves them.
- `encoder.embed`, `decoder.embed` by `transformer_lens`: its hook is on the shared embedding, which neither stack calls.
- **Bridge hooks** by their own name (`blocks.3.attn.hook_attn_scores`, `blocks.0.mlp.gate.hook_out`) are served when
  they give one row per token: `[batch, pos, ...]` is flattened to `[batch, pos, width]`, hooks with heads before
  positions are turned, hooks of experts that lay texts end to end are cut, and attention scores are as wide as `pattern`
  with the lowest number for keys beyond a text's own. What the bridge never comes to when the body runs (the
  unembedding, hooks behind a switch such as `attn.hook_result`), whole numbers (token ids, expert choices) and tensors
  without a row per token (rotary cosines) are refused with their shape. They mean what TransformerLens means by
  them: in RoBERTa its `attn.hook_attn_scores` is after the softmax.
- `transformer_lens` for an architecture whose bridge does not fit the loaded model, such as quantised fused projections.

TransformerLens 4.3 has, but never comes to, the hook points for rotated queries and keys of GPT-NeoX, Phi-3 and CodeGen;
the engine makes it do so (`activations/engines/rotary.py`).

## NDIF

`--engine nnsight --remote` runs each batch on NDIF by the model's name, and only the chosen rows come back. It needs a
key (`NDIF_API_KEY`, or `nnsight.login()`), a model of the Hub that NDIF runs, and a decoder or an encoder:
encoder-decoders are refused. The compute type is NDIF's, whatever `--dtype` says here; a store refuses rows it would lose
bits of. The request needs the model's configuration and tokenizer only. Loading a model here still reads its weights
first, for the fingerprint in the store; from Python a model without weights will do:

```python
with torch.device("meta"):
    skeleton = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained("org/name"))
loaded = wrap(skeleton, AutoTokenizer.from_pretrained("org/name"), "org/name")
rows = NnsightEngine(loaded, remote=True).forward(ids, mask, loaded.sites("resid_post.*"), select)
```

What is tested is all but the network: the request is packed as for NDIF, unpacked where this package can not be
imported, and run (`NnsightEngine(loaded, remote="local")`). No run on NDIF itself has been made.
"""  # noqa: E501


def page(found: dict[str, Marks], others: Iterable[str], measured: str) -> str:
    """The page, for the marks of each architecture's sites, further architectures whose engines agree, and the line
    about when and with what they were measured.
    """
    sys.path.insert(0, str(ROOT))
    from activations.sites import DESCRIPTIONS

    names = [name for name in DESCRIPTIONS if any(name == site for marks in found.values() for _, site in marks)]
    lines = ["| | " + " | ".join(f"`{name}`" for name in names) + " |", "|---" * (len(names) + 1) + "|"]
    for architecture, marks in found.items():
        for stack in dict.fromkeys(stack for stack, _ in marks):
            cells = [marks[stack, name] or "·" for name in names]
            lines.append(f"| {architecture}{f' {stack}' if stack else ''} | " + " | ".join(cells) + " |")
    sites = "\n".join(f"- `{name}`: {what}" for name, what in DESCRIPTIONS.items())
    return PAGE.format(measured=measured, table="\n".join(lines), sites=sites, others=", ".join(others))


def main() -> None:
    """Print the page."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "activations" / "engines")]
    import conftest
    from parity import ALL, OTHERS, support

    make = conftest.make_model.__wrapped__(conftest.make_tokenizer.__wrapped__())
    versions = ", ".join(f"{name} {version(name)}" for name in ("transformers", "transformer-lens", "nnsight", "torch"))
    measured = f"{MEASURED}{versions} on {datetime.date.today()}."
    print(page({name: support(make(name)) for name in ALL}, OTHERS, measured), end="")


if __name__ == "__main__":
    main()
