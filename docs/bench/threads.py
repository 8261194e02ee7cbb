"""How OpenMP threads should wait: seconds to capture 1,200 short texts with an embedded twin, on two threads.

Each line is a process of its own, on an otherwise idle machine and beside two processes that only count.

    python docs/bench/threads.py
"""

from __future__ import annotations

import os
import subprocess
import sys

TASK = """
import tempfile, time, torch
from activations.capturing import capture
from activations.models import load_model
from activations.sites import parse_sites
from probes.task_rows import labelled_texts
from probes.tasks import get_task
torch.set_num_threads(2)
loaded = load_model("embedded:code")
texts = labelled_texts(get_task("binding").generate(600, 0))
sites = parse_sites("embed,resid_post.*", loaded.n_layers, loaded.n_heads)
taken = []
for _ in range(5):
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        capture(loaded, texts, sites, f"{folder}/store", bos=True, rows="spans")
        taken.append(time.perf_counter() - began)
print(sorted(taken)[len(taken) // 2])
"""


def seconds(policy: str) -> float:
    """Median of five captures under a wait policy."""
    environment = {**os.environ, "OMP_WAIT_POLICY": policy, "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run([sys.executable, "-c", TASK], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """Print the table."""
    print("| machine | active | passive | ratio |\n|---|---|---|---|")
    for name, counters in (("idle", 0), ("two busy processes", 2)):
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(counters)]
        try:
            active, passive = seconds("ACTIVE"), seconds("PASSIVE")
        finally:
            for process in busy:
                process.kill()
        print(f"| {name} | {active:.2f} s | {passive:.2f} s | {active / passive:.2f} |")


if __name__ == "__main__":
    main()
