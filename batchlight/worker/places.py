"""The storages that a worker uses: opened once, and checked to be the driver's too."""

from __future__ import annotations

import socket
from functools import lru_cache

from batchlight.errors import ClusterError, UsageError
from batchlight.output.fence import fenced_for_worker
from batchlight.storage import Location, Storage, open_source, open_storage
from batchlight.storage.base import INTERNAL

OPEN_STORAGES = 16
"""Places that a worker stays connected to: the input, the output, the buckets of a list."""


@lru_cache(maxsize=OPEN_STORAGES)
def source_of(location: Location, follow_links: bool, run_id: str) -> Storage:
    """The storage of a place: one connection pool per place, process and run, not per batch."""
    return open_source(location, follow_links)


@lru_cache(maxsize=OPEN_STORAGES)
def output_of(location: Location, run_id: str, lock: int) -> Storage:
    """The same for the output; it remembers when it last checked the locks."""
    return fenced_for_worker(open_storage(location), lock, str(location))


@lru_cache(maxsize=OPEN_STORAGES)
def refuse_unshared(source: Location, output: Location, run_id: str) -> None:
    """Raise ``ClusterError`` in a process that does not see the folders of the driver.

    On a node with folders of its own, every image would be missing, or written where nobody looks.
    Checked once per run.
    """
    for place in (source, output.joined(INTERNAL)):
        try:
            if not place.remote:
                open_storage(place).check(writable=False)
        except UsageError as error:
            raise ClusterError(
                f"the worker on {socket.gethostname()} does not see {place}; a cluster needs an "
                "object store, or folders that all its nodes share"
            ) from error
