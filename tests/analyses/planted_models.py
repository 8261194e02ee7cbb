"""Hand-built Llamas whose mechanism is known: ground truth for patching, attribution and circuits.

The residual stream is divided into named dimensions, which the planted parts alone write, and a rest. All other heads
and MLP neurons are random: they read everything, so that their activations differ between clean and corrupted run, but
write into the rest only, which nothing planted reads: it shows in the logits of other tokens than the letters that the
prompts are about. Three choices keep the planted parts exact:

- the norms' epsilon is so large that they are the identity, and no part acts on another by its size;
- rotary frequencies fall so fast that only a head's first pair of dimensions knows positions; content lies in the slow ones;
- attention scores are so large that a planted head attends to one token, to the first where nothing matches.

In each model the logit difference is ``GAIN`` in the clean and ``-GAIN`` in the corrupted run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from activations.sites import Site
from analyses.prompts import OTHER_ROLE, Prompt

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.models import LoadedModel

GAIN = 10.0
N_PROMPTS = 4
LAYERS, HEADS, KV_HEADS, D_HEAD = 3, 4, 2, 16
LETTERS = "ABCDEFGH"
FILLERS = "klmnopqrst"
LAST = "last"

WORD, PREVIOUS, ANSWER = range(0, 8), range(8, 16), range(16, 24)
"""Which letter a token is, which one the token before it is, and which one comes next; the unembedding reads the third."""
ONE, START, SIGNALS = 24, 25, (26, 27)
"""1 at every token; 1 at the first; what switches and the first head of the lookup say."""
REST = 32
"""Here begin the dimensions that nothing planted reads."""
SLOW = (*range(3, 8), *range(11, 16))
"""Dimensions of a head that rotate by less than 1e-4 over a prompt. The last of them is for attention to the first token."""
SHARPNESS = 60.0
"""Attention score of a match; the first token has half of it, and all others 0."""
EPSILON = 1e10
STEEPNESS = 400.0
RAMP = 0.4
"""The AND and the OR rise linearly from 0 to 1 within this distance of their threshold."""
TAKEN_BACK = 0.2
"""How much of a 1 the MLP of the cancelling model takes back."""

_COPIED = tuple(zip(WORD, ANSWER, strict=True))
Placed = Sequence[Sequence[tuple[str, str]]]
"""Groups of neighbouring letters of a prompt, each with its role."""
Wires = Iterable[tuple[int, int]]
"""Connections from a dimension of the stream to a slot of a head, or to another dimension of the stream."""


@dataclass(frozen=True)
class Component:
    """A part of the model that matters at the positions of a role."""

    site: Site
    role: str


@dataclass(frozen=True)
class Planted:
    """A model, prompts that its mechanism answers, and all parts of the mechanism above the embedding."""

    loaded: LoadedModel
    prompts: tuple[Prompt, ...]
    components: tuple[Component, ...]

    @property
    def heads(self) -> tuple[Component, ...]:
        """The planted heads, each with the role of the positions that it matters at."""
        return tuple(component for component in self.components if component.site.name == "z")


def induction(make_model: MakeModel) -> Planted:
    """Head 1 of layer 0 says which token came before; head 2 of layer 1 looks for the last token there and copies.

    ``… A X … B Y … A`` is continued by X. In the corrupted run A and B are exchanged, and Y follows. The first head
    matters at X and at Y: put right at one alone, both are said to follow A, and half the effect is restored.
    """
    loaded = _unplanted(make_model)
    plant_previous_token_head(loaded, layer=0, head=1)
    matched = range(len(LETTERS))
    plant_head(loaded, 1, 2, zip(WORD, matched, strict=True), zip(PREVIOUS, matched, strict=True), _COPIED)

    def draw(rng: np.random.Generator) -> Prompt:
        first, second, answer, contrast = _letters(rng, LETTERS, 4)
        keys = [[(first, "key"), (answer, "answer")], [(second, "key"), (contrast, "contrast")]]
        return _prompt(loaded, rng, keys, first, {first: second, second: first}, answer, contrast)

    parts = [_z(0, 1, "answer"), _z(0, 1, "contrast"), _z(1, 2, LAST)]
    return Planted(loaded, _drawn(draw), tuple(parts))


def copying(make_model: MakeModel, layer: int = 1) -> Planted:
    """Head 3 of one layer copies the prompt's only letter to every later position.

    ``… X …`` is continued by X, in the corrupted run by Y in its place. Fillers are no letters.
    """
    return copying_pair(make_model, layer)[1]


def copying_pair(make_model: MakeModel, layer: int = 1) -> tuple[LoadedModel, Planted]:
    """A base model and the model with the copy head; they differ in the queries of that head alone.

    In the base model the head attends to the first token, copies nothing, and the logit difference is 0 in every run.
    """
    base, loaded = _unplanted(make_model), _unplanted(make_model)
    for model, query in ((base, []), (loaded, [(ONE, 0)])):
        plant_head(model, layer, 3, query, [(letter, 0) for letter in WORD], _COPIED)

    def draw(rng: np.random.Generator) -> Prompt:
        answer, contrast = _letters(rng, LETTERS, 2)
        return _prompt(loaded, rng, [[(answer, "name")]], None, {answer: contrast}, answer, contrast)

    return base, Planted(loaded, _drawn(draw), (_z(layer, 3, LAST),))


def both(make_model: MakeModel) -> Planted:
    """An AND: the answer needs what head 0 of layer 0 and head 3 of layer 1 say, and the MLP of layer 1 joins them.

    Denoising one head restores nothing, noising one breaks all.
    """
    return _joined(make_model, threshold=1.5)


def either(make_model: MakeModel) -> Planted:
    """An OR of the same two heads: each is the other's backup.

    Denoising one head restores all, noising one changes nothing.
    """
    return _joined(make_model, threshold=0.5)


def lookup(make_model: MakeModel) -> Planted:
    """A chain through a saturated softmax: head 2 of layer 0 gives head 1 of layer 2 its query.

    The prompt has one of A to C and one of D to F; G asks for the first, H (in the corrupted run) for the second. The
    attention of the second head is all or nothing in both runs, so that gradients with respect to its query, and to all
    that the query is made of, vanish, while an exact patch of them changes the answer.
    """
    loaded = _unplanted(make_model)
    first, second, asking = WORD[:3], WORD[3:6], WORD[6:]
    plant_head(loaded, 0, 2, [(ONE, 0)], [(word, 0) for word in asking], zip(asking, SIGNALS, strict=True))
    kinds = [(word, kind) for kind, words in enumerate((first, second)) for word in words]
    plant_head(loaded, 2, 1, [(SIGNALS[0], 0), (SIGNALS[1], 1)], kinds, _COPIED)

    def draw(rng: np.random.Generator) -> Prompt:
        answer, contrast = (_letters(rng, kind, 1)[0] for kind in ("ABC", "DEF"))
        placed = [[("G", "asking")], [(answer, "answer")], [(contrast, "contrast")]]
        return _prompt(loaded, rng, placed, None, {"G": "H"}, answer, contrast)

    parts = (_z(0, 2, LAST), Component(Site("q", 2, 1), LAST), _z(2, 1, LAST))
    return Planted(loaded, _drawn(draw), parts)


def cancelling(make_model: MakeModel) -> Planted:
    """Head 0 of layer 0 says yes to the unembedding, and to the MLP of layer 1, which takes some of it back.

    In the corrupted run, where the head says 0, what the MLP takes back grows exactly as fast as what the unembedding
    reads, so that the gradient vanishes; but it soon grows no more. Gradients that leave the MLP out show the head.
    """
    loaded = _unplanted(make_model)
    plant_switch(loaded, 0, 0, WORD[:2], SIGNALS[0])
    read = 2 * GAIN / (1 - TAKEN_BACK / 2)
    plant_ramp(loaded, SIGNALS[:1], -TAKEN_BACK / 2, TAKEN_BACK / 2, height=-TAKEN_BACK * read / GAIN)
    unembedding = loaded.model.lm_head.weight.data
    unembedding[_token(loaded, "E"), SIGNALS[0]] = read
    unembedding[_token(loaded, "F"), ONE] = GAIN - read * TAKEN_BACK / 2
    return Planted(loaded, _switched(loaded, {"A": "B"}), (_z(0, 0, LAST), Component(Site("mlp_out", 1), LAST)))


MODELS: dict[str, Callable[[MakeModel], Planted]] = {
    "induction": induction,
    "copying": copying,
    "both": both,
    "either": either,
    "lookup": lookup,
    "cancelling": cancelling,
}


def plant_head(loaded: LoadedModel, layer: int, head: int, query: Wires, key: Wires, value: Wires) -> None:
    """Rewrite one head: it attends where a slot is in both query and key, and to the first token otherwise.

    ``query`` and ``key`` lead from the stream to slots (0 to 8), ``value`` from the stream to the stream.
    """
    queries, keys, values, written = _clear(loaded, layer, head)
    for source, slot in query:
        queries[SLOW[slot], source] = SHARPNESS * math.sqrt(D_HEAD)
    for source, slot in key:
        keys[SLOW[slot], source] = 1.0
    queries[SLOW[-1], ONE], keys[SLOW[-1], START] = SHARPNESS / 2 * math.sqrt(D_HEAD), 1.0
    for number, (source, target) in enumerate(value):
        values[number, source] = written[target, number] = 1.0


def plant_switch(loaded: LoadedModel, layer: int, head: int, words: Sequence[int], signal: int) -> None:
    """Rewrite one head: it says 1 where the first of two words came before, and 0 where the second did."""
    plant_head(loaded, layer, head, [(ONE, 0)], [(word, 0) for word in words], [(words[0], signal)])


def plant_ramp(loaded: LoadedModel, signals: Sequence[int], start: float, stop: float, height: float) -> None:
    """Rewrite two neurons of layer 1: E gets 0 where the signals' sum is below ``start``, ``height`` where above ``stop``.

    In between it rises in a line. A steep SiLU is a ReLU; a ramp is the difference of two.
    """
    mlp = loaded.model.model.layers[1].mlp
    slope = height / (stop - start)
    for neuron, (bend, change) in enumerate(((start, slope), (stop, -slope))):
        gate, up = mlp.gate_proj.weight.data[neuron], mlp.up_proj.weight.data[neuron]
        down = mlp.down_proj.weight.data[:, neuron]
        for weights in (gate, up, down):
            weights.zero_()
        gate[list(signals)], gate[ONE], up[ONE] = STEEPNESS, -STEEPNESS * bend, 1.0
        down[ANSWER[LETTERS.index("E")]] = change / STEEPNESS


def plant_previous_token_head(loaded: LoadedModel, layer: int, head: int) -> None:
    """Rewrite one head: every token attends to the one before it, and notes its letter.

    Keys and queries are constant in the pair of dimensions that rotates by 1 radian a token. The score at distance d is
    2000 cos(d - 1). Of all others in a prompt of up to 13 tokens, d = 7 comes nearest to the maximum: it is 80 lower.
    """
    queries, keys, values, written = _clear(loaded, layer, head)
    scale = 2000 * math.sqrt(D_HEAD)
    queries[0, ONE], queries[D_HEAD // 2, ONE] = scale * math.cos(1), -scale * math.sin(1)
    keys[0, ONE] = 1.0
    for number, (source, target) in enumerate(zip(WORD, PREVIOUS, strict=True)):
        values[number, source] = written[target, number] = 1.0


def _clear(loaded: LoadedModel, layer: int, head: int) -> list[torch.Tensor]:
    """The rows of one head's query, key and value weights and the columns of its output weights, all set to zero.

    The random head of the same group of queries reads the same keys and values.
    """
    shared = head // (HEADS // KV_HEADS)
    rows, shared_rows = (slice(number * D_HEAD, (number + 1) * D_HEAD) for number in (head, shared))
    attention = loaded.model.model.layers[layer].self_attn
    views = [
        attention.q_proj.weight.data[rows], attention.k_proj.weight.data[shared_rows],
        attention.v_proj.weight.data[shared_rows], attention.o_proj.weight.data[:, rows],
    ]  # fmt: skip
    for view in views:
        view.zero_()
    return views


def _joined(make_model: MakeModel, threshold: float) -> Planted:
    """Two switches and an MLP that says whether more than the threshold of them are on: E follows, else F."""
    loaded = _unplanted(make_model)
    plant_switch(loaded, 0, 0, WORD[:2], SIGNALS[0])
    plant_switch(loaded, 1, 3, WORD[2:4], SIGNALS[1])
    plant_ramp(loaded, SIGNALS, threshold - RAMP, threshold + RAMP, height=2)
    loaded.model.lm_head.weight.data[_token(loaded, "F"), ONE] = GAIN
    parts = (_z(0, 0, LAST), _z(1, 3, LAST), Component(Site("mlp_out", 1), LAST))
    return Planted(loaded, _switched(loaded, {"A": "B", "C": "D"}), parts)


def _switched(loaded: LoadedModel, changes: dict[str, str]) -> tuple[Prompt, ...]:
    """Prompts with every switch on, and off in the corrupted run; E follows, or F."""
    placed = [[(word, role)] for word, role in zip(changes, ("left", "right"), strict=False)]
    return _drawn(lambda rng: _prompt(loaded, rng, placed, None, changes, "E", "F"))


def _unplanted(make_model: MakeModel) -> LoadedModel:
    """A random Llama that writes into the rest alone; the letters' logits read the answer's dimensions alone."""
    loaded = make_model(
        "llama", hidden_size=HEADS * D_HEAD, intermediate_size=24, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS, rms_norm_eps=EPSILON, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e16},
    )  # fmt: skip
    body = loaded.model.model
    letters = [_token(loaded, letter) for letter in LETTERS]
    body.norm.weight.data.fill_(math.sqrt(EPSILON))
    for block in body.layers:
        for norm in (block.input_layernorm, block.post_attention_layernorm):
            norm.weight.data.fill_(math.sqrt(EPSILON))
        for written in (block.self_attn.o_proj.weight.data, block.mlp.down_proj.weight.data):
            written[:REST] = 0
            written[REST:] *= 0.1
    body.embed_tokens.weight.data[:, :REST] = 0
    body.embed_tokens.weight.data[:, ONE] = 1
    body.embed_tokens.weight.data[loaded.tokenizer.bos_token_id, START] = 1
    body.embed_tokens.weight.data[letters, list(WORD)] = 1
    loaded.model.lm_head.weight.data[:, :REST] = 0
    loaded.model.lm_head.weight.data[:, REST:] *= 0.1
    loaded.model.lm_head.weight.data[letters] = 0
    loaded.model.lm_head.weight.data[letters, list(ANSWER)] = GAIN
    return loaded


def _token(loaded: LoadedModel, letter: str) -> int:
    return int(loaded.tokenizer.convert_tokens_to_ids(letter))


def _z(layer: int, head: int, role: str) -> Component:
    return Component(Site("z", layer, head), role)


def _letters(rng: np.random.Generator, among: str, count: int) -> list[str]:
    return [str(letter) for letter in rng.choice(list(among), count, replace=False)]


def _drawn(draw: Callable[[np.random.Generator], Prompt]) -> tuple[Prompt, ...]:
    rng = np.random.default_rng(0)
    return tuple(draw(rng) for _ in range(N_PROMPTS))


def _prompt(
    loaded: LoadedModel,
    rng: np.random.Generator,
    placed: Placed,
    last: str | None,
    changes: dict[str, str],
    answer: str,
    contrast: str,
) -> Prompt:
    """The groups of letters in any order, with one or two fillers before each, and a last token (or another filler).

    The corrupted text has some letters changed, the last token excepted, and another first filler.
    """
    clean: list[tuple[str, str]] = []
    for group in rng.permutation(len(placed)):
        clean += [(filler, OTHER_ROLE) for filler in _letters(rng, FILLERS, int(rng.integers(1, 3)))]
        clean += placed[group]
    clean += [(filler, OTHER_ROLE) for filler in _letters(rng, FILLERS, 1)]
    corrupted = ["u", *(changes.get(letter, letter) for letter, _ in clean[1:])]
    end = last or "v"
    words: Sequence[Sequence[str]] = [letter for letter, _ in clean], corrupted
    bos = int(loaded.tokenizer.bos_token_id)
    ids = [(bos, *(_token(loaded, letter) for letter in (*text, end))) for text in words]
    right, wrong = _token(loaded, answer), _token(loaded, contrast)
    name = "".join((*words[0], end))
    return Prompt(
        name, name, 0, ids[0], ids[1], right, wrong, tuple(_token(loaded, letter) for letter in LETTERS),
        (str(loaded.tokenizer.bos_token), *name), (OTHER_ROLE, *(role for _, role in clean), LAST),
    )  # fmt: skip
