"""A batch on a worker; and if the worker does not survive it, finding the image to blame.

The batch keeps its mean, and with it its pixels: first only the survey is bisected, which gives the
mean over all images that can be surveyed, then the rest of the work, with that mean.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

from batchlight.batch import (
    Batch,
    BatchResult,
    failed_record,
    finish_images,
    run_batch,
    survey_images,
)
from batchlight.dehaze import batch_light
from batchlight.engine import Engine, WorkerDied, bisect, call_patiently
from batchlight.errors import ErrorCode
from batchlight.feeding import Service
from batchlight.records import Record, write_part
from batchlight.steps import BatchContext, Failure
from batchlight.storage import open_storage

_WHY_DIED = {
    ErrorCode.CRASH: "it killed its worker each time it was tried alone",
    ErrorCode.OUT_OF_MEMORY: "it needs more memory than a worker has",
    ErrorCode.TIMEOUT: "it did not end within --timeout when tried alone",
}


async def do_batch(
    engine: Engine, context: BatchContext, service: Service | None, batch: Batch
) -> BatchResult:
    """Do and commit one batch, whatever it takes."""
    try:
        return await call_patiently(engine, run_batch, context, service, batch)
    except WorkerDied:
        records = await _isolate(engine, context, service, batch)
    storage = open_storage(context.output)
    tally = await asyncio.to_thread(write_part, storage, batch.number, records)
    return BatchResult(tally)


async def _isolate(
    engine: Engine, context: BatchContext, service: Service | None, batch: Batch
) -> list[Record]:
    """The rows of a batch that has killed its worker once."""
    survey = partial(survey_images, context, batch.number)
    surveys = await bisect(engine, survey, batch.inputs, deaths=1)
    lights = [s.result.atmospheric_light for s in surveys if s.result is not None]
    light = batch_light([estimate for estimate in lights if estimate is not None])

    survivors = [i for i, s in zip(batch.inputs, surveys, strict=True) if s.died is None]
    deaths = max(survey.attempts for survey in surveys) - 1
    records = []
    for method in batch.methods:  # apart, since what kills the one may be fine for the other
        finish = partial(finish_images, context, batch.number, method, light, service)
        outcomes = await bisect(engine, finish, survivors, deaths)
        finished = dict(zip(survivors, outcomes, strict=True))
        for item, surveyed in zip(batch.inputs, surveys, strict=True):
            outcome = finished.get(item, surveyed)
            if isinstance(outcome.result, Record):
                records.append(replace(outcome.result, attempts=outcome.attempts))
                continue
            assert outcome.died is not None
            failure = Failure(outcome.died, _WHY_DIED[outcome.died])
            row = (item, method, failure, light, outcome.attempts)
            records.append(failed_record(context, batch.number, *row))
    return records
