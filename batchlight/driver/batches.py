"""Runs one batch to completion even if it kills workers, and finds the images responsible.

Most batches are done many at a time (``dispatch.py``); one whose worker has died comes here.
Only the regular run of a batch ever writes or commits. When a batch has killed two workers, its
images are processed without writing, to find those responsible; then the batch runs as usual, with
a failed row for each of them. So the other images, their mean light and their rows come out exactly
as if those images were absent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from batchlight.absgn.loading import Model
from batchlight.config import JobConfig, Method
from batchlight.engine import (
    AsyncSharedOrExclusive,
    Engine,
    Service,
    Trials,
    WorkerDied,
    call_patiently,
)
from batchlight.errors import ErrorCode
from batchlight.fingerprint import Fingerprint
from batchlight.output.inputs import Batch, Input
from batchlight.output.lock import Lock
from batchlight.planning.listing import InputSet
from batchlight.storage import Location
from batchlight.worker.batch_result import BatchResult
from batchlight.worker.context import BatchContext
from batchlight.worker.ending import Redone
from batchlight.worker.handlers import handler_of, run_batch
from batchlight.worker.image import BrokenBatchError, Losses, Unexpected

T = TypeVar("T")

logger = logging.getLogger(__name__)


def context_of(
    config: JobConfig,
    inputs: InputSet,
    output: Location,
    lock: Lock,
    fingerprints: Mapping[Method, Fingerprint],
    model: Model | None,
) -> BatchContext:
    """What all batches of a run or repair share, given the lock it holds."""
    return BatchContext(
        config=config,
        input=inputs.root,
        follow_links=inputs.data_set.follows_links,
        output=output,
        run_id=lock.run_id,
        fingerprints={m: f.digest for m, f in fingerprints.items()},
        container_fingerprints={m: config.container_digest(f) for m, f in fingerprints.items()},
        lock=lock.number,
        pixels_at_once=model.pixels_at_once if model else 0,
        start=model.start if model else None,
    )


@dataclass(frozen=True)
class BatchRunner:
    """Runs the batches of one run on its workers."""

    engine: Engine
    context: BatchContext
    service: Service | None
    admission: AsyncSharedOrExclusive = field(default_factory=AsyncSharedOrExclusive)
    _logged: set[str] = field(default_factory=set)
    """Kinds of unexpected exceptions logged so far."""

    async def run(self, batch: Batch, death: WorkerDied | None = None) -> BatchResult:
        """Run and commit one batch, surviving worker deaths. Raises ``BatchlightError``.

        ``death``: the death of a worker that was processing it.
        """
        with self.logging():
            result = await self._outlast(batch, run_batch, death=death)
        self.log(result.unexpected)
        return result

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Log what made a batch fail as a whole."""
        try:
            yield
        except BrokenBatchError as error:
            self.log(error.unexpected)
            raise

    async def redo(
        self,
        batch: Batch,
        pairs: Collection[tuple[str, Method]],
        lights: Mapping[str, float | None] | None,
    ) -> Redone:
        """Redo the rows and outputs of some (input path, method) pairs; commit nothing.

        ``lights``: the batch's recorded light by method; None to recompute it from all its images.
        """
        if lights is not None:
            wanted = {path for path, _ in pairs}
            inputs = tuple(item for item in batch.inputs if item.path in wanted)
            batch = replace(batch, inputs=inputs)
        redone = await self._outlast(batch, handler_of(batch).redo, pairs, lights)
        self.log(redone.unexpected)
        return redone

    async def _outlast(
        self,
        batch: Batch,
        function: Callable[..., T],
        *arguments: object,
        death: WorkerDied | None = None,
    ) -> T:
        """Call ``function`` on a worker until one survives it.

        Raises ``ClusterError`` after more deaths than images can explain.
        """
        trials = Trials[Input](self.engine, f"batch {batch.number}", self.admission)
        if death is not None:
            trials.add_death(batch.inputs, death)
        fatal_images: dict[tuple[Input, Method | None], ErrorCode] = {}
        parts = 1
        while True:
            losses = Losses(dict(trials.deaths), fatal_images)
            alive = [item for item in batch.inputs if (item, None) not in fatal_images]
            call = partial(function, self.context, self.service, batch, *arguments, losses)
            try:
                # Each part stayed within the timeout; the batch gets the time of all.
                return await trials.call(alive, call, timeouts=parts)
            except WorkerDied:
                if trials.total > 1:  # the first death may have any cause
                    survived = trials.survived
                    fatal_images |= await self._find_fatal_images(batch, trials, fatal_images)
                    parts += trials.survived - survived

    async def _find_fatal_images(
        self,
        batch: Batch,
        trials: Trials[Input],
        known: Mapping[tuple[Input, Method | None], ErrorCode],
    ) -> dict[tuple[Input, Method | None], ErrorCode]:
        """Process a batch that has killed workers, and find what kills: code by image and method.

        The method is None if reading, decoding or analysing the image kills. Suspects for which no
        time is left get ``error``, so that the next run tries them. Writes nothing.
        """
        losses = Losses(fatal_images=known)
        handler = handler_of(batch)
        processing = partial(handler.process_without_writing, self.context, self.service, batch)
        found: dict[tuple[Input, Method | None], ErrorCode] = {}
        together = partial(processing, batch.methods, losses)
        suspects: list[Input] = []
        groups = [list(batch.inputs)]
        if handler.groups is not None:
            groups = await call_patiently(self.engine, handler.groups, self.context, batch)
        for group in groups:
            alive = [item for item in group if (item, None) not in known]
            if len(groups) == 1 or (alive and await trials.dies(together, alive)):
                suspects += await trials.suspects(together, alive)
        for item in suspects:
            for method in (None, *batch.methods):
                if (item, method) in known:
                    continue
                if trials.exhausted:
                    found[item, None] = ErrorCode.ERROR
                    break
                methods = () if method is None else (method,)
                code = await trials.death_alone(partial(processing, methods, losses), item)
                if code is not None:
                    found[item, method] = code
                    if method is None:
                        break
        return found

    def log(self, unexpected: Iterable[Unexpected]) -> None:
        """Log exceptions that no image should cause, once per kind."""
        for error in unexpected:
            if error.kind not in self._logged:
                self._logged.add(error.kind)
                logger.error("unexpected %s\n%s", error.message, error.traceback)
