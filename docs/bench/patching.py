"""Exact patching beside TransformerLens and nnsight on the same weights and prompts, and its peak memory; prints tables.

    python docs/bench/patching.py                                       # about a quarter of an hour on 2 cores
    python docs/bench/patching.py --threads 1 --rounds 1 --no-memory
    python docs/bench/patching.py --device cuda --dtype bfloat16        # a 1B shape and 64 prompts, TransformerLens only

Random Llama-shaped model; every prompt has a contrast that differs in one token, at position 10 of 24. Ours is
``patch_prompts`` in whole: which prompts are retained, the engine's self-checks, both runs of every prompt, all metrics,
three cells checked against plain forward passes, the table. The part of it that the peers do too (both runs of every
prompt recorded, all cells, logit differences) is timed by itself as well. TransformerLens is ``run_with_cache`` and the
``get_act_patch_*`` of its own for the map, with all prompts in one batch; nnsight one trace per prompt with one invoke per
cell. Contenders run in turn, in rounds; a ratio is the median over the rounds. Differences are between logit differences,
over all cells and prompts.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the twinprobe command sets it
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
import transformers

from activations.models import LoadedModel, ModelSpec, load_tokenizer, wrap
from activations.sites import Site
from analyses.patching import suffix, sweep
from analyses.patching.cells import Patch
from analyses.patching.exactness import has_suffixes
from analyses.patching.grids import Grid, units, wheres
from analyses.patching.recording import STREAM, record
from analyses.patching.suffix import suffix_logits
from analyses.prompts import Prompt

CORES = len(os.sched_getaffinity(0))
LENGTH, CONTRAST = 24, 10
SHAPES = {
    "cpu": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8,
            "num_key_value_heads": 8, "vocab_size": 8192},
    "cuda": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
             "num_key_value_heads": 8, "vocab_size": 128_256},
    "memory": {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 16,
               "num_key_value_heads": 16, "vocab_size": 8192},
}  # fmt: skip
PROMPTS = {"cpu": 16, "cuda": 64}
MAPS = {
    "layer × position, `resid_pre`": (Grid("resid_pre"), "get_act_patch_resid_pre"),
    "layer × head, `z`": (Grid("z", "all"), "get_act_patch_attn_head_out_all_pos"),
}
Differences = torch.Tensor
"""Logit differences of the patched runs, ``[cell, prompt]``, cells layer by layer."""


@dataclass
class Line:
    """Seconds of each round, and what was found, of ours and of a peer."""

    ours: list[float] = field(default_factory=list)
    cells: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)
    apart: float = 0.0

    def ratios(self, seconds: Sequence[float]) -> str:
        """The median over rounds of the peer's time by ``seconds``, and those of the rounds."""
        found = [peer / mine for peer, mine in zip(self.peer, seconds, strict=True)]
        return f"{statistics.median(found):.1f} ({', '.join(f'{one:.1f}' for one in found)})"


def make_model(shape: str, device: str = "cpu", dtype: str = "float32") -> LoadedModel:
    config = transformers.LlamaConfig(
        **SHAPES[shape], max_position_embeddings=256, bos_token_id=0, eos_token_id=0, tie_word_embeddings=False
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).eval()
    return wrap(model, load_tokenizer(ModelSpec("embedded:code")), "Llama, random weights")


def make_prompts(loaded: LoadedModel, count: int, length: int = LENGTH) -> list[Prompt]:
    """Random tokens, with answers that the random model gives: so that every prompt is retained as right in both texts."""
    vocabulary = loaded.model.config.vocab_size
    clean = torch.randint(1, vocabulary, (count, length), generator=torch.Generator().manual_seed(1))
    corrupted = clean.clone()
    corrupted[:, CONTRAST] = clean[:, CONTRAST] % (vocabulary - 1) + 1
    with torch.inference_mode():
        ends = [
            torch.stack([loaded.model(ids[None].to(loaded.device)).logits[0, -1].float().cpu() for ids in texts])
            for texts in (clean, corrupted)
        ]
    found = []
    for number, (right, wrong) in enumerate(zip(*ends, strict=True)):
        rising, falling = ((right - wrong) * sign for sign in (1, -1))
        answers, contrasts = rising.topk(256).indices, falling.topk(256).indices
        margins = torch.minimum(
            right[answers, None] - right[contrasts], wrong[contrasts] - wrong[answers, None]
        )  # how clearly each pair of answers is right in both texts
        row, column = divmod(int(margins.argmax()), len(contrasts))
        answer, contrast = int(answers[row]), int(contrasts[column])
        found.append(
            Prompt(
                str(number), "random", 0, tuple(clean[number].tolist()), tuple(corrupted[number].tolist()), answer,
                contrast, tuple(sorted((answer, contrast))), tuple(map(str, clean[number].tolist())),
                ("body",) * (length - 1) + ("last",),
            )
        )  # fmt: skip
    return found


