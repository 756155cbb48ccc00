"""A batch on a worker; and if the worker does not survive it, finding the image to blame.

The batch keeps its mean, and with it its pixels: first only the survey is bisected, which gives the
mean over all images that can be surveyed, then the rest of the work, with that mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from batchlight.classical.light import batch_light
from batchlight.config import Method
from batchlight.engine import Engine, Outcome, WorkerDied, bisect, call_patiently
from batchlight.engine.base import Service
from batchlight.errors import ErrorCode
from batchlight.output.inputs import Batch, Input
from batchlight.output.recordfiles import write_part
from batchlight.output.records import Record
from batchlight.storage import open_storage
from batchlight.worker.pipeline import BatchResult, Survey, finish_images, run_batch, survey_images
from batchlight.worker.steps import BatchContext, Failure, Image, as_record

_WHY_DIED = {
    ErrorCode.CRASH: "it killed its worker each time it was tried alone",
    ErrorCode.OUT_OF_MEMORY: "it needs more memory than a worker has",
    ErrorCode.TIMEOUT: "it did not end within --timeout when tried alone",
}


@dataclass(frozen=True)
class BatchRunner:
    """Does the batches of one run on its workers.

    ``deaths`` is how many workers have died of a batch before: an image's ``attempts`` count them.
    """

    engine: Engine
    context: BatchContext
    service: Service | None

    async def run(self, batch: Batch) -> BatchResult:
        """Do and commit one batch, whatever it takes."""
        try:
            return await call_patiently(self.engine, run_batch, self.context, self.service, batch)
        except WorkerDied:
            records = await self._isolate(batch)
        storage = open_storage(self.context.output)
        return BatchResult.of(await asyncio.to_thread(write_part, storage, batch.number, records))

    async def survey(
        self, batch: Batch, deaths: int = 0
    ) -> tuple[dict[Input, Outcome[Survey]], float | None]:
        """Only the first pass over a batch, and the light that follows from it."""
        survey = partial(survey_images, self.context)
        found = await bisect(self.engine, survey, batch.inputs, deaths)
        lights = [s.result.atmospheric_light for s in found if s.result is not None]
        light = batch_light([estimate for estimate in lights if estimate is not None])
        return dict(zip(batch.inputs, found, strict=True)), light

    async def finish(
        self,
        number: int,
        method: Method,
        light: float | None,
        inputs: Sequence[Input],
        deaths: int = 0,
    ) -> list[Record]:
        """Only the second pass over some images of a batch; a row for each, whatever happens."""
        finish = partial(finish_images, self.context, number, method, light, self.service)
        outcomes = await bisect(self.engine, finish, inputs, deaths)
        return [
            replace(outcome.result, attempts=outcome.attempts)
            if outcome.result is not None
            else self._dead_record(number, item, method, light, outcome)
            for item, outcome in zip(inputs, outcomes, strict=True)
        ]

    async def _isolate(self, batch: Batch) -> list[Record]:
        """The rows of a batch that has killed its worker once."""
        surveyed, light = await self.survey(batch, deaths=1)
        survivors = [item for item, survey in surveyed.items() if survey.died is None]
        deaths = max(survey.attempts for survey in surveyed.values()) - 1
        records = []
        for method in batch.methods:  # apart, since what kills the one may be fine for the other
            records += [
                self._dead_record(batch.number, item, method, light, survey)
                for item, survey in surveyed.items()
                if survey.died is not None
            ]
            records += await self.finish(batch.number, method, light, survivors, deaths)
        return records

    def _dead_record(
        self, number: int, item: Input, method: Method, light: float | None, outcome: Outcome[Any]
    ) -> Record:
        """The row of an image that no worker survived."""
        assert outcome.died is not None
        image = Image(item, failure=Failure(outcome.died, _WHY_DIED[outcome.died]))
        record = as_record(self.context, number, image, method, light)
        return replace(record, attempts=outcome.attempts)
