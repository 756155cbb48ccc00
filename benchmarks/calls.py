"""What a call to an actor costs by itself: with a network that takes no time.

    python benchmarks/calls.py [CALLS]

A worker on a Ray of its own sends images of 600x400 to one actor, which returns them unchanged: one
call after another, and with as many in flight as the feeder keeps. Beside it, calls that only Ray
is involved in: without the record of who is inside, deadlines, turns, and what follows a death.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import ray

from batchlight.engine import RayEngine
from batchlight.engine.base import Service
from batchlight.images.pixels import Pixels
from batchlight.worker.network_client import CALLS_UNDER_WAY

HEIGHT, WIDTH = 400, 600
IMAGES = (1, 16)
"""Images per call."""
WARM_UP = 20
ROUNDS = 5


class Empty:
    """A network that does nothing."""

    def restore_groups(self, groups: list[list[Pixels]]) -> list[list[Pixels]]:
        return groups


def main(calls: int) -> None:
    """Print a Markdown table."""
    print("| images in a call | calls | ms, one after the other | ms, several under way |")
    print("|---|---|---|---|")
    with RayEngine(workers=2, address="local", hosts=True) as engine:
        service = asyncio.run(engine.host(Empty, 1, on_gpus=False))
        bare = ray.remote(num_cpus=0)(Empty).remote()
        for images in IMAGES:
            rounds = []
            for _ in range(ROUNDS):
                ours = asyncio.run(engine.call(measure, service, images, calls))
                rounds.append((*ours, *asyncio.run(engine.call(measure_bare, bare, images, calls))))
            figures = [f"{statistics.median(values):.2f}" for values in zip(*rounds, strict=True)]
            print(f"| {images} | batchlight's | {figures[0]} | {figures[1]} |")
            print(f"| {images} | Ray's alone | {figures[2]} | {figures[3]} |", flush=True)


def measure(service: Service, images: int, calls: int) -> tuple[float, float]:
    """Milliseconds per call, in both ways, as seen by a worker."""
    group = group_of(images)
    return timed(
        calls,
        lambda: service.submit("restore_groups", [group]),
        lambda answer: answer.result(),
    )


def measure_bare(actor: Any, images: int, calls: int) -> tuple[float, float]:
    """The same without batchlight."""
    group = group_of(images)
    return timed(calls, lambda: actor.restore_groups.remote([group]), ray.get)


def group_of(images: int) -> list[Pixels]:
    """Noise of one size."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(images)]


def timed(calls: int, ask: Callable[[], Any], wait: Callable[[Any], Any]) -> tuple[float, float]:
    """The median of calls one after the other, and the mean of several under way."""
    for _ in range(WARM_UP):
        wait(ask())
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        wait(ask())
        times.append(time.perf_counter() - started)
    under_way: deque[Any] = deque()
    started = time.perf_counter()
    for _ in range(calls):
        if len(under_way) == CALLS_UNDER_WAY:
            wait(under_way.popleft())
        under_way.append(ask())
    for answer in under_way:
        wait(answer)
    mean = (time.perf_counter() - started) / calls
    return 1000 * statistics.median(times), 1000 * mean


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(__doc__)
    main(int(sys.argv[1]) if len(sys.argv) == 2 else 200)
