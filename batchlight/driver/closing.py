"""The end of a plan: workers move its parts to ``metadata/``, one chunk per call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

from batchlight.engine import Engine, WorkerDied, call_patiently, window
from batchlight.errors import ClusterError
from batchlight.output.commit import Move
from batchlight.storage import Location
from batchlight.worker.closing import move_parts

DEATHS_AT_MOST = 3
"""Worker deaths during one move; no image can be to blame for them."""


async def move_all(
    engine: Engine, output: Location, run_id: str, lock: int, moves: Iterator[Move]
) -> None:
    """Run the moves as they arrive. Raises ``BatchlightError``."""

    async def jobs() -> AsyncIterator[Coroutine[Any, Any, None]]:
        while (move := await asyncio.to_thread(next, moves, None)) is not None:
            yield _done(engine, output, run_id, lock, move)

    async for _ in window(jobs(), engine.window):
        pass


async def _done(engine: Engine, output: Location, run_id: str, lock: int, move: Move) -> None:
    for _ in range(DEATHS_AT_MOST):
        try:
            await call_patiently(engine, move_parts, output, run_id, lock, move)
            return
        except WorkerDied as error:
            death = error
    raise ClusterError(
        f"moving the records of {move.chunk.file_name} has killed {DEATHS_AT_MOST} workers, the "
        f"last by {death.code}; check their memory, then run the same command again"
    ) from death
