"""Whether the head of a Ray cluster still answers.

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
    """The head of a cluster, at ``host:port``; asked only while somebody waits for something."""

    def __init__(self, address: str) -> None:
        self._host, _, self._port = address.rpartition(":")
        self._patience = max(
            0.0, float(os.environ.get(RAYS_PATIENCE, RAYS_PATIENCE_S)) - TIME_TO_LEAVE_S
        )
        self._asked = 0.0
        self._silent_since: float | None = None

    async def watch(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for ``work``. Raises what it raises, and ``ClusterError`` if the head is lost."""
        waiting = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait({waiting}, timeout=ASK_EVERY_S))[0]:
                await self._ask()
            return waiting.result()
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)  # it has a call to cancel

    async def _ask(self) -> None:
        now = time.monotonic()
        if now - self._asked < ASK_EVERY_S:  # somebody else who waits has asked just now
            return
        self._asked = now
        try:
            connecting = asyncio.open_connection(self._host.strip("[]"), int(self._port))
            _, writer = await asyncio.wait_for(connecting, ANSWERS_WITHIN_S)
        except OSError as error:
            self._silent_since = self._silent_since or now
            if now - self._silent_since >= self._patience:
                raise ClusterError(
                    f"the head of the Ray cluster at {self._host}:{self._port} is gone; "
                    "run the same command again when there is a cluster"
                ) from error
        else:
            self._silent_since = None
            writer.close()
