"""One container, from its bytes to its committed records.

Its images go through the pipeline in groups of ``--batch-size``, each group with its own light.
When a group is done, its results are written in member order, with the raw bytes between them; the
group's rows are kept as columns. So memory is bounded by the budgets below, those of ``overlap.py``
and ``storage/streams.py``, and the largest image.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Generator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batchlight.config import Method
from batchlight.engine.base import Service
from batchlight.engine.timeout import DEADLINE
from batchlight.errors import ErrorCode, ImageError
from batchlight.output.inputs import Batch, Input
from batchlight.output.layout import container_output
from batchlight.output.recordfiles import write_part
from batchlight.output.records import ORDER, SCHEMA, Record, Tally, as_table
from batchlight.shards.contents import AnyContents, Place, Rewriter
from batchlight.shards.groups import Group, groups_in
from batchlight.shards.hard_links import HardLinks
from batchlight.shards.spool import Spool
from batchlight.worker.batch_result import BatchResult
from batchlight.worker.context import BatchContext
from batchlight.worker.ending import Redone, kinds_of, result_of
from batchlight.worker.image import (
    BrokenBatchError,
    Failure,
    Image,
    Losses,
    Unexpected,
    Watch,
    of_one_input,
    of_one_output,
    of_one_size,
    tally_so_far,
    unwatched,
)
from batchlight.worker.pipeline import Pipeline, mean_light
from batchlight.worker.shard_steps import ShardSteps
from batchlight.worker.steps import as_record

KEEP_BYTES = 32 * 2**20
"""Budget for images that wait for their group's light; smaller than that for a batch of files,
since a container has its own budgets."""


def shard_in_steps(
    context: BatchContext, service: Service | None, batch: Batch, losses: Losses, watch: Watch
) -> Generator[None, None, BatchResult]:
    """Process a container and commit it; ``BatchHandler.in_steps``."""
    work = _rewritten(context, service, batch, batch.methods, losses, watch)
    table, unexpected, steps = yield from work
    failed = pc.fill_null(pc.equal(table["error_code"], ErrorCode.ERROR.value), False)
    if unexpected and pc.all(failed).as_py():
        raise BrokenBatchError(batch.number, unexpected)
    steps.require_wanted()
    rows = write_part(steps.output, batch.number, table, steps.permissions)
    return BatchResult.of(rows, unexpected, steps.read_bytes)


def redo_shard(
    context: BatchContext,
    service: Service | None,
    batch: Batch,
    pairs: Collection[tuple[str, Method]],
    lights: Mapping[str, float | None] | None,
    losses: Losses,
) -> Redone:
    """Write a container again, with some methods; commits nothing; ``BatchHandler.redo``.

    ``lights`` are ignored and recomputed from its own images.
    """
    assert batch.container is not None
    methods = tuple(m for m in batch.methods if (batch.container.path, m) in pairs)
    work = _rewritten(context, service, batch, methods, losses, unwatched)
    table, unexpected, steps = result_of(work)
    return Redone([Record(**row) for row in table.to_pylist()], unexpected, steps.permissions)


def groups_of(context: BatchContext, batch: Batch) -> list[list[Input]]:
    """The images of a container, in their groups; empty if it cannot be read."""
    assert batch.container is not None
    steps = ShardSteps(context, batch.container)
    try:
        with steps.opened_container() as contents:
            found = groups_in(contents, context.config)
            return [[item for _, item in group.images] for group in found]
    except (ImageError, OSError):
        return []


def process_shard_without_writing(
    context: BatchContext,
    service: Service | None,
    batch: Batch,
    methods: tuple[Method, ...],
    losses: Losses,
    inputs: Collection[Input],
) -> None:
    """Process some images of a container; ``BatchHandler.process_without_writing``."""
    assert batch.container is not None
    steps = ShardSteps(context, batch.container)
    with steps.opened_container() as contents, steps.reading(contents):
        chosen = [Image.of(item, methods, losses) for item in inputs]
        with Pipeline(steps, service, writes=False, keep_bytes=KEEP_BYTES) as pipeline:
            result_of(pipeline.work(chosen, light=None, wait=False))


def _rewritten(
    context: BatchContext,
    service: Service | None,
    batch: Batch,
    methods: tuple[Method, ...],
    losses: Losses,
    watch: Watch,
) -> Generator[None, None, tuple[pa.Table, tuple[Unexpected, ...], ShardSteps]]:
    """Write a container; returns its rows, and unexpected exceptions."""
    assert batch.container is not None
    steps = ShardSteps(context, batch.container)
    shard = _Shard(steps, service, batch, methods, losses, watch)
    try:
        with of_one_input(), of_one_size(), steps.opened_container() as contents:
            while not (yield from shard.written(contents)):
                shard.start_again()
        table = shard.rows()
    except ImageError as error:
        failure = Failure(error.code, error.message)
        table = as_table(
            _row_of_container(steps.context, batch, m, losses, failure) for m in methods
        )
    steps.output.sync()
    return table, tuple(shard.unexpected.values()), steps


@dataclass
class _Shard:
    """A container being written."""

    steps: ShardSteps
    service: Service | None
    batch: Batch
    methods: tuple[Method, ...]
    losses: Losses
    watch: Watch
    unexpected: dict[str, Unexpected] = field(default_factory=dict)
    _tables: list[pa.Table] = field(default_factory=list)
    _rewriters: dict[Method, Rewriter[Any]] = field(default_factory=dict)
    _dropped: defaultdict[Method, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    _kept: defaultdict[Method, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    """Keys of samples that are already partly written."""
    _links: defaultdict[Method, HardLinks] = field(default_factory=lambda: defaultdict(HardLinks))
    _before: Tally = field(default_factory=Tally)
    """Tally of the groups that are done."""
    _too_late: bool = False
    """A sample had to be dropped after part of it was written, or a link's target to be kept."""

    def written(self, contents: AnyContents) -> Generator[None, None, bool]:
        """Write the whole container; returns whether to keep it; otherwise it has to be redone."""
        with ExitStack() as exits, self.steps.reading(contents):
            self.steps.spool = Spool()
            exits.callback(self.steps.spool.close)
            for method in self.methods:
                path = container_output(method, self.steps.container.path)
                with of_one_output():
                    writer = self.steps.output.open_writer(path, self.steps.permissions)
                exits.callback(writer.abort)
                rewriter = contents.rewriter(writer)
                exits.callback(rewriter.close)
                self._rewriters[method] = rewriter
            for group in groups_in(contents, self.steps.config):
                DEADLINE.restart()
                yield from self._do(group)
            for rewriter in self._rewriters.values():
                rewriter.finish()
            contents.require_unchanged()
            if self._too_late:
                return False
            self.steps.require_wanted()
            with of_one_output():
                for rewriter in self._rewriters.values():
                    rewriter.sink.commit()
        return True

    def start_again(self) -> None:
        """Forget everything except which samples to leave out, and which members links need."""
        self._tables.clear()
        self._kept.clear()
        for links in self._links.values():
            links.start_again()
        self._before = Tally()
        self._too_late = False

    def rows(self) -> pa.Table:
        """One row per image and method, or one per method if there are no images."""
        table = pa.concat_tables(self._tables)
        if not table.num_rows:
            table = as_table(
                _row_of_container(self.steps.context, self.batch, m, self.losses, None)
                for m in self.methods
            )
        for name, value in (
            ("container_output_bytes", {m: r.sink.bytes for m, r in self._rewriters.items()}),
            ("container_output_sha256", {m: r.sink.sha256 for m, r in self._rewriters.items()}),
        ):
            values = [value[method] for method in table["method"].to_pylist()]
            field_ = SCHEMA.field(name)
            at = table.schema.get_field_index(name)
            table = table.set_column(at, field_, pa.array(values, field_.type))
        return table.sort_by(ORDER)

    def _do(self, group: Group[Any]) -> Generator[None, None, None]:
        steps = self.steps
        found = [Image.of(item, self.methods, self.losses) for _, item in group.images]
        for image in found:
            image.deaths = self.losses.deaths.get(steps.container, 0)
        self.watch(found, self._before)
        with Pipeline(steps, self.service, keep_bytes=KEEP_BYTES) as pipeline:
            shares_light = steps.config.atmospheric_light == "batch"
            yield from pipeline.work(found, light=None, wait=shares_light)
        done = {image.input.path: image for image in found}
        for method in self.methods:
            self._note_dropped(group, method, done)
            for member, item in group.members:
                self._emit(member, None if item is None else done[item.path], method)
        assert steps.spool is not None
        steps.spool.clear()
        steps.read_bytes += sum(image.read_bytes for image in found)
        self.unexpected |= {error.kind: error for error in kinds_of(found)}
        light = mean_light(found)
        for (member, _), image in zip(group.images, found, strict=True):
            image.facts |= _facts_of(steps.container) | {"member_offset": member.data}
        self._tables.append(
            as_table(
                as_record(steps.context, self.batch.number, image, method, light)
                for image in found
                for method in self.methods
            )
        )
        self._before += tally_so_far(found)

    def _note_dropped(self, group: Group[Any], method: Method, done: Mapping[str, Image]) -> None:
        """Note which samples have to be left out, as far as is known by now."""
        if self.steps.config.failed_images != "drop-sample":
            return
        for member, item in group.images:
            image = done[item.path]
            if image.failure or image.results[method].failure:
                key = member.sample
                self._dropped[method].add(key)
                self._too_late |= key in self._kept[method]

    def _emit(self, member: Place, image: Image | None, method: Method) -> None:
        """Write a member that may have changed."""
        rewriter, links = self._rewriters[method], self._links[method]
        unwanted = self._is_unwanted(member, image, method)
        if unwanted and not links.need(member):
            rewriter.leave_out(member)
            links.leave_out(member)
            return
        if self.steps.config.failed_images == "drop-sample" and not unwanted:
            self._kept[method].add(member.sample)
        self._too_late |= links.keep(member)
        if image is None or image.failure or image.results[method].failure:
            return
        result = image.results[method]
        if image.skipped:
            result.columns["output"] = container_output(method, self.steps.container.path)
            result.columns["output_offset"] = rewriter.kept(member)
            return
        assert self.steps.spool is not None
        data = self.steps.spool.get((image.input.path, method))
        try:
            result.columns["output_offset"] = rewriter.replace(member, data)
        except ValueError as error:
            reason = f"its new size does not fit into the member's header: {error}"
            result.failure = Failure(ErrorCode.UNSUPPORTED, reason)

    def _is_unwanted(self, member: Place, image: Image | None, method: Method) -> bool:
        """Whether a member is to be left out, unless a link needs it."""
        config = self.steps.config
        if member.sample in self._dropped[method]:
            return True
        if image is None:
            return False
        if image.failure or image.results[method].failure:
            return config.failed_images == "drop"
        return image.skipped and config.not_dark == "leave-out"


def _facts_of(container: Input) -> dict[str, Any]:
    return {"container": container.path, "container_bytes": container.size}


def _row_of_container(
    context: BatchContext, batch: Batch, method: Method, losses: Losses, failure: Failure | None
) -> Record:
    """The row of a container that failed or has no images."""
    assert batch.container is not None
    image = Image.of(batch.container, (method,), losses)
    image.facts |= _facts_of(batch.container)
    image.failure = failure
    if failure is None:
        image.skipped = True
        image.results[method].columns["output"] = container_output(method, batch.container.path)
    return as_record(context, batch.number, image, method, None)
