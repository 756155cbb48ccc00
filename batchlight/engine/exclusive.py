"""Locks that many calls may hold at once, or one alone, which keeps later ones waiting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager


class SharedOrExclusive:
    """Between threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._alone = 0
        """Calls that are alone, or waiting to be."""

    @contextmanager
    def entered(self, alone: bool) -> Iterator[None]:
        """Wait to be admitted."""
        with self._changed:
            if alone:
                self._alone += 1
                self._changed.wait_for(lambda: not self._inside)
            else:
                self._changed.wait_for(lambda: not self._alone)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._alone -= alone
                self._changed.notify_all()


class AsyncSharedOrExclusive:
    """Between coroutines; one alone has all resources, such as memory, for itself."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._inside = 0
        self._alone = 0
        """Calls that are alone, or waiting to be."""

    @asynccontextmanager
    async def entered(self, alone: bool) -> AsyncIterator[None]:
        """Wait to be admitted."""
        async with self._changed:
            self._alone += alone
            try:
                await self._changed.wait_for(lambda: not self._inside if alone else not self._alone)
                self._inside += 1
            except BaseException:
                self._alone -= alone
                self._changed.notify_all()
                raise
        try:
            yield
        finally:
            async with self._changed:
                self._inside -= 1
                self._alone -= alone
                self._changed.notify_all()
