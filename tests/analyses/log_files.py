"""Small logs in the formats of the benchmark harnesses, written from their documentation."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DATE = "2025-01-31T10-20-30.123456"


def lm_eval_log(
    folder: Path, task: str, lines: Sequence[Mapping[str, Any]], model: str | None = "org/base", **means: float
) -> Path:
    """Samples of a task and, where ``model`` is given, the results of its run; ``means`` by ``metric__filter``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"samples_{task}_{DATE}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if model is not None:
        results = folder / f"results_{DATE}.json"
        told = json.loads(results.read_text())["results"] if results.exists() else {}
        told[task] = {"alias": task, **{name.replace("__", ","): mean for name, mean in means.items()}}
        results.write_text(json.dumps({"results": told, "configs": {}, "config": {}, "model_name": model}))
    return path


def choice_line(number: int, acc: float, acc_norm: float, choices: int = 4) -> dict[str, Any]:
    """A sample of a multiple-choice task; answers are text, as the harness writes them."""
    return {
        "doc_id": number, "doc": {"question": f"q{number}"}, "target": "1",
        "arguments": {f"gen_args_{i}": {"arg_0": "q", "arg_1": f" {i}"} for i in range(choices)},
        "resps": [[["-1.5", "False"]]] * choices, "filtered_resps": [["-1.5", "False"]] * choices,
        "filter": "none", "metrics": ["acc", "acc_norm"], "doc_hash": f"hash{number}", "prompt_hash": "p",
        "target_hash": "t", "acc": acc, "acc_norm": acc_norm,
    }  # fmt: skip


def generated_line(number: int, filter_: str, exact_match: float) -> dict[str, Any]:
    """A sample of a generation task such as GSM8K."""
    return {
        "doc_id": number, "doc": {}, "target": "4", "arguments": {}, "resps": [["4"]], "filtered_resps": ["4"],
        "filter": filter_, "metrics": ["exact_match"], "doc_hash": f"hash{number}", "exact_match": exact_match,
    }  # fmt: skip


def inspect_log(path: Path, samples: Sequence[tuple[str | int, int, Mapping[str, Any]]], **changed: Any) -> Path:
    """An EvalLog of (id, epoch, value by scorer); a ``.eval`` archive where the path says so."""
    about = {"task": "arc", "model": "hf/org/base", "task_id": "x", "run_id": "y"}
    head = {"version": 2, "status": "success", "eval": about, **changed}
    whole = [
        {"id": name, "epoch": epoch, "input": "q", "target": "A",
         "scores": {scorer: {"value": value, "answer": "A"} for scorer, value in values.items()}}
        for name, epoch, values in samples
    ]  # fmt: skip
    if path.suffix == ".json":
        path.write_text(json.dumps({**head, "samples": whole}))
        return path
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("_journal/start.json", json.dumps({"version": 2, "eval": about}))
        for sample in whole:
            archive.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", json.dumps(sample))
        archive.writestr("header.json", json.dumps(head))
    return path


def evalplus_log(path: Path, statuses: Mapping[str, Sequence[tuple[str, str | None]]]) -> Path:
    """Results by problem as (base, plus) of each sample."""
    by_problem = {
        problem: [
            {"task_id": problem, "solution": "", "base_status": base, "plus_status": plus, "base_fail_tests": []}
            for base, plus in samples
        ]
        for problem, samples in statuses.items()
    }
    path.write_text(json.dumps({"date": "2025-01-31 10:20", "hash": "h", "eval": by_problem}))
    return path


def bigcode_logs(folder: Path, passed: Sequence[Sequence[bool]], mean: float) -> tuple[Path, Path]:
    """Outcomes by problem, and the metrics of the run."""
    log, metrics = folder / "logs.json", folder / "metrics.json"
    log.write_text(
        json.dumps(
            {str(problem): [[i, {"task_id": problem, "passed": one, "result": "", "completion_id": i}]
                            for i, one in enumerate(samples)] for problem, samples in enumerate(passed)}
        )
    )  # fmt: skip
    metrics.write_text(json.dumps({"humanevalsynthesize-python": {"pass@1": mean}, "config": {"model": "org/base"}}))
    return log, metrics


def zstandard_archive(source: Path, target: Path) -> Path:
    """The same archive with every file compressed by Zstandard, which zipfile can not write: stored, then relabelled."""
    import struct
    import zlib

    import zstandard

    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        whole = {name: old.read(name) for name in old.namelist()}
        for name, content in whole.items():
            new.writestr(name, zstandard.compress(content))
    written = bytearray(target.read_bytes())
    with zipfile.ZipFile(target) as archive:
        about = archive.infolist()
        start = archive.start_dir
    for one in about:
        content = whole[one.filename]
        # Method, checksum and size of what is compressed, in the header of the file and in the central directory.
        for offset, method in ((one.header_offset, 8), (start, 10)):
            struct.pack_into("<H", written, offset + method, 93)
            struct.pack_into("<I", written, offset + method + 6, zlib.crc32(content))
            struct.pack_into("<I", written, offset + method + 14, len(content))
        start += 46 + len(one.filename) + len(one.extra) + len(one.comment)
    target.write_bytes(written)
    return target
