"""What there is to do: a listing compared with the earlier records, and cut into batches.

Both are streams in the same order, so that comparing them is a merge and memory stays flat.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

from batchlight.config import JobConfig, Method
from batchlight.driver.collisions import apart, outside
from batchlight.driver.cutting import Kind, Task, cut, first_of
from batchlight.driver.merging import NewImages, side_by_side
from batchlight.driver.passed_over import PassedOver
from batchlight.errors import UsageError, is_permanent
from batchlight.fingerprint import Fingerprint
from batchlight.host.process import seldom_looking_for_cycles
from batchlight.output.commit import drop_drafts
from batchlight.output.earlier import Earlier, earlier_rows
from batchlight.output.inputs import Input
from batchlight.output.layout import BatchRange
from batchlight.output.plan import Plan, PlanCounts, PlannedBatch, write_chunk
from batchlight.output.records import Tally
from batchlight.output.state import OutputState
from batchlight.storage import Storage


class Planner:
    """Compares a listing with earlier records; counts as it goes. Read ``counts`` at the end."""

    def __init__(
        self,
        config: JobConfig,
        fingerprints: Mapping[Method, Fingerprint],
        passed_over: PassedOver | None = None,
        since: float = math.inf,
    ) -> None:
        """``passed_over``: what the listing meets beside the images.

        ``since``: the first batch that this run has done before it lists.
        """
        self._passed_over = passed_over or PassedOver()
        self.config = config
        self.fingerprints = fingerprints
        self._digests = {m: f.digest for m, f in fingerprints.items()}
        self._container_digests = {m: config.container_digest(f) for m, f in fingerprints.items()}
        self._since = since
        self.unlisted_since = Tally()
        """Of rows that this run has made of inputs that are not listed any more."""
        self.pairs = 0
        """(input, method) pairs that are to be done, where a container counts as one input."""
        self.container_pairs = 0
        """Those of them that are of containers."""
        self.images_done_before = 0
        """In containers that there is nothing to do for."""
        self.batch_size = 0
        """Of what is cut; known once the first batch is."""
        self._seen: Counter[str] = Counter()
        self._gone = Tally()
        self._beyond = Tally()

    @property
    def counts(self) -> PlanCounts:
        """What was found so far."""
        return PlanCounts(
            **self._seen,
            gone_tally=self._gone,
            beyond_tally=self._beyond,
            passed_over=self._passed_over.counts,
            beside=self._passed_over.beside,
        )

    def chunks(
        self, images: Iterable[Input], earlier: Iterable[Earlier], first: int
    ) -> Iterator[list[PlannedBatch]]:
        """Cut what is to do into batches numbered from ``first``, and those into chunks.

        Raises ``UsageError`` if two images would write one output.
        """
        tasks = self._tasks(images, earlier)
        ahead, number = first_of(tasks)
        self.batch_size = self.config.images_per_batch(number)
        for chunk in cut(chain(ahead, tasks), first, self.batch_size):
            self._seen["batches"] += len(chunk)
            yield chunk
            del chunk  # there is one in memory at a time

    def _tasks(self, images: Iterable[Input], earlier: Iterable[Earlier]) -> Iterator[Task]:
        all_methods = tuple(self.config.method)
        entries = outside(side_by_side(images, earlier), self.config)
        for found in apart(entries, self.config):
            if isinstance(found, NewImages):
                self._count_new(found.images)
                yield Task(Kind(all_methods), found.images)
            elif found.image is None:
                self._count_unlisted(found.rows.values())
            elif (task := self._task(found.image, found.rows)) is not None:
                yield task

    def _task(self, image: Input, rows: Mapping[Method, Earlier]) -> Task | None:
        methods = tuple(m for m in self.config.method if self._needed(image, m, rows.get(m)))
        if image.is_other:
            self._seen["others"] += 1
            self._seen["others_bytes"] += image.size or 0
            self._seen["todo_others"] += bool(methods)
        else:
            self._count(image, methods, rows)
        if not methods:
            return None
        kind = Kind(methods, image.container, image.is_other)
        return Task(kind, (image,), any(m in rows for m in methods))

    def _count_new(self, images: Sequence[Input]) -> None:
        size = sum(image.size or 0 for image in images)
        for name in ("inputs", "todo", "new"):
            self._seen[name] += len(images)
        for name in ("input_bytes", "todo_bytes"):
            self._seen[name] += size
        self.pairs += len(images) * len(self.config.method)

    def _count(
        self, image: Input, methods: Sequence[Method], rows: Mapping[Method, Earlier]
    ) -> None:
        self._seen["containers" if image.container else "inputs"] += 1
        self._seen["input_bytes"] += image.size or 0
        self._seen["unchanged"] += not methods
        if methods:
            self._seen["todo"] += 1
            self._seen["todo_containers"] += image.container
            self._seen["todo_bytes"] += image.size or 0
            self._seen[self._kind(image, [rows[m] for m in methods if m in rows])] += 1
            self.pairs += len(methods)
            self.container_pairs += image.container * len(methods)
        elif image.container:
            self.images_done_before += max(row.tally.rows for row in rows.values())

    def _needed(self, image: Input, method: Method, row: Earlier | None) -> bool:
        if row is None or self.config.overwrite:
            return True
        digests = self._container_digests if image.container else self._digests
        if row.fingerprint != digests[method]:
            return True  # an input that was not listed when all the others were overwritten
        if image.changed_since(row.size, row.modified, row.etag):
            return True
        failed = row.failed_with
        return failed is not None and (self.config.retry_failed or not is_permanent(failed))

    def _kind(self, image: Input, rows: list[Earlier]) -> str:
        if not rows:
            return "new"
        changed = (image.changed_since(row.size, row.modified, row.etag) for row in rows)
        return "changed" if any(changed) else "retried"

    def _count_unlisted(self, rows: Iterable[Earlier]) -> None:
        """Rows of an input that is gone, or that nobody has looked for.

        That is one after the last one that is listed, and a file that is not to be copied any more.
        """
        mine = [row for row in rows if row.method in self.config.method]
        found = sum((row.tally for row in mine), Tally())
        new = (row.tally for row in mine if row.batch >= self._since)
        self.unlisted_since = sum(new, self.unlisted_since)
        others = not self.config.copy_others and any(r.status == "copied" for r in mine)
        if self._seen["inputs"] + self._seen["containers"] == self.config.limit or others:
            self._seen["beyond"] += found.rows
            self._beyond += found
        else:
            self._seen["gone"] += found.rows
            self._gone += found


def draft_plan(
    storage: Storage, state: OutputState, planner: Planner, images: Iterable[Input], root: str
) -> Plan | None:
    """Compare a listing with the earlier records and write what there is to do; None if nothing.

    It counts for nothing until it is stored. ``root``: what the paths are relative to. Raises
    ``UsageError`` as ``Planner.chunks`` does.
    """
    drop_drafts(storage, state)
    first = state.next_batch
    written: list[BatchRange] = []
    rows: Counter[Method] = Counter()
    try:
        with seldom_looking_for_cycles():
            for chunk in planner.chunks(images, earlier_rows(storage, state), first):
                written.append(write_chunk(storage, first, chunk))
                rows.update(_rows_of(chunk))
                del chunk  # there is one in memory at a time
    except UsageError:
        drop_drafts(storage, state)
        raise
    if not written:
        return None
    earlier = state.plan.fingerprints if state.plan else {}
    return Plan(
        first=first,
        counts=planner.counts,
        rows=rows.total(),
        rows_by_method=dict(rows),
        root=root,
        overwrite=planner.config.overwrite,
        fingerprints={**earlier, **planner.fingerprints},
        methods=tuple(sorted(rows)),
        chunks=tuple(written),
        member_rules=planner.config.member_rules,
        batch_size=planner.batch_size,
    )


def _rows_of(chunk: Iterable[PlannedBatch]) -> Counter[Method]:
    """How many records of each method its batches will make."""
    found: Counter[Method] = Counter()
    for item in chunk:
        found.update(dict.fromkeys(item.batch.methods, len(item.batch.inputs)))
    return found
