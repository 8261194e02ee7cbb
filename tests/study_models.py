"""Three small trained models for tests of the study: they know the answers to some items, so that patching has work."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from probes.tasks import get_task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ITEMS = 64
CONTEXT = 320
STUDY = """\
name = "small"
[pair]
base = "{models}/base"
code = "{models}/code"
null = "{models}/null"
[tasks]
names = ["nesting", "identifiers"]
items = {items}
[probes]
sites = "embed,resid_post.*"
strengths = [0.01]
[patching]
prompts = 20
items = 6
check_exact = 1
[interventions]
prompts = 8
draws = 2
[mapping]
passages = 5
characters = 150
draws = 2
[scores]
passages = 6
characters = 200
[benchmarks]
tasks = ["generated_navigate", "generated_arithmetic", "arc_easy"]
data = "{models}/data"
limit = 12
[statistics]
resamples = 100
flips = 1000
"""
Known = list[tuple[str, str]]
"""Texts with the answers that continue them."""


def make_study(folder: Path) -> Path:
    """Write a study file and its models; return the file.

    ``base`` knows the answers to the test items of ``nesting`` in prose, ``code`` those in code, ``null`` is a copy of
    base: what the study must find is known. Beside them lies a benchmark of a few questions in its authors' format.
    """
    prose, code = (known_answers(form) for form in ("prose", "code"))
    tokenizer = _tokenizer([text for text, _ in prose + code])
    _train(folder / "base", tokenizer, prose, seed=0)
    _train(folder / "code", tokenizer, code, seed=1)
    shutil.copytree(folder / "base", folder / "null")
    (folder / "data" / "arc").mkdir(parents=True)
    questions = [{"query": f"What is {n} and {n}?", "choices": ["(", "[", "an edge"], "gold": n % 3} for n in range(15)]
    (folder / "data" / "arc" / "arc_easy.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in questions))
    file = folder / "small.toml"
    file.write_text(STUDY.format(models=folder, items=ITEMS))
    return file


def known_answers(form: str) -> Known:
    """Clean and corrupted texts of the study's test items, each with its answer."""
    found: Known = []
    for item in get_task("nesting").generate(ITEMS, 0):
        rendered = item.forms[form]
        if item.split == "test" and rendered.answer and rendered.contrast:
            found += [(rendered.text, rendered.answer), (rendered.contrast.text, rendered.contrast.answer)]
    return found


def _tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE with every bracket a token of its own, so that a text and its contrast have equally many."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    brackets = pre_tokenizers.Split(Regex(r"[\[\](),]"), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([brackets, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    backend.decoder = decoders.ByteLevel()
    special = ["<|bos|>", "<|eos|>", "<|pad|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, show_progress=False, special_tokens=special, initial_alphabet=alphabet
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=special[0], eos_token=special[1], pad_token=special[2]
    )


def _train(folder: Path, tokenizer: PreTrainedTokenizerFast, known: Known, seed: int) -> None:
    """Teach a fresh two-layer Llama the ``known`` answers by heart and save it: about a second."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_attention_heads=4, num_hidden_layers=2,
        max_position_embeddings=CONTEXT, initializer_range=0.2, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    texts = [[0, *tokenizer(text, add_special_tokens=False)["input_ids"]] for text, _ in known]
    width = max(len(text) for text in texts)
    ids = torch.tensor([text + [2] * (width - len(text)) for text in texts])
    rows, last = torch.arange(len(texts)), torch.tensor([len(text) - 1 for text in texts])
    answers = torch.tensor([tokenizer(answer, add_special_tokens=False)["input_ids"][0] for _, answer in known])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(200):
            states = model.model(input_ids=ids, use_cache=False).last_hidden_state[rows, last]
            loss = torch.nn.functional.cross_entropy(model.lm_head(states), answers)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if loss < 0.05:
                break
    assert loss < 0.05, f"{folder.name} did not learn its answers"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def learned_items(file: Path, count: int | None = None, *, and_unusable: bool = False) -> Path:
    """Write items that ``base`` has learned, ``count`` of them; if asked for, one more whose answers are one and the same."""
    known = known_answers("prose")
    pairs = list(zip(known[::2], known[1::2], strict=True))[:count]
    lines: list[dict[str, object]] = [
        {"id": i, "clean": clean, "answer": answer, "corrupted": corrupted, "contrast": contrast}
        for i, ((clean, answer), (corrupted, contrast)) in enumerate(pairs)
    ]
    if and_unusable:
        lines.append({"id": "same", "clean": "x [", "answer": "]", "corrupted": "x (", "contrast": "]"})
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file