def ours(loaded: LoadedModel, prompts: Sequence[Prompt], grid: Grid) -> Differences:
    """``patch_prompts``, as the command calls it."""
    done = sweep.patch_prompts(loaded, prompts, grids=(grid,), max_items=len(prompts))
    assert set(done.retention.status) == {"retained"}, "the model does not give the answers made for it"
    by_item = [part.logit_difference.to_numpy() for _, part in done.cells.groupby("item", sort=False)]
    return torch.tensor(np.stack(by_item, 1))


def cells_alone(loaded: LoadedModel, prompts: Sequence[Prompt], grid: Grid) -> Differences:
    """Both runs of every prompt, all cells of the grid, and their logit differences."""
    sites = [Site(grid.site, layer) for layer in range(loaded.n_layers) if grid.site not in STREAM]
    chosen = units(loaded, grid)
    suffixes = has_suffixes(loaded, prompts[0].clean)
    found = []
    for prompt in prompts:
        clean, corrupted = (record(loaded, ids, sites, suffixes=suffixes) for ids in (prompt.clean, prompt.corrupted))
        cells = [
            tuple(
                Patch(site, where.positions, clean.at(Site(site.name, site.layer))[list(where.positions)][:, unit.columns],
                      unit.columns)
                for site in unit.sites
            )
            for unit in chosen for where in wheres(prompt, grid.by)
        ]  # fmt: skip
        found.append(prompt.logit_difference(suffix_logits(loaded, corrupted, cells)).float())
    return torch.stack(found, 1).cpu()


def transformer_lens(loaded: LoadedModel, prompts: Sequence[Prompt], function: str) -> Callable[[], Differences]:
    """A loop over the cells of the map with all prompts in one batch; eager attention, as TransformerLens sets it."""
    from transformer_lens import patching
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    model = deepcopy(loaded.model)
    model.set_attn_implementation("eager")
    bridge = build_bridge_from_module(model, type(model).__name__, hf_config=model.config).eval()
    bridge.cfg.device = str(loaded.device)  # where it keeps its results
    clean, corrupted = (torch.tensor(texts, device=loaded.device) for texts in zip(*map(both, prompts), strict=True))
    answers, contrasts = (
        torch.tensor(tokens, device=loaded.device)
        for tokens in zip(*((prompt.answer, prompt.contrast) for prompt in prompts), strict=True)
    )
    rows = torch.arange(len(prompts), device=loaded.device)

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return (logits[rows, -1, answers] - logits[rows, -1, contrasts]).float()

    def loop() -> Differences:
        with torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):  # without its progress bar
            _, cache = bridge.run_with_cache(clean)
            found = getattr(patching, function)(bridge, corrupted, cache, metric, reduce="none")
        return found.values.flatten(0, 1).cpu()

    return loop


