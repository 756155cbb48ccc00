"""What a call to an actor costs by itself: with a network that takes no time.

    python benchmarks/calls.py [CALLS]

A worker on a Ray of its own sends images of 600x400 to one actor, which returns them unchanged: one
call after another, and with as many in flight as the feeder keeps.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections import deque

import numpy as np

from batchlight.engine import RayEngine
from batchlight.engine.base import Answer, Service
from batchlight.images.pixels import Pixels
from batchlight.worker.network_client import CALLS_UNDER_WAY

HEIGHT, WIDTH = 400, 600
IMAGES = (1, 16)
"""Images per call."""
WARM_UP = 20


class Empty:
    """A network that does nothing."""

    def restore_groups(self, groups: list[list[Pixels]]) -> list[list[Pixels]]:
        return groups


def main(calls: int) -> None:
    """Print a Markdown table."""
    print("| images in a call | ms, one after the other (median) | ms, several under way (mean) |")
    print("|---|---|---|")
    with RayEngine(workers=2, address="local", hosts=True) as engine:
        service = asyncio.run(engine.host(Empty, 1, on_gpus=False))
        for images in IMAGES:
            alone, together = asyncio.run(engine.call(measure, service, images, calls))
            print(f"| {images} | {alone:.2f} | {together:.2f} |", flush=True)


def measure(service: Service, images: int, calls: int) -> tuple[float, float]:
    """Milliseconds per call, in both ways, as seen by a worker."""
    rng = np.random.default_rng(0)
    group = [rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(images)]

    def ask() -> Answer:
        return service.submit("restore_groups", [group])

    for _ in range(WARM_UP):
        ask().result()
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        ask().result()
        times.append(time.perf_counter() - started)
    under_way: deque[Answer] = deque()
    started = time.perf_counter()
    for _ in range(calls):
        if len(under_way) == CALLS_UNDER_WAY:
            under_way.popleft().result()
        under_way.append(ask())
    for answer in under_way:
        answer.result()
    mean = (time.perf_counter() - started) / calls
    return 1000 * statistics.median(times), 1000 * mean


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(__doc__)
    main(int(sys.argv[1]) if len(sys.argv) == 2 else 200)
