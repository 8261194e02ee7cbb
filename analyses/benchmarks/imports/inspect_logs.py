"""Logs of inspect_ai: an EvalLog as one ``.json``, or a ``.eval`` archive of the same parts.

An EvalLog has version, status, eval (task, model, ...), results and samples; a sample has id, epoch and scores, by scorer, each
with a value: C, I, P or N (correct, incorrect, partial, no answer), a number, or a mapping of such. The archive, a ZIP file,
holds the same without the samples as ``header.json``, written when the run ends, and ``samples/ID_epoch_N.json``. Newer
ones are compressed by Zstandard, which Python's own zipfile reads from 3.14 on.
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from activations.errors import TwinprobeError
from analyses.benchmarks.imports.logs import Log, Wanted, choose, field, is_number, read_json

LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
ZSTANDARD = 93
"""Compression method of ZIP, APPNOTE 4.4.5."""
LOCAL_HEADER = struct.Struct("<26x2H")
"""Lengths of name and extra field, which follow the header of a file and precede its content (APPNOTE 4.3.7)."""
LOCAL = ("hf/", "vllm/", "sglang/", "transformer_lens/", "nnterp/")
"""Providers that run a model of the hub or a folder; what follows is its name."""


def read_inspect(path: Path, wanted: Wanted) -> Log:
    """Read one log; the epochs of a sample are averaged, as inspect_ai's own default reducer does.

    Raises:
        TwinprobeError: the log is damaged, its run did not end well, or the score to take is not clear.
    """
    log = _archive(path) if path.suffix == ".eval" else read_json(path)
    about = field(log, "eval", str(path))
    task, model = str(field(about, "task", f"{path}, eval")), str(field(about, "model", f"{path}, eval"))
    if log.get("status") != "success":
        raise TwinprobeError(
            f"{path}: the run's status is {log.get('status')!r}; expected 'success', finish it with inspect eval-retry"
        )
    samples = log.get("samples") or []
    if not samples:
        raise TwinprobeError(f"{path} has no samples; expected a log with them, not a header alone")
    scorers = list(dict.fromkeys(name for sample in samples for name in _flat(sample)))
    scorer = choose(path, task, "score", scorers, wanted.metrics, "--metric")
    values: dict[str, list[float]] = {}
    for number, sample in enumerate(samples, 1):
        item = str(field(sample, "id", f"{path}, sample {number}"))
        value = _value(_flat(sample).get(scorer), f"{path}, sample {item!r}")
        values.setdefault(item, [])
        if not math.isnan(value):
            values[item].append(value)
    rows = tuple(
        {"task": task, "item": item, "score": math.fsum(found) / len(found), "metric": scorer, "epochs": len(found)}
        for item, found in values.items()
        if found
    )
    name = next((model.removeprefix(one) for one in LOCAL if model.startswith(one)), model)
    return Log(path, "inspect_ai", name, rows, unscored=len(values) - len(rows))


def _flat(sample: dict[str, Any]) -> dict[str, Any]:
    """Values by scorer, and by ``scorer.key`` where a scorer gives a mapping."""
    found: dict[str, Any] = {}
    for scorer, score in (sample.get("scores") or {}).items():
        value = score.get("value") if isinstance(score, dict) else None
        found.update(
            {f"{scorer}.{key}": one for key, one in value.items()} if isinstance(value, dict) else {scorer: value}
        )
    return found


def _value(value: Any, where: str) -> float:
    """A score as inspect_ai's ``value_to_float`` reads it, except that what it can not read is an error and not 0."""
    if value is None:
        return math.nan
    if is_number(value):
        return float(value)
    if isinstance(value, str):
        if value in LETTERS or value.lower() in WORDS:
            return LETTERS[value] if value in LETTERS else WORDS[value.lower()]
        try:
            return float(value)
        except ValueError:
            pass
    raise TwinprobeError(f"{where}: score {str(value)[:40]!r}; expected C, I, P, N or a number")


def _archive(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if "header.json" not in names:
                raise TwinprobeError(f"{path}: the run was not finished (no header.json in the archive)")
            log = dict(json.loads(_member(archive, "header.json")))
            # A sample that was written again replaces the earlier one: the last of a name is what a reader gets.
            samples = [name for name in dict.fromkeys(names) if name.startswith("samples/") and name.endswith(".json")]
            return {**log, "samples": [json.loads(_member(archive, name)) for name in samples]}
    except FileNotFoundError:
        raise TwinprobeError(f"{path}: no such file") from None
    except (zipfile.BadZipFile, json.JSONDecodeError, UnicodeDecodeError, NotImplementedError) as error:
        raise TwinprobeError(
            f"{path} is no archive that can be read here ({error}); convert it with: inspect log convert FILE --to json "
            "--output-dir FOLDER"
        ) from None


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """The content of a file in the archive, whether or not zipfile knows Zstandard."""
    about = archive.getinfo(name)
    if about.compress_type != ZSTANDARD:
        return archive.read(about)
    import zstandard  # comes with nnsight

    handle = archive.fp
    assert handle is not None
    handle.seek(about.header_offset)
    header = handle.read(LOCAL_HEADER.size)
    if len(header) < LOCAL_HEADER.size:
        raise zipfile.BadZipFile(f"{name} is cut off")
    handle.seek(sum(LOCAL_HEADER.unpack(header)), 1)
    try:
        content = zstandard.ZstdDecompressor().decompressobj().decompress(handle.read(about.compress_size))
    except zstandard.ZstdError as error:
        raise zipfile.BadZipFile(f"{name}: {error}") from None
    if zlib.crc32(content) != about.CRC:
        raise zipfile.BadZipFile(f"{name} is damaged")
    return content