def nnsight_loop(loaded: LoadedModel, prompts: Sequence[Prompt]) -> Callable[[], Differences]:
    """Layer × position of ``resid_pre``: per prompt a trace for the clean run, and one with an invoke per cell."""
    import nnsight

    model = nnsight.TransformersModel(
        deepcopy(loaded.model), tokenizer=deepcopy(loaded.tokenizer), task="text-generation"
    )
    layers = list(range(loaded.n_layers))

    def loop() -> Differences:
        found = []
        for prompt in prompts:
            clean, corrupted = (torch.tensor([ids]) for ids in both(prompt))
            answer, contrast = prompt.answer, prompt.contrast
            with torch.no_grad(), model.trace(clean):
                given = nnsight.save([])
                for layer in layers:
                    given.append(model.model.layers[layer].input)
            with torch.no_grad(), model.trace() as tracer:
                differences = nnsight.save([])
                for layer in layers:
                    for position in range(LENGTH):
                        with tracer.invoke(corrupted):
                            model.model.layers[layer].input[:, position] = given[layer][:, position]
                            last = model.lm_head.output[0, -1]
                            differences.append(last[answer] - last[contrast])
            found.append(torch.stack(differences))
        return torch.stack(found, 1)

    return loop


def both(prompt: Prompt) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids of both texts."""
    return prompt.clean, prompt.corrupted


def timed(call: Callable[[], Differences], device: str) -> tuple[float, Differences]:
    """Seconds of one call, to the end of what it asked the device for, and what it gave."""
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    found = call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began, found


def race(loaded: LoadedModel, prompts: Sequence[Prompt], chosen: argparse.Namespace, threads: int) -> None:
    """The lines of the table for one number of threads."""
    shape, few = chosen.device, prompts[: chosen.nnsight_prompts]
    contenders = [
        (name, "TransformerLens", grid, transformer_lens(loaded, prompts, function), 1.0)
        for name, (grid, function) in MAPS.items()
    ]
    if few and shape == "cpu":
        grid, _ = MAPS["layer × position, `resid_pre`"]
        scale = len(prompts) / len(few)
        contenders.append(("layer × position, `resid_pre`", "nnsight", grid, nnsight_loop(loaded, few), scale))
    lines = [Line() for _ in contenders]
    for _, _, grid, _, _ in contenders:
        cells_alone(loaded, prompts[:1], grid)  # warm up
    if shape == "cuda":
        contenders[0][3]()
    largest = 0.0
    for _ in range(chosen.rounds):
        for line, (_, _, grid, peer, scale) in zip(lines, contenders, strict=True):
            seconds, found = timed(partial(ours, loaded, prompts, grid), shape)
            line.ours.append(seconds)
            seconds, alone = timed(partial(cells_alone, loaded, prompts, grid), shape)
            line.cells.append(seconds)
            seconds, theirs = timed(peer, shape)
            line.peer.append(seconds * scale)
            line.apart = max(
                line.apart,
                float((found.float() - alone).abs().max()),
                float((found[:, : theirs.shape[1]].float() - theirs).abs().max()),
            )
            largest = max(largest, float((found.amax(0) - found.amin(0)).max()))
    for line, (name, whose, _, _, scale) in zip(lines, contenders, strict=True):
        scaled = "" if scale == 1.0 else f" (scaled from {len(few)} of {len(prompts)} prompts)"
        print(
            f"| {name} | {whose} | {threads} | {statistics.median(line.peer):.1f} s{scaled} | "
            f"{statistics.median(line.ours):.1f} s | {line.ratios(line.ours)} | {line.ratios(line.cells)} | "
            f"{line.apart:.0e} |",
            flush=True,
        )
    print(f"<!-- the cells of a map and prompt differ by up to {largest:.2g} logits -->", flush=True)


MEMORY_LENGTH = 64
"""Tokens of the prompt whose heads are patched position by position: 4 layers × 16 heads × 64 positions."""


def field_of_status(name: str) -> float:
    """Megabytes, as the system counts them."""
    with open("/proc/self/status", encoding="utf-8") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def memory_task(times: int) -> None:
    """In a process of its own: the map ``times`` times over; prints cells, peak over the model's own, seconds."""
    torch.set_num_threads(CORES)
    loaded = make_model("memory")
    prompts = make_prompts(loaded, 1, MEMORY_LENGTH)
    sweep.patch_prompts(loaded, prompts, grids=(Grid("resid_pre", "all"),), max_items=1)
    noted = field_of_status("VmRSS")
    with open("/proc/self/clear_refs", "w", encoding="utf-8") as refs:
        refs.write("5")  # VmHWM begins anew
    began = time.perf_counter()
    done = sweep.patch_prompts(loaded, prompts, grids=(Grid("z"),) * times, max_items=1)
    print(len(done.cells), field_of_status("VmHWM") - noted, time.perf_counter() - began)


