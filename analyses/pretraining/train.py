"""Train the runs of a design: seeded, checkpointed, resumed after a kill to the same loss curve."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from activations.errors import TwinprobeError
from activations.files import write_whole
from analyses.pretraining.corpora import Document, read_corpora
from analyses.pretraining.design import Design, Kind, Run
from analyses.pretraining.packing import Blocks, mixture, pack, train_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

Report = Callable[[str, int, int, str], None]
"""Progress: what is done, steps done, steps in all, a short note."""

EVALUATION_BLOCKS = 64


@dataclass(frozen=True)
class Prepared:
    """Tokenizer and packed data, shared by the runs of one seed."""

    tokenizer: PreTrainedTokenizerFast
    training: dict[Kind, Blocks]
    held_out: dict[Kind, Blocks]
    bytes_per_token: dict[Kind, float]


def prepare(design: Design, data_dir: Path, out: Path, seed: int, report: Report) -> Prepared:
    """Read the corpora, train the tokenizer once per design (seed 0), pack the blocks in the order of ``seed``.

    Raises:
        TwinprobeError: data is missing or damaged, or does not fill a block of a kind that a run needs.
    """
    from transformers import PreTrainedTokenizerFast

    report("reading data", 0, 1, "")
    training, held_out = read_corpora(design.data, data_dir)
    folder = out / "tokenizer"
    if not (folder / "tokenizer.json").exists():
        report("training the tokenizer", 0, 1, "")
        tokenizer = train_tokenizer(training, design.tokenizer.vocabulary, design.tokenizer.bytes_per_kind, seed=0)
        tokenizer.model_max_length = design.architecture.context
        temporary = out / "tokenizer.tmp"
        tokenizer.save_pretrained(temporary)
        temporary.rename(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    context = design.architecture.context
    packed = pack(training, tokenizer, context, seed, lambda done, total: report("tokenising", done, total, ""))
    for run in design.run:
        for kind, share in (("prose", 1 - run.code_share), ("code", run.code_share)):
            if share > 0 and kind not in packed:
                raise TwinprobeError(
                    f"{data_dir}: the {kind} to train on does not fill one block of {context} tokens, but run "
                    f"{run.name!r} needs some; give more data or hold out less"
                )
    evaluation = pack(held_out, tokenizer, context, seed=0)
    return Prepared(tokenizer, packed, evaluation, _bytes_per_token(held_out, evaluation))


def _bytes_per_token(documents: Sequence[Document], blocks: dict[Kind, Blocks]) -> dict[Kind, float]:
    return {
        kind: sum(len(document.text.encode()) for document in documents if document.kind == kind) / blocks[kind].size
        for kind in blocks
    }


def new_model(design: Design, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A randomly initialised Llama-shaped decoder; the same seed gives the same weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = design.architecture
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    return LlamaForCausalLM(config)


def learning_rate(step: int, steps: int, peak: float, warmup: float) -> float:
    """Linear warm-up over the first ``warmup`` share of the steps, then cosine decay to a tenth of ``peak``."""
    rise = max(1, int(steps * warmup))
    if step < rise:
        return peak * (step + 1) / rise
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise))))


def train_run(design: Design, run: Run, prepared: Prepared, out: Path, report: Report) -> Path:
    """Train one run into ``out/<run name>``; return the folder of the finished model.

    A checkpoint is written every ``checkpoint_every`` steps under a temporary name and renamed; a killed run starts
    again from it with the same data order, so the loss curve continues as if nothing had happened.
    """
    import torch

    folder = out / run.name
    finished = folder / "model"
    if (finished / "model.safetensors").exists():
        return finished
    folder.mkdir(parents=True, exist_ok=True)
    settings = design.training
    model = new_model(design, prepared.tokenizer, run.seed)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=settings.weight_decay, fused=True
    )
    order, epochs = mixture(prepared.training, run.code_share, design.steps * settings.batch)
    start, losses = 0, []
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        start, losses = state["step"], state["losses"]
    loss_of = _loss_function(model, settings.precision)
    step_loss = torch.compile(loss_of) if settings.compile else loss_of
    began = time.monotonic()
    for step in range(start, design.steps):
        chosen = order[step * settings.batch : (step + 1) * settings.batch]
        batch = torch.from_numpy(np.stack([prepared.training[kind][row] for kind, row in chosen]).astype(np.int64))
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, design.steps, settings.learning_rate, settings.warmup)
        loss = step_loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
        if (step + 1) % settings.checkpoint_every == 0:
            _write_checkpoint(
                checkpoint,
                {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1, "losses": losses},
            )
        left = (time.monotonic() - began) / (step + 1 - start) * (design.steps - step - 1)
        report(run.name, step + 1, design.steps, f"loss {np.mean(losses[-50:]):.3f}, {left / 60:.1f} min left")
    model = model.to(torch.bfloat16)
    held_out = {kind: _bits_per_byte(model, prepared, kind) for kind in prepared.held_out}
    _finish(design, run, model, prepared, folder, losses, epochs, held_out)
    checkpoint.unlink(missing_ok=True)
    return finished


def _loss_function(model: LlamaForCausalLM, precision: str) -> Callable[[torch.Tensor], torch.Tensor]:
    import torch

    def loss(batch: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            logits = model(input_ids=batch, use_cache=False).logits
        flat = logits[:, :-1].reshape(-1, logits.shape[-1]).float()
        return torch.nn.functional.cross_entropy(flat, batch[:, 1:].reshape(-1))

    return loss


def _write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    import torch

    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as handle:
        torch.save(state, handle)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)


def _bits_per_byte(model: LlamaForCausalLM, prepared: Prepared, kind: Kind) -> float:
    """Bits per byte of the finished bfloat16 weights, computed in float32, on held-out blocks."""
    import torch

    loss = _loss_function(model.float(), "float32")
    rows = torch.from_numpy(prepared.held_out[kind][:EVALUATION_BLOCKS].astype(np.int64))
    with torch.inference_mode():
        nats = float(np.mean([loss(part).item() for part in rows.split(16)]))
    model.to(torch.bfloat16)
    return nats / math.log(2) / prepared.bytes_per_token[kind]


def _finish(
    design: Design,
    run: Run,
    model: LlamaForCausalLM,
    prepared: Prepared,
    folder: Path,
    losses: list[float],
    epochs: dict[Kind, float],
    held_out: dict[Kind, float],
) -> None:
    """Write weights, tokenizer, loss curve and model card under a temporary name, then rename."""
    from analyses.pretraining.card import model_card

    temporary = folder / "model.tmp"
    model.save_pretrained(temporary)
    prepared.tokenizer.save_pretrained(temporary)
    curve = pd.DataFrame({"step": np.arange(1, len(losses) + 1), "loss": np.round(losses, 4)})
    curve[(curve.step % 10 == 0) | (curve.step == len(losses))].to_csv(temporary / "loss.csv", index=False)
    facts = {
        "design": design.name,
        "run": run.model_dump(),
        "tokens": design.steps * design.training.batch * design.architecture.context,
        "steps": design.steps,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "epochs": {kind: round(value, 3) for kind, value in epochs.items()},
        "final_loss": round(float(np.mean(losses[-100:])), 4),
        "held_out_bits_per_byte": {kind: round(value, 4) for kind, value in held_out.items()},
    }
    (temporary / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    (temporary / "README.md").write_text(model_card(design, facts, losses))
    temporary.rename(folder / "model")


def train_design(
    design: Design, data_dir: Path, out: Path, report: Report, only: Sequence[str] = ()
) -> dict[str, Path]:
    """Train every run of the design, or those named in ``only``; return the folder of each model.

    Raises:
        TwinprobeError: ``only`` names an unknown run, ``out`` holds another design, or see :func:`prepare`.
    """
    known = [run.name for run in design.run]
    unknown = [name for name in only if name not in known]
    if unknown:
        raise TwinprobeError(
            f"run {unknown[0]!r} is not in the design {design.name!r}; its runs are {', '.join(known)}"
        )
    out.mkdir(parents=True, exist_ok=True)
    record, text = out / "design.json", design.model_dump_json(indent=2)
    if record.exists() and record.read_text() != text:
        raise TwinprobeError(f"{out} holds runs of another design; choose another --out or remove the folder")
    if not record.exists():
        write_whole(record, text.encode())
    folders: dict[str, Path] = {}
    prepared: dict[int, Prepared] = {}
    for run in design.run:
        if only and run.name not in only:
            continue
        if not (out / run.name / "model" / "model.safetensors").exists() and run.seed not in prepared:
            prepared = {run.seed: prepare(design, data_dir, out, run.seed, report)}
        folders[run.name] = (
            train_run(design, run, prepared[run.seed], out, report)
            if run.seed in prepared
            else (out / run.name / "model")
        )
    return folders
