"""Which engine a job gets: Ray, or this process."""

from __future__ import annotations

import logging
from collections.abc import Callable

from batchlight.engine.address import ray_address
from batchlight.engine.base import Engine, InProcessEngine
from batchlight.engine.own_ray import is_running, workers_that_fit
from batchlight.engine.task_call import TASK_OPTIONS
from batchlight.engine.tasks import RayEngine, Surroundings, no_surroundings
from batchlight.host.resources import usable_cpus

logger = logging.getLogger(__name__)


def make_engine(
    workers: int | None,
    address: str | None,
    timeout: float,
    hosts: bool = False,
    surroundings: Surroundings = no_surroundings,
    meanwhile: Callable[[], object] | None = None,
) -> Engine:
    """The engine that ``--workers`` and ``--address`` ask for.

    ``hosts``, ``surroundings`` and ``meanwhile``: see ``RayEngine``; this process needs none.
    """
    if workers == 0 or _holds_all_cpus():
        return InProcessEngine(timeout)
    if ray_address(address) == "local" and not is_running():
        workers = workers_that_fit(workers or usable_cpus())
        if workers == 0:
            return InProcessEngine(timeout)
    return RayEngine(workers, address, timeout, hosts, surroundings, meanwhile)


def _holds_all_cpus() -> bool:
    """Whether this is a task or actor that holds all CPUs of its cluster, as Ray reports them.

    If so, no call could ever begin, as none of the CPUs is released while this waits.
    """
    if not is_running():
        return False
    import ray

    if ray.get_runtime_context().worker.mode != ray.WORKER_MODE:
        return False
    held = ray.get_runtime_context().get_assigned_resources().get("CPU", 0.0)
    cpus = ray.cluster_resources().get("CPU", 0.0)
    if cpus - held >= TASK_OPTIONS["num_cpus"]:
        return False
    logger.warning(
        "this runs in a Ray task or actor that itself holds %g of the %g CPUs of the cluster, so "
        "the work is done in its process; with num_cpus=0, workers would do it",
        held,
        cpus,
    )
    return True
