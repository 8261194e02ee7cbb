"""Capture: run a model over texts and write the rows asked for into a store."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from activations.engines.hooks import forward, locate, width
from activations.errors import TwinprobeError
from activations.files import disk_full
from activations.hdf5 import STORED_BYTES
from activations.inputs import Encoded, batches, encode, pad, pad_id
from activations.models import LoadedModel
from activations.sites import Site
from activations.store import INPUT_COLUMNS, ROW_COLUMNS, ActivationStore, Shard, StoreWriter
from activations.texts import Text, to_dict

if TYPE_CHECKING:
    import torch

ROWS = ("tokens", "last", "spans")
POOLS = ("last", "first", "mean")
SHARD_BYTES = 64 * 2**20
"""Activations per shard; about three times as much memory is used to write one."""


@dataclass(frozen=True)
class Row:
    """One row to be: the token positions it is pooled from, and the span it stands for (-1 for none)."""

    positions: tuple[int, ...]
    span: int = -1


@dataclass(frozen=True)
class Estimate:
    """What a capture will write."""

    texts: int
    tokens: int
    rows: int
    bytes: int


def capture(
    loaded: LoadedModel,
    texts: Sequence[Text],
    sites: Sequence[Site],
    out: str | Path,
    *,
    bos: bool,
    rows: str = "tokens",
    pool: str = "last",
    dtype: str = "float32",
    batch_tokens: int = 8192,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ActivationStore:
    """Write the activations of ``loaded`` over ``texts`` into the store ``out``, keeping its finished shards.

    Args:
        loaded: the model; it is not changed.
        texts: what to run, one forward pass each, right-padded in batches of at most ``batch_tokens`` tokens.
        sites: what to keep (see :func:`activations.sites.parse_sites`).
        out: the store's folder.
        bos: whether BOS is prepended (see :func:`activations.inputs.resolve_bos`).
        rows: ``tokens`` (every token but BOS), ``last`` (the last token), or ``spans`` (one row per span).
        pool: how a span of several tokens becomes a row: its ``last`` or ``first`` token, or their ``mean``.
        dtype: storage type, ``float32``, ``float16`` or ``bfloat16``; must be able to hold the compute type.
        batch_tokens: padded tokens per forward pass.
        progress: called with texts done and texts in all.

    Raises:
        TwinprobeError: an unknown option, a text that is too long, a site the model lacks, a storage type that would
            lose bits, another job's store at ``out``, or too little disk space.
    """
    encoded = encode(loaded.tokenizer, texts, bos, loaded.context)
    wanted = [plan_rows(item, rows, pool, bos) for item in encoded]
    _check(loaded, sites, dtype, wanted)
    row_bytes = sum(width(loaded, site) for site in sites) * STORED_BYTES[dtype]
    shards = _plan_shards([len(part) for part in wanted], row_bytes)
    provenance = {
        "model": loaded.provenance(),
        "texts": text_set_hash(texts),
        "sites": [str(site) for site in sites],
        "rows": rows,
        "pool": pool,
        "bos": bos,
        "padding": "right",
        "storage_dtype": dtype,
    }
    writer = StoreWriter(out, provenance, texts, len(shards))
    missing = [number for number in range(len(shards)) if not writer.has(number)]
    _check_space(writer.path, sum(len(wanted[i]) for number in missing for i in shards[number]) * row_bytes)
    done = sum(len(shard) for number, shard in enumerate(shards) if number not in missing)
    progress(done, len(texts))
    for number in missing:

        def advance(count: int, before: int = done) -> None:
            progress(before + count, len(texts))

        writer.write(number, _run_shard(loaded, encoded, wanted, shards[number], sites, dtype, batch_tokens, advance))
        done += len(shards[number])
    return ActivationStore(writer.path) if not missing and (writer.path / "index.h5").exists() else writer.finish()


def estimate(
    loaded: LoadedModel, texts: Sequence[Text], sites: Sequence[Site], *, bos: bool, rows: str, dtype: str
) -> Estimate:
    """Count what :func:`capture` would write, without running the model."""
    encoded = encode(loaded.tokenizer, texts, bos, loaded.context)
    wanted = [plan_rows(item, rows, "last", bos) for item in encoded]
    _check(loaded, sites, dtype, wanted)
    n_rows = sum(len(part) for part in wanted)
    row_bytes = sum(width(loaded, site) for site in sites) * STORED_BYTES[dtype]
    return Estimate(len(texts), sum(len(item.ids) for item in encoded), n_rows, n_rows * row_bytes)


def plan_rows(encoded: Encoded, rows: str, pool: str, bos: bool) -> list[Row]:
    """The rows of one text, in order of position (``tokens``, ``last``) or of its spans (``spans``)."""
    if rows not in ROWS:
        raise TwinprobeError(f"rows {rows!r} is not known; expected one of {', '.join(ROWS)}")
    if pool not in POOLS:
        raise TwinprobeError(f"pool {pool!r} is not known; expected one of {', '.join(POOLS)}")
    if rows == "last":
        return [Row((len(encoded.ids) - 1,))]
    if rows == "tokens":
        return [Row((position,)) for position in range(int(bos), len(encoded.ids))]
    found = []
    for number, span in enumerate(encoded.text.spans):
        positions = encoded.positions(span)
        kept = {"last": positions[-1:], "first": positions[:1], "mean": positions}[pool]
        found.append(Row(tuple(kept), number))
    return found


def text_set_hash(texts: Sequence[Text]) -> str:
    """SHA-256 over the texts with their spans, in order."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(json.dumps(to_dict(text), sort_keys=True).encode() + b"\n")
    return digest.hexdigest()[:32]


