"""Reading ahead and writing behind, in threads, while this one computes; both bounded in bytes.

Small files are handed to a thread together, since waking it takes as long as reading one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Self, TypeVar

T = TypeVar("T")
Item = TypeVar("Item")
Data = TypeVar("Data")

READ_AHEAD_BYTES = 64 * 2**20
"""Budget for files read before their turn; a larger file is read when its turn comes."""
WRITE_BEHIND_BYTES = 64 * 2**20
"""Budget for encoded images still to be written; the thread waits for larger ones."""

READ_THREADS = 4
GROUPS_AHEAD = 8
WRITE_THREADS = 4
GROUPS_BEHIND = 8

GROUP_BYTES = 2**20
GROUP_ITEMS = 16


class _Backlog(Generic[T]):
    """Work of threads whose results have not been collected yet."""

    def __init__(self, bytes_at_most: int, groups_at_most: int) -> None:
        self._bytes_at_most = bytes_at_most
        self._groups_at_most = groups_at_most
        self._waiting: deque[tuple[int, Future[T]]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def has_room(self, size: int) -> bool:
        """Whether ``size`` more bytes fit the budget; anything fits into an empty backlog."""
        fits = self._bytes + size <= self._bytes_at_most
        return not self._waiting or (fits and len(self._waiting) < self._groups_at_most)

    def add(self, size: int, work: Future[T]) -> None:
        self._waiting.append((size, work))
        self._bytes += size

    def take(self) -> T:
        """Wait for the oldest result. Raises what the work raised."""
        size, work = self._waiting.popleft()
        self._bytes -= size
        return work.result()

    def cancel(self) -> None:
        """Start no more of the work."""
        for _, work in self._waiting:
            work.cancel()


def read_ahead(
    items: Iterable[Item], size: Callable[[Item], int], read: Callable[[Item], Data]
) -> Iterator[tuple[Item, Data]]:
    """Yield each item with what ``read`` returns, in order.

    ``size``: how many bytes ``read`` adds to memory. Items already yielded do not count, so drop
    each item before asking for the next.
    """
    groups = _groups(items, size)
    ahead = _Backlog[deque[tuple[Item, Data]]](READ_AHEAD_BYTES, GROUPS_AHEAD)
    with ThreadPoolExecutor(READ_THREADS) as pool:
        try:
            group = next(groups, None)
            while group is not None or ahead:
                while group is not None and ahead.has_room(group[0]):
                    ahead.add(group[0], pool.submit(_read_all, group[1], read))
                    group = next(groups, None)
                yield from drained(ahead.take())
        finally:
            ahead.cancel()  # in case nobody is waiting for it any longer


def read_in_turn(
    items: Iterable[Item], size: Callable[[Item], int], read: Callable[[Item], Data]
) -> Iterator[tuple[Item, Data]]:
    """The same without threads, for what is read faster than a thread is woken."""
    return ((item, read(item)) for item in items)


class WriteBehind:
    """Runs writes in threads.

    If its block fails, what has not begun is dropped: nothing can be committed without ``flush``.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(WRITE_THREADS)
        self._group: list[Callable[[], object]] = []
        self._group_bytes = 0
        self._behind = _Backlog[None](WRITE_BEHIND_BYTES, GROUPS_BEHIND)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)

    def put(self, write: Callable[[], object], size: int) -> None:
        """Schedule ``write``, which holds ``size`` bytes. Raises errors of earlier writes."""
        if self._group_bytes + size > GROUP_BYTES:
            self._send()
        self._group.append(write)
        self._group_bytes += size
        if self._group_bytes >= GROUP_BYTES or len(self._group) >= GROUP_ITEMS:
            self._send()

    def flush(self) -> None:
        """Wait for all writes. Raises what they raised."""
        self._send()
        while self._behind:
            self._behind.take()

    def _send(self) -> None:
        if not self._group:
            return
        while not self._behind.has_room(self._group_bytes):
            self._behind.take()
        self._behind.add(self._group_bytes, self._pool.submit(_do_all, self._group))
        if self._group_bytes > WRITE_BEHIND_BYTES:
            self._behind.take()
        self._group, self._group_bytes = [], 0


def _groups(items: Iterable[Item], size: Callable[[Item], int]) -> Iterator[tuple[int, list[Item]]]:
    """Items to read together, with their size; a large one by itself."""
    group: list[Item] = []
    total = 0
    for item in items:
        its = size(item)
        if group and (total + its > GROUP_BYTES or len(group) >= GROUP_ITEMS):
            yield total, group
            group, total = [], 0
        group.append(item)
        total += its
    if group:
        yield total, group


def _read_all(group: Iterable[Item], read: Callable[[Item], Data]) -> deque[tuple[Item, Data]]:
    return deque((item, read(item)) for item in group)


def drained(queue: deque[T]) -> Iterator[T]:
    """Yield all items without keeping them."""
    while queue:
        yield queue.popleft()


def _do_all(group: Iterable[Callable[[], object]]) -> None:
    for do in group:
        do()
