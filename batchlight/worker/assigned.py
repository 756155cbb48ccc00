"""Batches that one worker runs one after another, as one piece of work.

The worker reads their rows from the plan itself. Each batch has its own timeout, and its own part,
which tells the driver that it is done, whatever happens to this process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa

from batchlight.engine.base import Service
from batchlight.output.chunks import batches_in, read_chunk
from batchlight.output.inputs import DataSet
from batchlight.output.layout import BatchRange
from batchlight.output.records import Tally
from batchlight.storage import Location, open_storage
from batchlight.worker.batch_result import BatchResult
from batchlight.worker.context import BatchContext
from batchlight.worker.handlers import handler_of
from batchlight.worker.image import Image, Losses, tally_so_far
from batchlight.worker.places import refuse_unshared


@dataclass(frozen=True)
class Assignment:
    """Some batches of a chunk of a plan."""

    plan: int
    """The first batch of the plan."""
    chunk: BatchRange
    batches: BatchRange
    done: frozenset[int] = frozenset()
    """Batches among them that are already done."""

    @property
    def numbers(self) -> list[int]:
        """Numbers of the batches to do, in order."""
        return [number for number in self.batches.numbers() if number not in self.done]


@dataclass(frozen=True)
class AssignmentReport:
    """What a worker has done since its last report."""

    last: int | None
    """The number of the last batch committed since the last report; None if there is none."""
    result: BatchResult | None
    """Result of the batches committed since the last report."""
    batches: int
    """The number of these batches."""
    seconds: float
    """The time that they took."""
    under_way: Tally
    """Images of the current batch whose outputs are written, or that failed."""


class AssignedWork:
    """The batches of an assignment; ``engine.Work``."""

    def __init__(
        self,
        context: BatchContext,
        service: Service | None,
        data_set: DataSet,
        unnamed: frozenset[str] | None,
        assignment: Assignment,
    ) -> None:
        """``unnamed``: the result of ``DataSet.unnamed_in`` for the chunk."""
        self._context = context
        self._service = service
        self._data_set = data_set
        self._unnamed = unnamed
        self._assignment = assignment
        self._lock = threading.Lock()
        """Guards all that follows."""
        self._images: Sequence[Image] = ()
        """Images being worked on; of a container, one group of them."""
        self._before = Tally()
        """Tally of the groups before it."""
        self._began = 0.0
        self._news = AssignmentReport(None, None, 0, 0.0, Tally())

    def steps(self, timed: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
        """Run and commit each batch. Raises as ``run_batch``."""
        context = self._context
        refuse_unshared(context.input, context.output, context.run_id)
        assigned = self._assignment
        rows = _chunk(context.output, context.run_id, assigned.plan, assigned.chunk)
        for batch in batches_in(rows, assigned.numbers):
            with timed():
                vetted = self._data_set.vetted(batch, self._unnamed)
                with self._lock:
                    self._began = time.monotonic()
                to_do = self._context, self._service, vetted, Losses(), self._watch
                result = yield from handler_of(vetted).in_steps(*to_do)
                self._committed(batch.number, result)

    def _watch(self, images: Sequence[Image], before: Tally) -> None:
        with self._lock:
            self._images, self._before = images, before

    def _committed(self, number: int, result: BatchResult) -> None:
        with self._lock:
            news = self._news
            self._news = AssignmentReport(
                number,
                result if news.result is None else news.result + result,
                news.batches + 1,
                news.seconds + time.monotonic() - self._began,
                Tally(),
            )
            self._images, self._before = (), Tally()

    def report(self) -> AssignmentReport:
        """What is new since the last report."""
        with self._lock:
            news, self._news = self._news, AssignmentReport(None, None, 0, 0.0, Tally())
            under_way = self._before + tally_so_far(self._images)
            return AssignmentReport(news.last, news.result, news.batches, news.seconds, under_way)


@lru_cache(maxsize=1)
def _chunk(output: Location, run_id: str, plan: int, chunk: BatchRange) -> pa.Table:
    """The rows of a chunk; cached, since a worker often gets several of its ranges in a row."""
    return read_chunk(open_storage(output), plan, chunk)
