"""Capture: run a model over texts and write the rows asked for into a store."""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activations.engines import Engine, make_engine
from activations.errors import TwinprobeError
from activations.files import disk_full
from activations.hdf5 import STORED_BYTES
from activations.inputs import Encoded, batches, pad, pad_id
from activations.models import LoadedModel
from activations.overlong import fit
from activations.rows import RowRule, selection
from activations.shards import Recipe, run_shard
from activations.sites import Site
from activations.store import ActivationStore
from activations.texts import Text, text_set_hash
from activations.writer import BackgroundWriter, StoreWriter

SHARD_BYTES = 64 * 2**20
"""Activations per shard. Three shards are in memory at a time: one being computed, two being written."""
SHARD_TOKENS = 2**17
"""Tokens read per shard: a killed run has at most this much to do again, however few rows are kept."""


@dataclass(frozen=True)
class Estimate:
    """What a capture will write. ``padded`` counts tokens with the padding of their batches."""

    texts: int
    tokens: int
    padded: int
    rows: int
    bytes: int


@dataclass(frozen=True, eq=False)
class Job:
    """All that a capture needs to know.

    ``counts`` are the rows each text gives, ``shards`` ranges of texts; ``provenance`` goes into the store.
    """

    loaded: LoadedModel
    engine: Engine
    encoded: list[Encoded]
    counts: list[int]
    recipe: Recipe
    shards: tuple[range, ...]
    provenance: dict[str, Any]

    @property
    def texts(self) -> list[Text]:
        """The texts as they are read."""
        return [item.text for item in self.encoded]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row over all sites."""
        return sum(self.engine.width(site) for site in self.recipe.sites) * STORED_BYTES[self.recipe.dtype]

    def rows(self, texts: range) -> int:
        """Rows that these texts give."""
        return sum(self.counts[texts.start : texts.stop])

    def estimate(self) -> Estimate:
        """Count what :func:`run` will write, without running the model."""
        rows = self.rows(range(len(self.encoded)))
        padded = sum(
            len(batch) * max(len(self.encoded[shard[i]]) for i in batch)
            for shard in self.shards
            for batch in self._batches(shard)
        )
        tokens = sum(len(item) for item in self.encoded)
        return Estimate(len(self.encoded), tokens, padded, rows, rows * self.row_bytes)

    def _batches(self, shard: range) -> list[list[int]]:
        return batches([len(self.encoded[i]) for i in shard], self.recipe.batch_tokens)

    def seconds(self) -> float:
        """How long the forward passes will take here, from running one batch of the middle shard twice."""
        shard = self.shards[len(self.shards) // 2]
        found = self._batches(shard)
        probe = [self.encoded[shard[i]] for i in found[len(found) // 2]]
        ids, mask = pad([item.tokens for item in probe], self.recipe.pad_id, self.loaded.device)
        select = selection([self.recipe.rule.plan(item) for item in probe], self.recipe.rule.pool)
        for _ in range(2):  # the first warms up
            began = time.perf_counter()
            rows = self.engine.forward(ids, mask, self.recipe.sites, lambda tensor: select(tensor).cpu())
            taken = time.perf_counter() - began
            del rows
        return taken * self.estimate().padded / ids.numel()


def capture(
    loaded: LoadedModel,
    texts: Sequence[Text],
    sites: Sequence[Site],
    out: str | Path,
    *,
    bos: bool,
    rows: str = "tokens",
    pool: str = "last",
    positions: Sequence[int] = (),
    dtype: str = "float32",
    overlong: str = "error",
    batch_tokens: int = 8192,
    engine: str = "auto",
    remote: bool = False,
    workers: int = 0,
    ray_address: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    notice: Callable[[str], None] = warnings.warn,
) -> ActivationStore:
    """Write the activations of ``loaded`` over ``texts`` into the store ``out``, keeping its finished shards.

    Args:
        loaded: the model; it is not changed.
        texts: what to run, one forward pass each, right-padded in batches of at most ``batch_tokens`` tokens.
        sites: what to keep (see :meth:`activations.models.LoadedModel.sites`).
        out: the store's folder.
        bos: whether BOS is prepended (see :func:`activations.inputs.resolve_bos`).
        rows: ``tokens`` (every token of the text's own), ``last`` (the last of them), ``positions`` (the given
            ``positions``), or ``spans`` (one row per span).
        pool: how a span of several tokens becomes a row: its ``last`` or ``first`` token, or their ``mean`` or ``max``.
        positions: tokens to keep, from 0 or, if negative, from the end; BOS does not count.
        dtype: storage type, ``float32``, ``float16`` or ``bfloat16``; must be able to hold the compute type.
        overlong: what happens to texts longer than the context: ``error``, ``truncate`` or ``split``
            (see :func:`activations.overlong.fit`).
        batch_tokens: padded tokens per forward pass.
        engine: ``auto``, ``hooks``, ``transformer_lens`` or ``nnsight`` (see :mod:`activations.engines`).
        remote: run the nnsight engine on NDIF.
        workers: spread the shards over this many Ray workers, each with a copy of the model (extra ``cluster``).
        ray_address: the Ray cluster to use; without one a local cluster is started.
        progress: called with texts done and texts in all.
        notice: called with a sentence about anything that had to be mended, such as a damaged shard.

    Raises:
        TwinprobeError: an unknown option, a text that is too long, a site the model lacks, a storage type that would
            lose bits, another job's store at ``out``, another process writing it, or too little disk space.
    """
    job = prepare(
        loaded, texts, sites, bos=bos, rule=RowRule(rows, pool, tuple(positions)), dtype=dtype, overlong=overlong,
        batch_tokens=batch_tokens, engine=engine, remote=remote,
    )  # fmt: skip
    return run(job, out, workers=workers, ray_address=ray_address, progress=progress, notice=notice)


def prepare(
    loaded: LoadedModel,
    texts: Sequence[Text],
    sites: Sequence[Site],
    *,
    bos: bool,
    rule: RowRule,
    dtype: str = "float32",
    overlong: str = "error",
    batch_tokens: int = 8192,
    engine: str = "auto",
    remote: bool = False,
) -> Job:
    """Tokenise the texts, check everything that can be checked, and plan the shards; nothing is run or written.

    Arguments and errors are those of :func:`capture`.
    """
    if dtype not in STORED_BYTES:
        raise TwinprobeError(f"storage dtype {dtype!r} is not known; expected one of {', '.join(STORED_BYTES)}")
    compute = str(loaded.model.dtype).removeprefix("torch.")
    if dtype not in (compute, "float32"):
        raise TwinprobeError(
            f"storage dtype {dtype} would lose bits of the {compute} activations; "
            f"store {' or '.join(dict.fromkeys((compute, 'float32')))}"
        )
    if rule.averaged and dtype != "float32":
        raise TwinprobeError(
            f"means are taken in float32, which storage dtype {dtype} would lose bits of; store float32"
        )
    fitted = fit(loaded.tokenizer, texts, bos, loaded.context, overlong, loaded.closing)
    encoded = fitted.encoded
    if not encoded:
        raise TwinprobeError("no texts to capture")
    _check_names(encoded)
    counts = [len(rule.plan(item).counts) for item in encoded]
    if not any(counts):
        raise TwinprobeError("no rows to capture: no text has a span; use --rows tokens or --rows last")
    longest = max(len(item) for item in encoded)
    reader = make_engine(loaded, sites, engine, longest=longest, remote=remote)
    recipe = Recipe(tuple(sites), rule, dtype, batch_tokens, pad_id(loaded.tokenizer))
    row_bytes = sum(reader.width(site) for site in sites) * STORED_BYTES[dtype]
    provenance = {
        "model": loaded.provenance(),
        "engine": reader.name,
        "attention_kernel": "eager" if reader.name == "transformer_lens" else loaded.model.config._attn_implementation,
        "texts": text_set_hash(item.text for item in encoded),
        "overlong": {"rule": overlong, "texts": fitted.overlong, "lost_spans": fitted.lost_spans},
        "sites": [str(site) for site in sites],
        "rows": rule.rows,
        "pool": rule.pool,
        "positions": list(rule.positions),
        "bos": bos,
        "closing": loaded.closing,
        "padding": "right",
        "storage_dtype": dtype,
        "shard_bytes": SHARD_BYTES,
        "shard_tokens": SHARD_TOKENS,
    }
    shards = _plan_shards([count * row_bytes for count in counts], [len(item) for item in encoded])
    return Job(loaded, reader, encoded, counts, recipe, shards, provenance)


def run(
    job: Job,
    out: str | Path,
    *,
    workers: int = 0,
    ray_address: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    notice: Callable[[str], None] = warnings.warn,
) -> ActivationStore:
    """Do a job: capture what ``out`` does not hold yet, writing each shard while the next is computed.

    Arguments and errors are those of :func:`capture`.
    """
    if workers:
        from activations.cluster import require_ray, run_on_ray

        require_ray(job)
    with StoreWriter(out, job.provenance, job.texts, len(job.shards)) as writer:
        missing = writer.missing(notice)
        _check_space(writer.path, sum(job.rows(job.shards[number]) for number in missing) * job.row_bytes)
        total = len(job.encoded)
        done = total - sum(len(job.shards[number]) for number in missing)
        progress(done, total)
        if workers:
            run_on_ray(
                job, writer.path, missing, workers, ray_address, lambda more: progress(done + more, total), notice
            )
        else:
            with BackgroundWriter(writer.write) as background:
                for number in missing:
                    part = job.shards[number]

                    def advance(count: int, before: int = done) -> None:
                        progress(before + count, total)

                    texts = job.encoded[part.start : part.stop]
                    background.put(
                        number, run_shard(job.engine, job.loaded.device, job.recipe, texts, part.start, advance)
                    )
                    done += len(part)
        return writer.finish(changed=bool(missing))


def _check_names(encoded: Sequence[Encoded]) -> None:
    seen: set[str] = set()
    for item in encoded:
        if item.text.id in seen:
            raise TwinprobeError(f"two texts have the id {item.text.id!r}; ids must be unique")
        seen.add(item.text.id)


def _check_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path).free
    if needed > free:
        raise disk_full(path, f"this capture needs {needed / 1e6:,.1f} MB and {free / 1e6:,.1f} MB are free")


def _plan_shards(text_bytes: Sequence[int], text_tokens: Sequence[int]) -> tuple[range, ...]:
    """Cut the texts into runs within both limits; a function of the job alone, so that a resume cuts alike."""
    shards: list[range] = []
    start = size = tokens = 0
    for index, (more, longer) in enumerate(zip(text_bytes, text_tokens, strict=True)):
        if index > start and (size + more > SHARD_BYTES or tokens + longer > SHARD_TOKENS):
            shards.append(range(start, index))
            start, size, tokens = index, 0, 0
        size, tokens = size + more, tokens + longer
    shards.append(range(start, len(text_bytes)))
    return tuple(shards)
