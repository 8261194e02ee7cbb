"""Capture against the bare forward pass and against the loops people write today; prints one table.

    python docs/bench/capture.py            # about 15 minutes on 2 cores
    python docs/bench/capture.py --texts 200 --rounds 1

Every contender gives the activations after all layers, of every token of the same texts, in files on disk. The texts are
functions and docstrings of Python's standard library, in random order. The model is a Qwen2 of 28M parameters with random
weights, in float32, all on the CPU, or with --device cuda the shape of a 7B model in bfloat16 with one row per text.
"""

from __future__ import annotations

import ast
import os
import platform
import random
import shutil
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the twinprobe command sets it
os.environ["HF_HUB_OFFLINE"] = "1"

import click
import torch
import transformers

from activations.capturing import Job, prepare, run
from activations.inputs import batches, pad
from activations.models import LoadedModel, ModelSpec, load_tokenizer, wrap
from activations.overlong import fit
from activations.rows import RowRule
from activations.sites import Site
from activations.store import ActivationStore
from activations.texts import Text

FIXED_BATCH = 16
SHAPES = {
    "28M": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8,
            "num_key_value_heads": 4, "vocab_size": 4096, "tie_word_embeddings": False},
    "7B": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
           "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False},
}  # fmt: skip
CONTEXT = 1024


def stdlib_texts(count: int) -> list[Text]:
    """Functions, and docstrings by themselves, of the standard library: real texts of very mixed lengths."""
    found = set()
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        source = path.read_text(encoding="utf-8", errors="ignore")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(ast.get_docstring(node) or "")
            if isinstance(node, ast.FunctionDef):
                found.add(ast.get_source_segment(source, node) or "")
    chosen = random.Random(0).sample(sorted(text[:2500] for text in found if len(text) > 20), count)
    return [Text(str(number), text) for number, text in enumerate(chosen)]


def make_model(shape: str, device: str) -> LoadedModel:
    config = transformers.Qwen2Config(**SHAPES[shape], max_position_embeddings=CONTEXT, bos_token_id=0, eos_token_id=0)
    torch.manual_seed(0)
    dtype = torch.float32 if shape == "28M" else torch.bfloat16
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    return wrap(model, load_tokenizer(ModelSpec("embedded:code")), f"Qwen2 {shape}, random weights")


def timed(work: Callable[[], object], device: str) -> float:
    began = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def bare(job: Job) -> None:
    """The forward pass of the very batches of a capture, and nothing else: no head, no hooks, no copies."""
    with torch.inference_mode():
        for shard in job.shards:
            for batch in batches([len(job.encoded[i]) for i in shard], job.recipe.batch_tokens):
                ids, mask = pad([job.encoded[shard[i]].tokens for i in batch], job.recipe.pad_id, job.loaded.device)
                job.loaded.model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)


def fixed_batches(job: Job) -> list[tuple[torch.Tensor, torch.Tensor]]:
    texts = [item.tokens for item in job.encoded]
    return [
        pad(texts[start : start + FIXED_BATCH], job.recipe.pad_id, job.loaded.device)
        for start in range(0, len(texts), FIXED_BATCH)
    ]


def transformer_lens_loop(job: Job, out: Path) -> Callable[[], None]:
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(
        "Qwen/Qwen2-0.5B", hf_model=deepcopy(job.loaded.model), tokenizer=deepcopy(job.loaded.tokenizer),
        device=str(job.loaded.device), dtype=job.loaded.model.dtype,
    )  # fmt: skip

    def loop() -> None:
        out.mkdir()
        for number, (ids, mask) in enumerate(fixed_batches(job)):
            with torch.no_grad():
                _, cache = bridge.run_with_cache(ids, attention_mask=mask, names_filter=lambda name: name in names)
            torch.save({name: value.cpu() for name, value in cache.items()}, out / f"{number}.pt")

    names = {f"blocks.{layer}.hook_out" for layer in range(job.loaded.n_layers)}
    return loop


def nnsight_loop(job: Job, out: Path) -> Callable[[], None]:
    import nnsight

    model = nnsight.NNsight(deepcopy(job.loaded.model))

    def loop() -> None:
        out.mkdir()
        for number, (ids, mask) in enumerate(fixed_batches(job)):
            with torch.no_grad(), model.trace(ids, attention_mask=mask):
                kept = nnsight.save([])
                for layer in model.model.layers:
                    kept.append(layer.output)
            torch.save([value.cpu() for value in kept], out / f"{number}.pt")

    return loop


