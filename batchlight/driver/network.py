"""The network on its actors: how many, on which devices, and how slow that will be."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from batchlight.absgn import networks_on
from batchlight.absgn.loading import Model, WeightsFor, choose_model, refuse_cuda_without_gpu
from batchlight.config import JobConfig, Method
from batchlight.engine import Engine, Service, WorkerDied, ray_address
from batchlight.errors import ClusterError, counted, unit_of_time
from batchlight.fingerprint import Fingerprint
from batchlight.host.process import keep_freed_memory
from batchlight.host.resources import local_gpus

if TYPE_CHECKING:
    from batchlight.absgn.inference import Enhancer

logger = logging.getLogger(__name__)


def model_of(
    config: JobConfig, weights: WeightsFor | None, engine: Callable[[], Engine]
) -> Model | None:
    """The network of a run; None if no method needs one.

    ``engine`` is called only if the GPUs of a cluster matter. Raises ``UsageError``.
    """
    if weights is None:
        return None
    here = config.workers == 0 or ray_address(config.address) == "local"
    model = choose_model(config, weights, local_gpus if here else lambda: engine().gpus)
    if here:
        refuse_cuda_without_gpu(model.device)
    return model


def fingerprints_of(config: JobConfig, model: Model | None) -> Mapping[Method, Fingerprint]:
    """The fingerprint of each method: what determines its pixels."""
    network: dict[str, object] = {}
    if model:
        from batchlight.absgn.start import in_fingerprint

        network = {"weights": model.sha256, "precision": model.precision}
        network |= in_fingerprint(model.start)
    return {method: config.fingerprint(method, network) for method in config.method}


async def serve(engine: Engine, config: JobConfig, model: Model, images: int) -> Service:
    """Start the actors; on CPUs, warn how long ``images`` will take. Raises ``BatchlightError``."""
    on_gpus = model.device == "cuda"
    by_cpus = networks_on(engine.workers, engine.nodes)
    wanted = config.gpu_workers or max(1, engine.gpus if on_gpus else by_cpus)
    count = 1 if config.workers == 0 else wanted
    make = model.enhancer if config.workers == 0 else partial(_enhancer, model)
    service = await engine.host(make, count, on_gpus)
    if not on_gpus:
        speed = await _seconds_per_megapixel(engine, service) / count
        unit, seconds = unit_of_time(speed * images)
        logger.warning(
            "ABSGN runs on CPUs: %s takes about %.1f s per megapixel here, so %s of "
            "1 megapixel take %.0f %s; %s",
            model.name, speed, counted(images, "image"), speed * images / seconds, unit,
            advice(model),
        )  # fmt: skip
    return service


def _enhancer(model: Model) -> Enhancer:
    """Create the network in an actor's process."""
    # PyTorch reads this on first import. Without it, threads that wait for each other spin on the
    # CPUs, and several networks on one machine take twice as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    return model.enhancer()


async def _seconds_per_megapixel(engine: Engine, service: Service) -> float:
    try:
        return await engine.call(_measure, service)
    except WorkerDied as death:
        raise ClusterError(
            f"the network did not survive a small image ({death.code}); "
            "check the memory of the workers and --timeout"
        ) from death


def _measure(service: Service) -> float:
    return float(service.submit("seconds_per_megapixel").result())


def advice(model: Model) -> str:
    """What to do if the network is slow."""
    smaller = "--model absgn-small takes a sixteenth, " if model.name == "absgn" else ""
    return f"{smaller}--method classical takes milliseconds, and a GPU is much faster"
