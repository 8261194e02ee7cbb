"""Capture on a Ray cluster (extra ``cluster``): shards are the unit of work, and every worker loads the model once.

Workers write their shards themselves, so the store must lie on storage that all nodes share. A worker that dies is
replaced and its shard given to another; a shard is the same whoever computes it.
"""

from __future__ import annotations

import os
import platform
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activations.engines import Engine, make_engine
from activations.errors import TwinprobeError
from activations.inputs import Encoded
from activations.layout import shard_path
from activations.models import LoadedModel, ModelSpec, load_model
from activations.shards import Recipe, run_shard
from activations.writer import write_shard

if TYPE_CHECKING:
    from activations.capturing import Job

MAX_DEATHS = 3
"""Workers that one shard may cost before the run is given up."""


@dataclass
class Worker:
    """What runs on a node: the model, loaded when the first shard comes."""

    spec: ModelSpec
    fingerprint: str
    engine_name: str
    longest: int
    recipe: Recipe
    store: Path
    threads: int

    def __post_init__(self) -> None:
        self._opened: tuple[LoadedModel, Engine] | None = None

    def _open(self) -> tuple[LoadedModel, Engine]:
        import torch

        torch.set_num_threads(self.threads)
        loaded = load_model(self.spec)
        if loaded.fingerprint != self.fingerprint:
            raise TwinprobeError(
                f"a worker loaded {self.spec.name!r} with fingerprint {loaded.fingerprint}, the job's is {self.fingerprint}; "
                "every node must find the same weights under that name"
            )
        return loaded, make_engine(loaded, self.recipe.sites, self.engine_name, longest=self.longest)

    def shard(self, number: int, encoded: Sequence[Encoded], first: int) -> str:
        """Capture and write one shard; returns the name of the machine."""
        # Not in the constructor: Ray tells what goes wrong there in its own words only.
        self._opened = self._opened or self._open()
        loaded, engine = self._opened
        shard = run_shard(engine, loaded.device, self.recipe, encoded, first)
        write_shard(self.store, number, shard, self.recipe.dtype)
        return platform.node()


def require_ray(job: Job) -> None:
    """Refuse what can not run on workers, before anything is written.

    Raises:
        TwinprobeError: ray is not installed, or the job's engine runs the model elsewhere itself.
    """
    if find_spec("ray") is None:
        raise TwinprobeError('workers need Ray; install it with: pip install "twinprobe[cluster]"')
    if job.engine.name == "nnsight":
        raise TwinprobeError("workers go with the engines hooks and transformer_lens, not with nnsight")


def run_on_ray(
    job: Job,
    store: Path,
    shards: Sequence[int],
    workers: int,
    address: str | None,
    advance: Callable[[int], None],
    notice: Callable[[str], None],
) -> None:
    """Capture ``shards`` of a job into ``store`` on ``workers`` Ray workers.

    Args:
        job: what to capture; its model must be one that :func:`activations.models.load_model` finds by name.
        store: the store's folder, on storage that all nodes share.
        shards: numbers of the shards to capture.
        workers: how many workers; each has a GPU of its own when the model's device is a GPU.
        address: of a running Ray cluster; without one a local cluster is started for this run.
        advance: called with texts done.
        notice: called with a sentence for each worker that died.

    Raises:
        TwinprobeError: the cluster is too small or can not be reached, a worker can not load the model, workers keep
            dying, or the error a worker met.
    """
    import ray

    if not shards:
        return
    waiting = list(reversed(shards))
    workers = min(workers, len(waiting))
    at_work: dict[Any, tuple[Any, int]] = {}
    deaths: Counter[int] = Counter()
    done = 0
    with _cluster(ray, workers, address, gpu=job.loaded.device.type == "cuda") as hire:
        recruit = _worker(job, store, workers, address)

        def give(actor: Any) -> None:
            number = waiting.pop()
            part = job.shards[number]
            at_work[actor.shard.remote(number, job.encoded[part.start : part.stop], part.start)] = (actor, number)

        for _ in range(workers):
            give(hire(recruit))
        while at_work:
            (ready,), _ = ray.wait(list(at_work), num_returns=1)
            actor, number = at_work.pop(ready)
            try:
                node = ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                raise _told(error) from None
            except ray.exceptions.RayActorError:
                deaths[number] += 1
                if deaths[number] >= MAX_DEATHS:
                    raise TwinprobeError(
                        f"{MAX_DEATHS} workers died over shard {number} (out of memory?); finished shards are kept: lower "
                        "--batch-tokens or --workers and run the same command again"
                    ) from None
                notice(f"a worker died over shard {number} and is replaced")
                waiting.append(number)
                actor = hire(recruit)
            else:
                if not shard_path(store, number).exists():
                    raise TwinprobeError(
                        f"the worker on {node} wrote shard {number}, but {store} does not have it here; "
                        "the store must lie on storage that all nodes share"
                    )
                done += len(job.shards[number])
                advance(done)
            if waiting:
                give(actor)


def _worker(job: Job, store: Path, workers: int, address: str | None) -> Worker:
    import torch

    spec = job.loaded.spec
    if spec.device.startswith("cuda"):
        spec = replace(spec, device="cuda")  # Ray shows each worker its own GPU only
    # On this machine the threads in use are shared out; bits may depend on their number.
    threads = torch.get_num_threads() if address else max(1, torch.get_num_threads() // workers)
    longest = max(len(item) for item in job.encoded)
    return Worker(spec, job.loaded.fingerprint, job.engine.name, longest, job.recipe, store.resolve(), threads)


def _told(error: Any) -> Exception:
    """What a worker raised: our own error as it was, anything else with where it came from."""
    cause = error.cause if isinstance(error.cause, Exception) else error
    if isinstance(cause, TwinprobeError):
        return TwinprobeError(str(cause))
    return TwinprobeError(f"a worker failed: {type(cause).__name__}: {' '.join(str(cause).split())[:300]}")


@contextmanager
def _cluster(ray: Any, workers: int, address: str | None, gpu: bool) -> Iterator[Callable[[Worker], Any]]:
    """A Ray cluster with room for ``workers``; yields what starts an actor on it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    started = not ray.is_initialized()
    if started:
        if address is None:
            options: dict[str, Any] = {"num_cpus": max(workers, os.cpu_count() or 1), "include_dashboard": False}
        else:
            _reach(address)
            options = {"address": address}
        try:
            ray.init(log_to_driver=False, logging_level="error", **options)
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            reason = " ".join(str(error).split())[:200]
            raise TwinprobeError(f"Ray at {address or 'this machine'} can not be used: {reason}") from None
    try:
        kind = "GPU" if gpu else "CPU"
        there = int(ray.cluster_resources().get(kind, 0))
        if there < workers:
            raise TwinprobeError(f"{workers} workers need a {kind} each, but the cluster has {there}; lower --workers")
        actor = ray.remote(num_cpus=1, num_gpus=int(gpu))(Worker)
        yield lambda worker: actor.remote(**{each.name: getattr(worker, each.name) for each in fields(worker)})
    finally:
        if started:
            ray.shutdown()


def _reach(address: str) -> None:
    """Fail at once where nobody listens: Ray itself would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdecimal():
        raise TwinprobeError(f"Ray address {address!r} is not one; expected auto, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise TwinprobeError(f"Ray at {address} can not be used: {error}") from None
