"""Time and bytes per token of a capture against the size of the model, and what that comes to for large ones.

    python docs/bench/scaling.py                  # about 5 minutes on 2 cores
    python docs/bench/scaling.py --device cuda

Qwen2 shapes of growing size with random weights, bfloat16, 16 texts of 128 tokens per forward pass, resid_post of every layer
to disk. A line through the origin is fitted to seconds per token against the parameters of the body (the forward pass
costs two operations per parameter and token); everything beyond the largest size measured is marked as extrapolated.
"""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"

import click
import torch
import transformers

from activations.capturing import prepare, run
from activations.models import ModelSpec, load_tokenizer, wrap
from activations.rows import RowRule
from activations.sites import Site
from activations.texts import Text

SIZES = [(256, 4), (512, 8), (768, 12), (1024, 16), (1536, 20)]
"""Width and layers."""
TARGETS = [("0.5B", 896, 24), ("7B", 3584, 28), ("14B", 5120, 48), ("32B", 5120, 64), ("72B", 8192, 80)]
"""Of the Qwen2.5 family: name, width, layers."""
BILLIONS = {"0.5B": 0.36, "7B": 6.5, "14B": 13.1, "32B": 31.0, "72B": 70.0}
"""Parameters without embeddings, as their model cards give them."""


def measure(width: int, layers: int, device: str) -> tuple[float, float, float]:
    """Parameters of the body, seconds per token, bytes per token."""
    config = transformers.Qwen2Config(
        hidden_size=width, intermediate_size=11 * width // 4, num_hidden_layers=layers, num_attention_heads=width // 64,
        num_key_value_heads=width // 128, vocab_size=4096, max_position_embeddings=256, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    loaded = wrap(model, load_tokenizer(ModelSpec("embedded:code")), "random")
    words = "def area(width, height):\n    total = width * height\n    return total\n" * 20
    ids = loaded.tokenizer(words, add_special_tokens=False)["input_ids"][:127]
    texts = [Text(str(number), loaded.tokenizer.decode(ids)) for number in range(16 * (8 if device != "cpu" else 1))]
    sites = [Site("resid_post", layer) for layer in range(layers)]
    job = prepare(loaded, texts, sites, bos=True, rule=RowRule(), dtype="bfloat16", batch_tokens=16 * 128)
    taken = []
    for _ in range(4):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            run(job, Path(folder) / "store")
            taken.append(time.perf_counter() - began)
    expected = job.estimate()
    body = sum(p.numel() for name, p in model.named_parameters() if ".layers." in name)
    return body, statistics.median(taken[1:]) / expected.tokens, expected.bytes / expected.tokens


@click.command()
@click.option("--device", default="cpu", show_default=True)
def main(device: str) -> None:
    name = (
        torch.cuda.get_device_name()
        if device != "cpu"
        else f"{torch.get_num_threads()} threads of {platform.machine()}"
    )
    print(f"torch {torch.__version__}, {name}, bfloat16\n")
    print(
        "| body | layers × width | tokens/s | bytes per token, all of resid_post | MB/s to disk |\n|---|---|---|---|---|"
    )
    found = []
    for width, layers in SIZES:
        body, seconds, size = measure(width, layers, device)
        found.append((body, seconds))
        print(
            f"| {body / 1e6:.0f}M | {layers} × {width} | {1 / seconds:,.0f} | {size:,.0f} | {size / seconds / 1e6:.0f} |",
            flush=True,
        )
    slope = sum(body * seconds for body, seconds in found) / sum(body * body for body, _ in found)
    worst = max(abs(seconds / (slope * body) - 1) for body, seconds in found[2:])
    print(
        f"\nslope: {slope * 1e12:.2f} µs per token and million parameters, {2 / slope / 1e12:.2f} TFLOP/s; the three "
        f"largest sizes lie within {worst:.0%} of the line\n"
    )
    print(
        "| model | layers × width | kB per token and site | MB per token, all layers | tokens/s (extrapolated) | MB/s |"
    )
    print("|---|---|---|---|---|---|")
    for target, width, layers in TARGETS:
        rate = 1 / (slope * BILLIONS[target] * 1e9)
        size = 2 * width * layers
        sizes = f"{2 * width / 1e3:.1f} | {size / 1e6:.2f}"
        print(f"| {target} | {layers} × {width} | {sizes} | {rate:.3g} | {size * rate / 1e6:.2g} |")


if __name__ == "__main__":
    main()
