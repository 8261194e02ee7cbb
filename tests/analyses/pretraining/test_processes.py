"""Several processes that split every batch end where one process ends, and only the first writes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CORPUS
from safetensors.torch import load_file

import analyses
from analyses.pretraining.architectures import new_model
from analyses.pretraining.design import Optimisation, read_design
from analyses.pretraining.loop import UNSCORED, Batch, optimise
from analyses.pretraining.train import train_design

DESIGN = """
name = "shared"
[architecture]
hidden_size = 8
intermediate_size = 8
layers = 1
heads = 2
context = 16
[tokenizer]
vocabulary = 300
[training]
tokens = 960
batch = 5
precision = "float32"
learning_rate = 2e-2
[[data]]
kind = "code"
path = "code.txt"
licence = "CC0"
held_out_tail = { "*" = 0.3 }
[[run]]
name = "code"
code_share = 1.0
seed = 0
"""

SHARED = """
import json, os, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
import accelerate, torch, transformers
from test_processes import DESIGN, tune
from analyses.pretraining.design import read_design
from analyses.pretraining.train import train_design

folder = Path(sys.argv[3])
child = os.fork()
rank = int(child == 0)
os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=sys.argv[4])
torch.set_num_threads(1)
said = []
train_design(read_design(folder / "design.toml"), folder, folder / "two", lambda *what: said.append(what))
losses, weights = tune(folder / f"{rank}.pt")
(folder / f"{rank}.json").write_text(json.dumps({"said": said, "losses": losses, "weights": weights}))
if child:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    torch.distributed.destroy_process_group()
    sys.exit(code)
os._exit(0)
"""


def tune(checkpoint: Path) -> tuple[list[float], list[float]]:
    """Three rows, of which the second, the only one of the second process, is not scored at first."""
    shape = read_design(checkpoint.with_name("design.toml")).architecture
    model = new_model(shape, seed=1, vocab_size=40)
    ids = torch.arange(48).reshape(3, 16) % 37
    labels = ids.clone()
    labels[0, 4:] = UNSCORED

    def batch_at(step: int) -> Batch:
        some = labels.clone()
        some[1, : 16 if step < 2 else 9] = UNSCORED
        return Batch(ids, some)

    settings = Optimisation(precision="float32", learning_rate=1e-2, checkpoint_every=2)
    losses = optimise(model, batch_at, 4, settings, checkpoint, "tune", lambda *_: None)
    return losses, model.state_dict()["model.embed_tokens.weight"].flatten().tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A design, and what two processes and one have made of it."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "design.toml").write_text(DESIGN)
    (folder / "code.txt").write_text("".join(CORPUS) * 9)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    package, here = Path(analyses.__file__).parents[1], Path(__file__).parent
    path = os.pathsep.join([str(here.parents[1]), os.environ.get("PYTHONPATH", "")])
    ran = subprocess.run(
        [sys.executable, "-c", SHARED, str(package), str(here), str(folder), str(port)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert ran.returncode == 0, ran.stderr
    train_design(read_design(folder / "design.toml"), folder, folder / "one", lambda *_: None)
    return folder


def test_two_processes_train_as_one_does(folder: Path) -> None:
    one, two = (folder / name / "code" / "model" for name in ("one", "two"))
    curves = [pd.read_csv(model / "loss.csv") for model in (one, two)]
    assert curves[0].step.tolist() == curves[1].step.tolist() == [10, 12]
    assert curves[1].loss.tolist() == pytest.approx(curves[0].loss.tolist(), abs=2e-4)
    assert curves[0].loss[1] < 5, "something is learned"
    weights = [load_file(model / "model.safetensors") for model in (one, two)]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=0.02, atol=1e-4)
    facts = [json.loads((model / "training.json").read_text()) for model in (one, two)]
    assert [fact["processes"] for fact in facts] == [1, 2]
    assert facts[0]["tokens_seen"] == facts[1]["tokens_seen"]


def test_unequally_scored_rows_weigh_as_in_one_process(folder: Path) -> None:
    losses, weights = tune(folder / "alone.pt")
    for rank in (0, 1):
        shared = json.loads((folder / f"{rank}.json").read_text())
        assert shared["losses"] == pytest.approx(losses, abs=1e-5)
        np.testing.assert_allclose(shared["weights"], weights, atol=1e-4)


def test_only_the_first_process_writes_and_reports(folder: Path) -> None:
    said = [json.loads((folder / f"{rank}.json").read_text())["said"] for rank in (0, 1)]
    assert said[0]
    assert said[1] == []
    assert [(folder / f"{rank}.pt").exists() for rank in (0, 1)] == [True, False]
    assert {path.name for path in (folder / "two").iterdir()} == {path.name for path in (folder / "one").iterdir()}