def budget() -> float:
    """Megabytes that the limits allow the largest tensors of the memory table's model, in float32.

    In one block call the stream, the attention's four and the MLP's three widths for every slot; keys and values twice
    (before and after they are put together); then, with nothing of that left, logits, and four tensors of their size in
    the metrics. Beside either, the donated activations of a lot of cells, and what is kept of them.
    """
    shape = SHAPES["memory"]
    width, inner = shape["hidden_size"], shape["intermediate_size"]
    block = suffix.MAX_TOKENS * (6 * width + 3 * inner) + suffix.MAX_SEEN * 4 * width
    cells = 3 * sweep.MAX_CELLS * width // shape["num_attention_heads"]
    return 4 * (max(block, 5 * suffix.MAX_LOGITS) + cells) / 2**20


def memory() -> None:
    """The table of memory."""
    print("\n| cells of one prompt | peak over the model's own | seconds |\n|---|---|---|")
    peaks = []
    for times in (1, 10):
        task = [sys.executable, __file__, "--memory-task", str(times)]
        done = subprocess.run(task, stdout=subprocess.PIPE, text=True, check=True)
        cells, peak, seconds = map(float, done.stdout.split())
        peaks.append(peak)
        print(f"| {cells:,.0f} | {peak:,.0f} MB | {seconds:.0f} |", flush=True)
    limits = ", ".join(
        f"{name} {value:,}"
        for name, value in (
            ("MAX_TOKENS", suffix.MAX_TOKENS), ("MAX_SEEN", suffix.MAX_SEEN), ("MAX_LOGITS", suffix.MAX_LOGITS),
            ("MAX_CELLS", sweep.MAX_CELLS),
        )
    )  # fmt: skip
    print(f"\nten times the cells: {peaks[1] / peaks[0] - 1:+.1%}; the budget ({limits}): {budget():,.0f} MB")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, CORES}), help="on the CPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, help="16 on the CPU and 64 on a GPU, unless given")
    parser.add_argument("--nnsight-prompts", type=int, default=1, help="its time is scaled up; 0 leaves it out")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--no-memory", action="store_true", help="leave out the table of memory, which is of the CPU's")
    parser.add_argument("--memory-task", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Print the tables."""
    chosen = arguments()
    if chosen.memory_task:
        memory_task(chosen.memory_task)
        return
    if chosen.device == "cuda" and not torch.cuda.is_available():
        sys.exit("--device cuda: torch sees no GPU here; run it on a machine with one, or leave the option out")
    loaded = make_model(chosen.device, chosen.device, chosen.dtype)
    prompts = make_prompts(loaded, chosen.prompts or PROMPTS[chosen.device])
    where = torch.cuda.get_device_name() if chosen.device == "cuda" else f"{CORES} cores of {processor()}"
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "transformer-lens", "nnsight"))
    shape = SHAPES[chosen.device]
    print(
        f"{where}; Python {platform.python_version()}, {packages}; {datetime.datetime.now(datetime.UTC).date()}. Llama of "
        f"{shape['num_hidden_layers']} layers × {shape['hidden_size']}, {shape['num_attention_heads']} heads "
        f"({shape['num_key_value_heads']} of keys), vocabulary {shape['vocab_size']:,}, {chosen.dtype}; {len(prompts)} "
        f"prompts of {LENGTH} tokens, contrast at {CONTRAST}; {chosen.rounds} rounds. Ratio: median (per round).\n"
    )
    print(
        "| map | peer | threads | peer | twinprobe | ratio | ratio, cells alone | largest difference |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    for threads in chosen.threads if chosen.device == "cpu" else [torch.get_num_threads()]:
        torch.set_num_threads(threads)
        race(loaded, prompts, chosen, threads)
    if chosen.device == "cpu" and not chosen.no_memory:
        memory()


def processor() -> str:
    """The processor's name as the system gives it."""
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
