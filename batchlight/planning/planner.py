"""What there is to do: a listing compared with the earlier records, and cut into batches.

Both are streams in the same order, so that comparing them is a merge and memory stays flat.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from batchlight.config import JobConfig, Method
from batchlight.errors import is_permanent
from batchlight.fingerprint import Fingerprint
from batchlight.output.earlier import Earlier
from batchlight.output.inputs import Input
from batchlight.output.plan import Plan, PlanCounts, PlannedBatch
from batchlight.output.records import Tally
from batchlight.planning.collisions import apart, outside
from batchlight.planning.cutting import Kind, Task, cut, first_of
from batchlight.planning.merging import NewImages, side_by_side
from batchlight.planning.passed_over import PassedOver


class Planner:
    """Compares a listing with earlier records; counts as it goes. Read ``counts`` at the end."""

    def __init__(
        self,
        config: JobConfig,
        fingerprints: Mapping[Method, Fingerprint],
        passed_over: PassedOver | None = None,
        since: float = math.inf,
        rest_of: Plan | None = None,
    ) -> None:
        """``passed_over``: what the listing meets beside the images.

        ``since``: the first batch that this run has done before it lists. ``rest_of``: a plan of
        part of this listing, to go on after; what there is to do up to there is left for later.
        """
        self._passed_over = passed_over or PassedOver()
        self.config = config
        self.fingerprints = fingerprints
        self._digests = {m: f.digest for m, f in fingerprints.items()}
        self._container_digests = {m: config.container_digest(f) for m, f in fingerprints.items()}
        self._since = since
        self._after = (rest_of and rest_of.continues_after) or ""
        self.unlisted_since = Tally()
        """Of rows that this run has made of inputs that are not listed any more."""
        self.pairs = 0
        """(input, method) pairs that are to be done, where a container counts as one input."""
        self.container_pairs = 0
        """Those of them that are of containers."""
        self.images_done_before = 0
        """In containers that there is nothing to do for."""
        self.batch_size = (rest_of and rest_of.batch_size) or 0
        """Of what is cut; known once the first batch is."""
        self._seen: Counter[str] = Counter()
        self._gone = Tally()
        self._beyond = Tally()

    @property
    def counts_so_far(self) -> PlanCounts:
        """What was found of images."""
        found: dict[str, Any] = dict(self._seen)
        return PlanCounts(**found, gone_tally=self._gone, beyond_tally=self._beyond)

    @property
    def counts(self) -> PlanCounts:
        """What was found, once the listing is at its end."""
        met = self._passed_over
        return replace(self.counts_so_far, passed_over=met.counts, beside=met.beside)

    def chunks(
        self, images: Iterable[Input], earlier: Iterable[Earlier], first: int
    ) -> Iterator[list[PlannedBatch]]:
        """Cut what is to do into batches numbered from ``first``, and those into chunks.

        Raises ``UsageError`` if two images would write one output.
        """
        tasks = self._tasks(images, earlier)
        ahead, number = first_of(tasks)
        self.batch_size = self.batch_size or self.config.images_per_batch(number)
        for chunk in cut(chain(ahead, tasks), first, self.batch_size):
            self._seen["batches"] += len(chunk)
            yield chunk
            del chunk  # there is one in memory at a time

    def _tasks(self, images: Iterable[Input], earlier: Iterable[Earlier]) -> Iterator[Task]:
        all_methods = tuple(self.config.method)
        entries = outside(side_by_side(images, earlier), self.config)
        for found in apart(entries, self.config):
            if isinstance(found, NewImages):
                if images := self._beyond_the_last_plan(found.images):
                    self._count_new(images)
                    yield Task(Kind(all_methods), images)
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

    def _beyond_the_last_plan(self, images: Sequence[Input]) -> Sequence[Input]:
        if not self._after or images[0].key > self._after:
            return images
        return [image for image in images if image.key > self._after]

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
        if image.key <= self._after:
            return False
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
