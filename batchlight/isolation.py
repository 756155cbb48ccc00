"""A batch on a worker; and if the worker does not survive it, finding the image to blame.

The batch keeps its mean, and with it its pixels: first only the survey is bisected, which gives the
mean over all images that can be surveyed, then the rest of the work, with that mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from batchlight.batch import (
    Batch,
    BatchResult,
    Survey,
    failed_record,
    finish_images,
    run_batch,
    survey_images,
)
from batchlight.config import Method
from batchlight.engine import Engine, Outcome, WorkerDied, bisect, call_patiently
from batchlight.errors import ErrorCode
from batchlight.feeding import Service
from batchlight.inputs import Input
from batchlight.light import batch_light
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
    return BatchResult.of(await asyncio.to_thread(write_part, storage, batch.number, records))


async def survey_apart(
    engine: Engine, context: BatchContext, batch: Batch, deaths: int = 0
) -> tuple[dict[Input, Outcome[Survey]], float | None]:
    """Only the first pass over a batch, and the light that follows from it."""
    survey = partial(survey_images, context, batch.number)
    found = await bisect(engine, survey, batch.inputs, deaths)
    lights = [s.result.atmospheric_light for s in found if s.result is not None]
    light = batch_light([estimate for estimate in lights if estimate is not None])
    return dict(zip(batch.inputs, found, strict=True)), light


async def finish_apart(
    engine: Engine,
    context: BatchContext,
    service: Service | None,
    number: int,
    method: Method,
    light: float | None,
    inputs: Sequence[Input],
    deaths: int = 0,
) -> list[Record]:
    """Only the second pass over some images of a batch; a row for each, whatever happens to it."""
    finish = partial(finish_images, context, number, method, light, service)
    outcomes = await bisect(engine, finish, inputs, deaths)
    return [
        replace(outcome.result, attempts=outcome.attempts)
        if outcome.result is not None
        else _dead_record(context, number, item, method, light, outcome)
        for item, outcome in zip(inputs, outcomes, strict=True)
    ]


async def _isolate(
    engine: Engine, context: BatchContext, service: Service | None, batch: Batch
) -> list[Record]:
    """The rows of a batch that has killed its worker once."""
    surveyed, light = await survey_apart(engine, context, batch, deaths=1)
    survivors = [item for item, survey in surveyed.items() if survey.died is None]
    deaths = max(survey.attempts for survey in surveyed.values()) - 1
    records = []
    for method in batch.methods:  # apart, since what kills the one may be fine for the other
        records += [
            _dead_record(context, batch.number, item, method, light, survey)
            for item, survey in surveyed.items()
            if survey.died is not None
        ]
        rest = (batch.number, method, light, survivors, deaths)
        records += await finish_apart(engine, context, service, *rest)
    return records


def _dead_record(
    context: BatchContext,
    number: int,
    item: Input,
    method: Method,
    light: float | None,
    outcome: Outcome[Any],
) -> Record:
    assert outcome.died is not None
    failure = Failure(outcome.died, _WHY_DIED[outcome.died])
    return failed_record(context, number, item, method, failure, light, outcome.attempts)
