"""Models side by side in processes of their own: the same results, and no worker outlives the study."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import analyses
from activations.errors import TwinprobeError
from analyses.study.run import run_study
from analyses.study.settings import read_study
from analyses.study.side_by_side import SMALL, default_jobs
from probes.tables import read_table

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(analyses.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
STUDY = """
import sys
from analyses.study.run import run_study
from analyses.study.settings import read_study
if __name__ == "__main__":
    run_study(read_study(sys.argv[1]), sys.argv[2], jobs=2)
"""


def test_two_at_a_time_find_what_one_at_a_time_finds(study_file: Path, finished_study: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    run_study(read_study(study_file), tmp_path / "run", lambda *steps: told.append(steps), jobs=2)
    assert {stage.split("/")[0] for stage, done, total in told if done == total} >= {"base", "code", "comparisons"}
    for path in sorted((finished_study / "tables").glob("*.csv")):
        alone, together = read_table(path), read_table(tmp_path / "run" / "tables" / path.name)
        assert list(alone.columns) == list(together.columns)
        for column in alone.select_dtypes("number"):
            assert together[column].to_numpy() == pytest.approx(alone[column].to_numpy(), abs=1e-4, nan_ok=True), column
    log = (tmp_path / "run" / "manifest.json").read_text()
    assert '"stage": "base/model"' in log and '"reused": true' not in log, "a worker's stages count as computed"


def test_a_mistake_in_a_worker_is_one_line(study_file: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(study_file.parent, tmp_path / "models"))
    file = folder / study_file.name
    file.write_text(file.read_text().replace(str(study_file.parent), str(folder)).replace("embed,", "resid_pots.0,"))
    with pytest.raises(TwinprobeError, match=r"unknown site 'resid_pots.0' \(did you mean"):
        run_study(read_study(file), tmp_path / "run", jobs=2)


def test_workers_end_with_a_study_that_is_killed(study_file: Path, tmp_path: Path) -> None:
    script = tmp_path / "study.py"
    script.write_text(STUDY)
    command = [sys.executable, str(script), str(study_file), str(tmp_path / "run")]
    running = subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True)
    stores = tmp_path / "run" / "stores"
    deadline = time.monotonic() + 120
    while not (stores.exists() and list(stores.rglob("*.h5"))):
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert len(_session(running.pid)) > 2, "the study and its two workers"
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    while _session(running.pid):
        assert time.monotonic() < deadline, "a worker goes on without the study"
        time.sleep(0.05)


def _session(leader: int) -> list[int]:
    """Processes of a session that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def test_large_or_unknown_models_run_alone(study_file: Path) -> None:
    study = read_study(study_file)
    cores = os.cpu_count() or 1
    assert default_jobs(study, [1000, 1000, 1000]) == min(cores, 3)
    assert default_jobs(study, [1000, None]) == 1
    assert default_jobs(study, [1000, SMALL + 1]) == 1
    on_gpu = study.model_copy(update={"load": study.load.model_copy(update={"device": "cuda"})})
    assert default_jobs(on_gpu, [1000, 1000]) == 1
