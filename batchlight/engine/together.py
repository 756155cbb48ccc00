"""Training in several processes at once, through Ray Train."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from batchlight.engine.cluster import RayEngine
from batchlight.errors import BatchlightError, ClusterError, brief

T = TypeVar("T")

NO_DEADLINE = float("inf")
POLL_S = 1.0


def train_together(
    function: Callable[[int, int], Iterator[T]], processes: int, on_gpus: bool, address: str | None
) -> Iterator[T]:
    """Run ``function(rank, processes)`` in processes that form one torch.distributed group.

    Yields what the process of rank 0 yields, as it comes. Raises ``BatchlightError``.
    """
    with RayEngine(processes, address, NO_DEADLINE, hosted=processes):
        try:
            from ray.train import RunConfig, ScalingConfig, TrainingFailedError
            from ray.train.torch import TorchTrainer
            from ray.util.queue import Empty, Queue
        except ImportError as error:
            raise ClusterError(
                "training in several processes needs Ray Train; install it with: "
                "pip install 'batchlight[train]'"
            ) from error
        queue = Queue(actor_options={"num_cpus": 0})
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as thread:
            trainer = TorchTrainer(
                _loop,
                train_loop_config={"function": function, "queue": queue},
                scaling_config=ScalingConfig(num_workers=processes, use_gpu=on_gpus),
                run_config=RunConfig(storage_path=folder),
            )
            fit = thread.submit(trainer.fit)
            while not (fit.done() and queue.empty()):
                try:
                    yield queue.get(timeout=POLL_S)
                except Empty:
                    continue
            try:
                fit.result()
            except TrainingFailedError as error:
                raise _as_ours(error) from error


def _loop(config: dict[str, Any]) -> None:
    """What each process runs."""
    from ray.train import get_context

    rank, processes = get_context().get_world_rank(), get_context().get_world_size()
    for item in config["function"](rank, processes):
        if rank == 0:
            config["queue"].put(item)


def _as_ours(error: Any) -> BatchlightError:
    """What the first process that failed raised."""
    for failure in getattr(error, "worker_failures", {}).values():
        cause = getattr(failure, "cause", failure)
        if isinstance(cause, BatchlightError):
            return cause
        return ClusterError(f"a training process failed: {brief(cause)}; see Ray's logs")
    return ClusterError(f"training failed: {brief(error)}; see Ray's logs")
