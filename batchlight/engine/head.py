"""Checks whether the head of a Ray cluster still answers.

When it does not, Ray kills this process after a minute, whatever it is doing. A run that notices
earlier can still say what happened and write its summary.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from batchlight.errors import ClusterError

T = TypeVar("T")

ASK_EVERY_S = 3.0
ANSWERS_WITHIN_S = 5.0
TIME_TO_LEAVE_S = 30.0
"""Give up this long before Ray kills the process: while the head is unreachable,
``ray.shutdown()`` takes 10 to 20 s."""

RAYS_PATIENCE = "RAY_gcs_rpc_server_reconnect_timeout_s"
RAYS_PATIENCE_S = "60"
"""Environment variable that sets Ray's own patience in seconds, and its default."""


class Head:
    """The head of a cluster, at ``host:port``; probed only while something is awaited."""

    def __init__(self, address: str) -> None:
        self._host, _, self._port = address.rpartition(":")
        self._patience = max(
            0.0, float(os.environ.get(RAYS_PATIENCE, RAYS_PATIENCE_S)) - TIME_TO_LEAVE_S
        )
        self._awaited: set[asyncio.Task[Any]] = set()
        self._asking: asyncio.Task[None] | None = None
        """Probes on behalf of all that is awaited."""
        self._lost: ClusterError | None = None

    async def watch(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for ``work``. Raises what it raises, and ``ClusterError`` if the head is lost."""
        if self._lost is not None:
            work.close()
            raise self._lost
        waiting = asyncio.ensure_future(work)
        self._awaited.add(waiting)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._ask())
        try:
            await asyncio.wait({waiting})
            if self._lost is not None:
                raise self._lost
            return waiting.result()
        finally:
            self._awaited.remove(waiting)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)  # it has a call to cancel

    async def _ask(self) -> None:
        """Keep probing; once the head is lost, cancel what is awaited."""
        silent_since: float | None = None
        while self._awaited and self._lost is None:
            await asyncio.sleep(ASK_EVERY_S)
            now = time.monotonic()
            if await self._answers():
                silent_since = None
                continue
            silent_since = silent_since or now
            if now - silent_since >= self._patience:
                self._lost = ClusterError(
                    f"the head of the Ray cluster at {self._host}:{self._port} is gone; "
                    "run the same command again when there is a cluster"
                )
                for waiting in self._awaited:
                    waiting.cancel()
        self._asking = None  # a task that has ended would still hold its event loop

    async def _answers(self) -> bool:
        try:
            connecting = asyncio.open_connection(self._host.strip("[]"), int(self._port))
            _, writer = await asyncio.wait_for(connecting, ANSWERS_WITHIN_S)
        except OSError:
            return False
        writer.close()
        return True
