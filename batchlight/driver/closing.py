"""The end of a plan: workers move its parts to ``metadata/``, one chunk per call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

from batchlight.engine import Engine, call_until_done, window
from batchlight.output.commit import Move
from batchlight.storage import Location
from batchlight.worker.closing import move_parts


async def move_all(
    engine: Engine, output: Location, run_id: str, lock: int, moves: Iterator[Move]
) -> None:
    """Run the moves as they arrive. Raises ``BatchlightError``."""

    async def jobs() -> AsyncIterator[Coroutine[Any, Any, None]]:
        while (move := await asyncio.to_thread(next, moves, None)) is not None:
            what = f"moving the records of {move.chunk.file_name}"
            yield call_until_done(engine, what, move_parts, output, run_id, lock, move)

    async for _ in window(jobs(), engine.window):
        pass
