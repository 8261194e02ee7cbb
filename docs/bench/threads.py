"""Seconds to capture 1,200 short texts with an embedded twin, on one CPU thread and on two (see activations/threads.py).

python docs/bench/threads.py
"""

from __future__ import annotations

import tempfile
import time

import torch

from activations import capturing, threads
from activations.models import load_model
from activations.sites import parse_sites
from analyses.study.probing import labelled_texts
from probes.tasks import get_task

REPEATS = 3


def seconds(n_threads: int) -> float:
    """Best of some captures; the library's own choice of threads is switched off for the comparison."""
    threads.SMALL_MODEL = 0
    torch.set_num_threads(n_threads)
    loaded = load_model("embedded:code")
    texts = labelled_texts(get_task("binding").generate(600, 0))
    sites = parse_sites("embed,resid_post.*", loaded.n_layers, loaded.n_heads)
    taken = []
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            capturing.capture(loaded, texts, sites, f"{folder}/store", bos=True, rows="spans")
            taken.append(time.perf_counter() - began)
    return min(taken)


if __name__ == "__main__":
    one, two = seconds(1), seconds(2)
    print(f"torch {torch.__version__}: one thread {one:.2f} s, two threads {two:.2f} s, ratio {two / one:.2f}")
