"""The parts of a study side by side, in several processes.

A part is a model, or a task patched across the pair. A worker computes its stages into the run directory; the study then
finds them there and reads them back. So a run with several processes and one without take the same path, and a worker
that dies costs the stage it was at.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from analyses.study.settings import Study
from analyses.study.stages import Report
from probes.tasks.items import Item

Draws = dict[str, list[list[Item]]]
SMALL = 2**30
"""Bytes of weights up to which several models are held in memory at a time unasked."""
_told: Any = None
"""In a worker: the queue that progress goes to."""
_draws: Any = None
_shared: Any = None
"""In a worker: the items, and what its parts share."""


def default_jobs(study: Study, sizes: Sequence[int | None]) -> int:
    """How many models are run at a time: one where they need the whole machine, or nobody knows.

    Args:
        study: the study.
        sizes: bytes of each model's local weights; None for a model that is not here yet.
    """
    alone = study.load.device != "cpu" or study.load.device_map or any(size is None or size > SMALL for size in sizes)
    return 1 if alone else min(os.cpu_count() or 1, len(sizes))


def compute_parts(
    study: Study, out: Path, parts: Sequence[str], draws: Draws, jobs: int, report: Report
) -> list[dict[str, Any]]:
    """Compute the stages of every part, ``jobs`` parts at a time: roles of models, or tasks as ``across/TASK``.

    ``draws`` are the items of the study, which take a while to make and are therefore handed on.

    Returns:
        What the stages' log says of each stage: whether it was reused and how long it took.

    Raises:
        TwinprobeError: see :mod:`analyses.study.model_stages`; what other workers finished is kept.
    """
    context = get_context("spawn")  # a forked process can not use threads that its parent began
    told = context.Queue()
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, context, _begin, (told, threads, os.getpid(), draws)) as pool:
        futures = [pool.submit(_compute, study, out, part) for part in parts]
        try:
            while not all(future.done() for future in futures):
                _pass_on(told, report)
                failed = [future for future in futures if future.done() and future.exception()]
                if failed:
                    failed[0].result()
            _pass_on(told, report)
            return [entry for future in futures for entry in future.result()]
        except BaseException:
            for future in futures:
                future.cancel()
            for process in list(pool._processes.values()):
                process.terminate()
            raise


def _pass_on(told: Any, report: Report) -> None:
    try:
        while True:
            report(*told.get(timeout=0.1))
    except queue.Empty:
        return


def _begin(told: Any, threads: int, parent: int, draws: Draws) -> None:
    """Prepare a worker: its share of the cores, and an end when the study's own process is gone."""
    global _told, _draws
    _told, _draws = told, draws
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt reaches every process; the study's own answers it
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read once, when torch is imported
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.1)
    os._exit(1)


def _compute(study: Study, out: Path, part: str) -> list[dict[str, Any]]:
    from analyses.study.across_stages import AcrossStages
    from analyses.study.model_stages import ModelStages
    from analyses.study.shared import ACROSS, Shared

    global _shared
    if _shared is None:
        _shared = Shared(study, out, lambda stage, done, total: _told.put((stage, done, total)))
        _shared.draws = _draws
    before = len(_shared.stages.log)
    kind, _, task = part.partition("/")
    if kind == ACROSS:
        AcrossStages(_shared).patching(task)
    else:
        ModelStages(_shared, part).tables()
    entries: list[dict[str, Any]] = _shared.stages.log[before:]
    return entries
