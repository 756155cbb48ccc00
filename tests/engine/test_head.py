"""The head of a cluster is asked whether it is there, once for all who wait."""

from __future__ import annotations

import asyncio

import pytest

from batchlight.engine import head
from batchlight.engine.head import RAYS_PATIENCE, Head
from batchlight.errors import ClusterError

WAITING = 20


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "ASK_EVERY_S", 0.05)
    monkeypatch.setenv(RAYS_PATIENCE, str(head.TIME_TO_LEAVE_S + 0.1))


async def _listening(asked: list[None]) -> tuple[asyncio.Server, Head]:
    def hear(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(None)
        writer.close()

    server = await asyncio.start_server(hear, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    return server, Head(f"127.0.0.1:{port}")


def test_one_question_for_all_who_wait() -> None:
    asked: list[None] = []

    async def work(number: int) -> int:
        await asyncio.sleep(0.5)
        return number

    async def run() -> list[int]:
        server, its_head = await _listening(asked)
        async with server:
            return await asyncio.gather(*(its_head.watch(work(n)) for n in range(WAITING)))

    assert asyncio.run(run()) == list(range(WAITING))
    assert 2 <= len(asked) <= 0.5 / 0.05


def test_a_lost_head_ends_all_that_is_awaited() -> None:
    cancelled: list[int] = []

    async def work(number: int) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.append(number)

    async def run() -> list[BaseException | None]:
        server, its_head = await _listening([])
        watched = [asyncio.ensure_future(its_head.watch(work(n))) for n in range(WAITING)]
        await asyncio.sleep(0.2)
        server.close()
        await server.wait_closed()
        return await asyncio.gather(*watched, return_exceptions=True)

    errors = asyncio.run(run())
    assert sorted(cancelled) == list(range(WAITING))
    assert all(isinstance(error, ClusterError) and "is gone" in str(error) for error in errors)


def test_what_is_awaited_fails_as_ever_and_is_ended_with_the_one_who_waits() -> None:
    ended: list[None] = []

    async def fails() -> None:
        raise ValueError("of its own")

    async def lasts() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(None)

    async def run() -> None:
        server, its_head = await _listening([])
        async with server:
            with pytest.raises(ValueError, match="of its own"):
                await its_head.watch(fails())
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(its_head.watch(lasts()), 0.2)

    asyncio.run(run())
    assert ended == [None]


def test_nothing_more_is_awaited_from_a_head_that_is_lost() -> None:
    async def work() -> None:
        await asyncio.sleep(60)

    async def run() -> None:
        server, its_head = await _listening([])
        server.close()
        await server.wait_closed()
        for _ in range(2):
            with pytest.raises(ClusterError, match="is gone"):
                await asyncio.wait_for(its_head.watch(work()), 5)

    asyncio.run(run())