def _check(loaded: LoadedModel, sites: Sequence[Site], dtype: str, wanted: Sequence[Sequence[Row]]) -> None:
    if dtype not in STORED_BYTES:
        raise TwinprobeError(f"storage dtype {dtype!r} is not known; expected one of {', '.join(STORED_BYTES)}")
    compute = str(loaded.model.dtype).removeprefix("torch.")
    if dtype not in (compute, "float32"):
        raise TwinprobeError(
            f"storage dtype {dtype} would lose bits of the {compute} activations; "
            f"store {' or '.join(dict.fromkeys((compute, 'float32')))}"
        )
    if not wanted:
        raise TwinprobeError("no texts to capture")
    if not any(wanted):
        raise TwinprobeError("no rows to capture: no text has a span; use --rows tokens or --rows last")
    for site in sites:
        locate(loaded, site)


def _check_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path).free
    if needed > free:
        raise disk_full(path, f"this capture needs {needed / 1e6:,.1f} MB and {free / 1e6:,.1f} MB are free")


def _plan_shards(rows_per_text: Sequence[int], row_bytes: int) -> list[range]:
    """Cut the texts into runs of at most ``SHARD_BYTES``; a function of the job alone, so a resume cuts alike."""
    shards: list[range] = []
    start, size = 0, 0
    for index, rows in enumerate(rows_per_text):
        if index > start and size + rows * row_bytes > SHARD_BYTES:
            shards.append(range(start, index))
            start, size = index, 0
        size += rows * row_bytes
    shards.append(range(start, len(rows_per_text)))
    return shards


def _run_shard(
    loaded: LoadedModel,
    encoded: Sequence[Encoded],
    wanted: Sequence[Sequence[Row]],
    texts: range,
    sites: Sequence[Site],
    dtype: str,
    batch_tokens: int,
    advance: Callable[[int], None],
) -> Shard:
    import torch

    starts = np.cumsum([0, *(len(wanted[i]) for i in texts)])
    total = int(starts[-1])
    columns = {name: np.full(total, -1, dtype=np.int64) for name in ROW_COLUMNS}
    kind = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[dtype]
    values = {site: torch.empty((total, width(loaded, site)), dtype=kind) for site in sites}
    done = 0
    for batch in batches([len(encoded[i].ids) for i in texts], batch_tokens):
        members = [texts[j] for j in batch]
        ids, mask = pad([encoded[i].ids for i in members], pad_id(loaded.tokenizer), loaded.device)
        found = forward(loaded, ids, mask, sites)
        for line, i in enumerate(members):
            first = int(starts[i - texts.start])
            for offset, row in enumerate(wanted[i]):
                last = row.positions[-1]
                start, end = encoded[i].offsets[row.positions[0]][0], encoded[i].offsets[last][1]
                entry = (i, last, encoded[i].ids[last], start, end, row.span)
                for name, value in zip(ROW_COLUMNS, entry, strict=True):
                    columns[name][first + offset] = value
            for site in sites:
                pooled = _pool(found[site][line], wanted[i])
                if kind != torch.float32 and pooled.dtype != kind:
                    raise TwinprobeError(
                        f"rows of {site} are {str(pooled.dtype).removeprefix('torch.')} (means are taken in float32), which "
                        f"storage dtype {dtype} would lose bits of; store float32"
                    )
                values[site][first : first + len(wanted[i])] = pooled.to("cpu", kind)
        done += len(members)
        advance(done)
    return Shard(columns, {site: _numpy(tensor) for site, tensor in values.items()}, _inputs(encoded, texts))


def _inputs(encoded: Sequence[Encoded], texts: range) -> dict[str, np.ndarray[Any, np.dtype[np.int64]]]:
    read = [
        (i, token, *offset) for i in texts for token, offset in zip(encoded[i].ids, encoded[i].offsets, strict=True)
    ]
    return dict(zip(INPUT_COLUMNS, np.array(read, dtype=np.int64).T, strict=True))


def _pool(activations: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
    """``[pos, width]`` to ``[rows, width]``: single positions are gathered, the rest averaged in float32."""
    import torch

    if all(len(row.positions) == 1 for row in rows):
        return activations[[row.positions[0] for row in rows]]
    return torch.stack([activations[list(row.positions)].float().mean(0) for row in rows])


def _numpy(tensor: torch.Tensor) -> Any:
    import torch

    return tensor.view(torch.uint16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
