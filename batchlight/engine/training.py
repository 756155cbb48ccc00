"""Training in several processes at once, through Ray Train."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from batchlight.engine.tasks import RayEngine
from batchlight.errors import BatchlightError, ClusterError, brief

T = TypeVar("T")

POLL_S = 1.0


def train_together(
    function: Callable[[int, int], Iterator[T]], processes: int, on_gpus: bool, address: str | None
) -> Iterator[T]:
    """Run ``function(rank, processes)`` in processes that form one torch.distributed group.

    Yields what the process of rank 0 yields, as it comes. Raises ``BatchlightError``.
    """
    # Ray Train needs a CPU of its own besides those of the processes.
    with RayEngine(processes + 1, address, hosts=True):
        try:
            from ray.train import RunConfig, ScalingConfig, TrainingFailedError
            from ray.train.torch import TorchTrainer
            from ray.util.queue import Empty, Queue
        except ImportError as error:
            raise ClusterError(
                "training in several processes needs Ray Train; install batchlight again, with "
                "its extra 'train'"
            ) from error
        queue = Queue(actor_options={"num_cpus": 0})
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            trainer = TorchTrainer(
                _loop,
                train_loop_config={"function": function, "queue": queue},
                scaling_config=ScalingConfig(num_workers=processes, use_gpu=on_gpus),
                run_config=RunConfig(storage_path=folder),
            )
            fit = _in_background(trainer.fit)
            while not (fit.done() and queue.empty()):
                try:
                    yield queue.get(timeout=POLL_S)
                except Empty:
                    continue
            try:
                fit.result()
            except TrainingFailedError as error:
                raise _as_ours(error) from error


def _in_background(function: Callable[[], object]) -> Future[object]:
    """Like an executor's ``submit``, but the process can exit without waiting for it."""
    future: Future[object] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def _loop(config: dict[str, Any]) -> None:
    """What each process runs."""
    from ray.train import get_context

    rank, processes = get_context().get_world_rank(), get_context().get_world_size()
    for item in config["function"](rank, processes):
        if rank == 0:
            config["queue"].put(item)


def _as_ours(error: Any) -> BatchlightError:
    """The exception of the first process that failed."""
    for failure in getattr(error, "worker_failures", {}).values():
        cause = getattr(failure, "cause", failure)
        if isinstance(cause, BatchlightError):
            return cause
        return ClusterError(f"a training process failed: {brief(cause)}; see Ray's logs")
    return ClusterError(f"training failed: {brief(error)}; see Ray's logs")
