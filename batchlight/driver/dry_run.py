"""What a run would do, found out without writing anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from batchlight.absgn.loading import weights_of
from batchlight.config import JobConfig
from batchlight.driver.census import Census, census
from batchlight.driver.emptiness import refuse_nothing
from batchlight.driver.estimates import Estimate, RandomSample, Workload
from batchlight.driver.network import fingerprints_of, model_of
from batchlight.driver.places import as_begun, engine_of, open_places, plan_to_finish
from batchlight.engine import Engine
from batchlight.output.chunks import PlannedBatch
from batchlight.output.earlier import earlier_rows
from batchlight.output.inputs import Input
from batchlight.output.layout import require_known_format
from batchlight.output.state import OutputState
from batchlight.output.status import rows_left
from batchlight.planning.planner import Planner
from batchlight.storage import open_storage


@dataclass(frozen=True)
class DryRun:
    """What a run would do."""

    input: str
    output: str
    inputs: int
    """Images, including those in containers as far as ``in_containers`` or records show."""
    containers: int
    input_bytes: int
    todo: int
    todo_bytes: int
    todo_containers: int
    batches: int
    batch_size: int
    """Images per batch, except the last."""
    todo_pairs: int
    """(image, method) pairs, each of which produces a record."""
    new: int
    """New images among those to do; here and below, a container counts as one image."""
    changed: int
    retried: int
    unchanged: int
    gone: int
    """Records whose images no longer exist."""
    not_selected: int
    """Records whose inputs the options do not select, whether or not they still exist."""
    passed_over: Mapping[str, int]
    """Files that are not images, by suffix."""
    beside: int
    """Files beside containers, which are copied with them."""
    others: int
    """Files that are not images but are copied; not part of any image count."""
    others_bytes: int
    todo_others: int
    left_of_stored_plan: int
    """(input, method) pairs left by a killed run; they are done first, in their own batches."""
    in_containers: Census = field(default_factory=Census)
    """Contents of the containers to do."""
    estimate: Estimate | None = None
    """Estimate for the images to do; None if not requested or not known."""


def dry_run(config: JobConfig, estimate: bool = False) -> DryRun:
    """List and compare as a run would, writing nothing; the same as ``batchlight plan``.

    ``estimate``: also estimate time and cost, which may require trying a few images.

    Raises the errors that a run raises before it starts work: ``UsageError`` for colliding outputs
    or changed parameters, ``StorageError`` for unreachable places.
    """
    inputs, output = open_places(config)
    with ExitStack() as exits:  # a cluster is asked for its GPUs only if they matter

        def engine() -> Engine:
            return exits.enter_context(engine_of(config))

        model = model_of(config, weights_of(config), engine)
    storage = open_storage(output)
    if output.remote:
        storage.check(writable=False)  # fails early if it is unreachable; reads would keep retrying
    require_known_format(storage)
    state = OutputState.load(storage)
    config = as_begun(config, state)
    fingerprints = fingerprints_of(config, model)
    left, rest_of = 0, None
    stored = plan_to_finish(config, fingerprints, inputs, output, storage, state)
    if stored is not None:
        left = rows_left(storage, state)
        # So far, everything that was to be overwritten has been.
        if stored.overwrite and stored.has_more:
            rest_of = stored
        config = config.model_copy(update={"overwrite": rest_of is not None})
    planner = Planner(config, fingerprints, inputs.passed_over, rest_of=rest_of)
    sample = RandomSample()
    containers: list[Input] = []
    stretches = planner.stretches(inputs.images(), earlier_rows(storage, state))
    for item in _todo(planner.chunks(stretches, first=0)):
        if item.container:
            containers.append(item)
        elif not item.is_other:
            sample.add(item)
    if not config.allow_empty and not left:
        refuse_nothing(inputs, planner.counts)
    counts = {n: v for n, v in vars(planner.counts).items() if not n.endswith("_tally")}
    counts["batch_size"] = planner.batch_size
    counts["passed_over"] = dict(planner.counts.passed_over)
    inside = census(containers, inputs, config, sample.add)
    if estimate and (sample.images or containers):
        found = planner.findings
        files = found.pairs - found.container_pairs
        work = Workload(
            *(config, model, inputs, output, planner.counts, files, sample.images),
            *(containers, found.container_pairs, inside),
        )
        digests = {m: {f.digest, config.container_digest(f)} for m, f in fingerprints.items()}
        counts["estimate"] = work.estimate(storage, state, digests)
    return DryRun(
        input=str(inputs.given),
        output=str(output),
        left_of_stored_plan=left,
        in_containers=inside,
        **{**counts, **_images_of(planner, inside)},
    )


def _todo(chunks: Iterable[list[PlannedBatch]]) -> Iterator[Input]:
    return (item for chunk in chunks for planned in chunk for item in planned.batch.inputs)


def _images_of(planner: Planner, inside: Census) -> dict[str, int]:
    """Number of images in total and to do, including those in containers."""
    counts, found = planner.counts, planner.findings
    each = found.container_pairs / max(1, counts.todo_containers)
    return {
        "inputs": counts.inputs + found.images_done_before + inside.images,
        "todo": counts.todo - counts.todo_containers + inside.images,
        "todo_pairs": found.pairs - found.container_pairs + round(inside.images * each),
    }