def largest_difference(job: Job, store: ActivationStore, out: Path) -> float:
    """Largest relative difference between our rows and those of a loop's files, over the first and last batches."""
    worst = 0.0
    starts = [0]
    for item in job.encoded:
        starts.append(starts[-1] + len(item.own))
    count = -(-len(job.encoded) // FIXED_BATCH)
    for number in (0, count - 1):
        content = torch.load(out / f"{number}.pt")
        layers = list(content.values()) if isinstance(content, dict) else content
        assert len(layers) == job.loaded.n_layers
        for layer, value in enumerate(layers):
            for line in range(value.shape[0]):
                text = number * FIXED_BATCH + line
                ours = torch.from_numpy(store.read(f"resid_post.{layer}", range(starts[text], starts[text + 1])))
                theirs = value[line, job.encoded[text].own.start : job.encoded[text].own.stop].float()
                worst = max(worst, float((ours - theirs).abs().max() / theirs.abs().max()))
    return worst


@click.command()
@click.option("--texts", "count", default=2000, show_default=True)
@click.option("--rounds", default=3, show_default=True, help="Of bare and capture, in turn; the loops run once.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--loops/--no-loops", default=True)
@click.option("--folder", type=click.Path(path_type=Path), default=None, help="Where files go (default: temporary).")
def main(count: int, rounds: int, device: str, loops: bool, folder: Path | None) -> None:
    shape = "28M" if device == "cpu" else "7B"
    loaded = make_model(shape, device)
    rule, dtype = (RowRule(), "float32") if device == "cpu" else (RowRule("last"), "bfloat16")
    sites = [Site("resid_post", layer) for layer in range(loaded.n_layers)]
    texts = [item.text for item in fit(loaded.tokenizer, stdlib_texts(count), True, CONTEXT, "truncate").encoded]
    job = prepare(loaded, texts, sites, bos=True, rule=rule, dtype=dtype)
    expected = job.estimate()
    lengths = sorted(len(item) for item in job.encoded)
    fixed = sum(ids.numel() for ids, _ in fixed_batches(job))
    work = Path(tempfile.mkdtemp(dir=folder))
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{versions}, {torch.get_num_threads()} threads, {platform.processor() or platform.machine()}, {device}")
    print(
        f"{loaded.spec.name}: {loaded.model.num_parameters() / 1e6:.0f}M parameters, {loaded.model.dtype}, resid_post.* of "
        f"{expected.rows:,} rows; {len(texts):,} texts of {lengths[0]} to {lengths[-1]} tokens (median "
        f"{lengths[len(lengths) // 2]}), {expected.tokens:,} in all; padding {expected.padded / expected.tokens - 1:.1%} in "
        f"our batches, {fixed / expected.tokens - 1:.0%} in batches of {FIXED_BATCH}"
    )
    times: dict[str, list[float]] = {"bare forward pass": [], "twinprobe capture": []}
    try:
        bare(prepare(loaded, texts[:64], sites, bos=True, rule=rule, dtype=dtype))  # warm up
        for number in range(rounds):
            times["bare forward pass"].append(timed(lambda: bare(job), device))
            times["twinprobe capture"].append(timed(lambda n=number: run(job, work / f"store{n}"), device))
            if number:
                shutil.rmtree(work / f"store{number}")
        store = ActivationStore(work / "store0")
        differences = {}
        for name, make in (
            (("TransformerLens loop", transformer_lens_loop), ("nnsight loop", nnsight_loop)) if loops else ()
        ):
            out = work / name.split()[0]
            loop = make(job, out)
            times[name] = [timed(loop, device)]
            if device == "cpu":
                differences[name] = largest_difference(job, store, out)
            shutil.rmtree(out)
    finally:
        shutil.rmtree(work)
    print("\n| | seconds | tokens/s | twinprobe against it | same rows within |\n|---|---|---|---|---|")
    ours = statistics.median(times["twinprobe capture"])
    for name, taken in times.items():
        seconds = statistics.median(taken)
        if name == "bare forward pass":  # pair by pair: the machine's speed drifts
            ratio = statistics.median(b / c for b, c in zip(taken, times["twinprobe capture"], strict=True))
        else:
            ratio = seconds / ours
        same = f"{differences[name]:.0e}" if name in differences else ""
        print(f"| {name} | {seconds:.1f} | {expected.tokens / seconds:,.0f} | {ratio:.2f} | {same} |")
    pairs = zip(times["bare forward pass"], times["twinprobe capture"], strict=True)
    print("\nratio to the bare pass, round by round:", ", ".join(f"{b / c:.3f}" for b, c in pairs))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
