"""What a run would do, found out without writing anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from batchlight.absgn.loading import weights_of
from batchlight.config import JobConfig
from batchlight.driver.census import Census, census
from batchlight.driver.emptiness import refuse_nothing
from batchlight.driver.estimates import Draw, Estimate, Work
from batchlight.driver.network import fingerprints_of, model_of
from batchlight.driver.places import as_begun, open_places, plan_to_finish
from batchlight.engine import Engine, make_engine
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
    """Images, also those in containers, as far as ``in_containers`` or records tell."""
    containers: int
    input_bytes: int
    todo: int
    todo_bytes: int
    todo_containers: int
    batches: int
    batch_size: int
    """Images in each of them, but for the last."""
    todo_pairs: int
    """(image, method) pairs, each of which makes a record."""
    new: int
    """Of what is to do; here and below, a container counts as one image."""
    changed: int
    retried: int
    unchanged: int
    gone: int
    """Records of images that are no longer there."""
    beyond: int
    """Rows of earlier runs whose images ``--limit`` has kept from being looked for."""
    passed_over: Mapping[str, int]
    """Files that are no images, by suffix."""
    beside: int
    """Files beside containers, which go along with these."""
    others: int
    """Files that are no images, and are copied; in none of the counts of images."""
    others_bytes: int
    todo_others: int
    left_of_stored_plan: int
    """(input, method) pairs that a killed run left; they are done first, in their own batches."""
    in_containers: Census = field(default_factory=Census)
    """What is in those that are to do."""
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
    left, rest_of = 0, None
    stored = plan_to_finish(config, fingerprints, inputs, output, state)
    if stored is not None:
        left = rows_left(storage, state)
        # So far, everything has been overwritten that there was to overwrite.
        if stored.overwrite and stored.has_more:
            rest_of = stored
        config = config.model_copy(update={"overwrite": rest_of is not None})
    planner = Planner(config, fingerprints, inputs.passed_over, rest_of=rest_of)
    draw = Draw()
    containers: list[Input] = []
    runs = planner.runs(inputs.images(), earlier_rows(storage, state))
    for item in _todo(planner.chunks(runs, first=0)):
        if item.container:
            containers.append(item)
        elif not item.is_other:
            draw.add(item)
    if not config.allow_empty and not left:
        refuse_nothing(inputs, planner.counts)
    counts = {n: v for n, v in vars(planner.counts).items() if not n.endswith("_tally")}
    counts["batch_size"] = planner.batch_size
    counts["passed_over"] = dict(planner.counts.passed_over)
    inside = census(containers, inputs.root, config, draw.add)
    if estimate and (draw.images or containers):
        found = planner.findings
        files = found.pairs - found.container_pairs
        work = Work(
            *(config, model, inputs, output, planner.counts, files, draw.images),
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
    """How many images there are, and to be done, with those in containers."""
    counts, found = planner.counts, planner.findings
    each = found.container_pairs / max(1, counts.todo_containers)
    return {
        "inputs": counts.inputs + found.images_done_before + inside.images,
        "todo": counts.todo - counts.todo_containers + inside.images,
        "todo_pairs": found.pairs - found.container_pairs + round(inside.images * each),
    }
