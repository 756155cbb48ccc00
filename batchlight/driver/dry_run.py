"""What a run would do, found out without writing anything."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from batchlight.absgn.loading import weights_of
from batchlight.config import JobConfig
from batchlight.driver.emptiness import refuse_nothing
from batchlight.driver.estimates import IMAGES_TRIED, Estimate, Work
from batchlight.driver.network import fingerprints_of, model_of
from batchlight.driver.places import as_begun, open_places, plan_to_finish
from batchlight.driver.planner import Planner
from batchlight.engine import Engine, make_engine
from batchlight.output.earlier import earlier_rows
from batchlight.output.inputs import Input
from batchlight.output.layout import require_known_format
from batchlight.output.plan import PlannedBatch
from batchlight.output.state import OutputState
from batchlight.output.status import rows_left
from batchlight.storage import open_storage

SEED = 0


@dataclass(frozen=True)
class DryRun:
    """What a run would do."""

    input: str
    output: str
    inputs: int
    input_bytes: int
    todo: int
    todo_bytes: int
    batches: int
    batch_size: int
    """Images in each of them, but for the last."""
    todo_pairs: int
    """(image, method) pairs, each of which makes a record."""
    new: int
    changed: int
    retried: int
    unchanged: int
    gone: int
    """Records of images that are no longer there."""
    beyond: int
    """Rows of earlier runs whose images ``--limit`` has kept from being looked for."""
    passed_over: Mapping[str, int]
    """Files that are no images, by suffix."""
    others: int
    """Files that are no images, and are copied; in none of the counts of images."""
    others_bytes: int
    todo_others: int
    left_of_stored_plan: int
    """(input, method) pairs that a killed run left; they are done first, in their own batches."""
    estimate: Estimate | None = None
    """What the images that are to do will take; None if that is not asked for, or not known."""


def dry_run(config: JobConfig, estimate: bool = False) -> DryRun:
    """List and compare as a run would, writing nothing; the same as ``batchlight plan``.

    ``estimate``: also tell what it will take, for which a few images may be tried.

    Raises the errors of a run that come before its work: ``UsageError`` for outputs that collide
    or for changed parameters, ``StorageError`` for places out of reach.
    """
    inputs, output = open_places(config)
    with ExitStack() as exits:  # a cluster is asked for its GPUs only if that decides

        def engine() -> Engine:
            return exits.enter_context(make_engine(config.workers, config.address, config.timeout))

        model = model_of(config, weights_of(config), engine)
    storage = open_storage(output)
    if output.remote:
        storage.check(writable=False)  # says soon if it is out of reach; reading would be patient
    require_known_format(storage)
    state = OutputState.load(storage)
    config = as_begun(config, state)
    fingerprints = fingerprints_of(config, model)
    left = 0
    stored = plan_to_finish(config, fingerprints, inputs, output, state)
    if stored is not None:
        left = rows_left(storage, state)
        # Once it is finished, everything has been overwritten that there was to overwrite.
        config = config.model_copy(update={"overwrite": False})
    planner = Planner(config, fingerprints, inputs.passed_over)
    sample = _sampled(planner.chunks(inputs.images(), earlier_rows(storage, state), first=0))
    if not config.allow_empty and not left:
        refuse_nothing(inputs, planner.counts)
    counts = {n: v for n, v in vars(planner.counts).items() if not n.endswith("_tally")}
    counts |= {"batch_size": planner.batch_size, "todo_pairs": planner.pairs}
    counts["passed_over"] = dict(planner.counts.passed_over)
    if estimate and sample:
        work = Work(config, model, inputs, output, planner.counts, planner.pairs, sample)
        digests = {method: f.digest for method, f in fingerprints.items()}
        counts["estimate"] = work.estimate(storage, state, digests)
    return DryRun(input=str(inputs.given), output=str(output), left_of_stored_plan=left, **counts)


def _sampled(chunks: Iterable[list[PlannedBatch]]) -> list[Input]:
    """Some of the images, each as likely as any other, and the same ones each time."""
    chance = random.Random(SEED)
    sample: list[Input] = []
    seen = 0
    for chunk in chunks:
        for item in (item for planned in chunk for item in planned.batch.inputs):
            if item.is_other or item.defect is not None:
                continue
            seen += 1
            if len(sample) < IMAGES_TRIED:
                sample.append(item)
            elif (place := chance.randrange(seen)) < IMAGES_TRIED:
                sample[place] = item
    return sample
