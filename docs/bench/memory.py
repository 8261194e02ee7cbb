"""Peak memory of a capture over the model's own, for a text set and one many times larger; prints one table.

    python docs/bench/memory.py                      # 100,000 and 2,000,000 tokens
    python docs/bench/memory.py 100000 10000000      # about a quarter of an hour on 2 cores, 5 GB of disk

Each line is a process of its own: it loads a twin, captures a few texts, notes its memory, and then captures one site at
every token of texts cut from the standard library. "Over the model's own" is the highest resident memory from then on,
less what was noted; the texts themselves, which the caller holds, are noted apart.
"""

from __future__ import annotations

import platform
import subprocess
import sys

TASK = """
import os; os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
import random, sys, sysconfig, tempfile, time
from pathlib import Path
from activations.capturing import prepare, run
from activations.models import load_model
from activations.rows import RowRule
from activations.sites import Site
from activations.texts import Text

def status(field):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024

def do(texts, folder):
    job = prepare(loaded, texts, [Site("resid_post", 2)], bos=True, rule=RowRule(), overlong="truncate")
    run(job, folder)
    return job.estimate()

wanted = int(sys.argv[1])
loaded = load_model("embedded:code")
source = "".join(path.read_text(errors="ignore") for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")))
rng = random.Random(0)
with tempfile.TemporaryDirectory() as folder:
    do([Text(str(i), source[i * 500 : i * 500 + 400]) for i in range(200)], folder + "/warm")
    noted = status("VmRSS")
    texts, characters = [], 0
    while characters < 3.4 * wanted:
        start, length = rng.randrange(len(source)), rng.choice((60, 150, 300, 600, 900))
        texts.append(Text(str(len(texts)), source[start : start + length]))
        characters += len(texts[-1].text)
    held = status("VmRSS") - noted
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    began = time.perf_counter()
    expected = do(texts, folder + "/store")
    print(expected.tokens, expected.bytes, status("VmHWM") - noted - held, held, time.perf_counter() - began)
"""


def main() -> None:
    """Print the table."""
    print(
        f"Python {platform.python_version()}, {platform.system()}, embedded:code, resid_post.2, float32, every token\n"
    )
    print("| tokens | written | peak over the model's own | texts in memory | seconds |\n|---|---|---|---|---|")
    for wanted in sys.argv[1:] or ("100000", "2000000"):
        done = subprocess.run([sys.executable, "-c", TASK, wanted], stdout=subprocess.PIPE, text=True, check=True)
        tokens, size, peak, held, seconds = map(float, done.stdout.split())
        print(f"| {tokens:,.0f} | {size / 1e6:,.0f} MB | {peak:.0f} MB | {held:.0f} MB | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
