"""A listing compared with the records of earlier runs, to find what there is to do.

Both are streams in the same order, so comparing them is a merge, and memory stays flat.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from batchlight.config import JobConfig, Method
from batchlight.errors import UsageError, is_permanent
from batchlight.fingerprint import Fingerprint
from batchlight.output.chunks import BatchKind, as_rows
from batchlight.output.earlier import Earlier
from batchlight.output.inputs import Input, is_other_name
from batchlight.output.records import Tally
from batchlight.planning.collisions import Edges, apart, outside
from batchlight.planning.cutting import Stretch
from batchlight.planning.merging import Entry, NewImages, side_by_side
from batchlight.shards.selection import takes_some_of
from batchlight.storage.patterns import Patterns

AT_ONCE = 1024
"""About how many inputs are turned into rows at a time."""


@dataclass
class Findings:
    """Counts of what a comparison has found so far."""

    seen: Counter[str] = field(default_factory=Counter)
    """Keyed by the fields of ``PlanCounts``."""
    gone: Tally = field(default_factory=Tally)
    """Rows whose inputs are no longer listed."""
    not_selected: Tally = field(default_factory=Tally)
    """Rows whose inputs the options do not select, whether or not they are still there."""
    unlisted_since: Tally = field(default_factory=Tally)
    """Rows made by this very run that count as ``gone`` or ``not_selected``."""
    pairs: int = 0
    """(input, method) pairs to be done; a container counts as one input."""
    container_pairs: int = 0
    """How many of these are of containers."""
    images_done_before: int = 0
    """Images in containers that need nothing done."""
    beside: int = 0
    """Files beside containers that have records, and so do not go along with these."""

    def add(self, other: Findings) -> None:
        """Add the counts of another part of the same listing."""
        self.seen += other.seen
        self.gone += other.gone
        self.not_selected += other.not_selected
        self.unlisted_since += other.unlisted_since
        self.pairs += other.pairs
        self.container_pairs += other.container_pairs
        self.images_done_before += other.images_done_before
        self.beside += other.beside


class Task(NamedTuple):
    """Adjacent files in the listing that need the same methods; just one unless they are new."""

    kind: BatchKind
    inputs: Sequence[Input]
    again: bool = False
    """Whether they have rows that will be replaced."""


class Comparison:
    """Compares a listing, or a part of one, with the records of earlier runs."""

    def __init__(
        self,
        config: JobConfig,
        fingerprints: Mapping[Method, Fingerprint],
        since: float = math.inf,
        after: str = "",
    ) -> None:
        """``since``: the first batch that this run did before listing.

        ``after``: a key; inputs up to it are left for later.
        """
        self.config = config
        self.findings = Findings()
        self._seen = self.findings.seen
        self._digests = {m: f.digest for m, f in fingerprints.items()}
        self._container_digests = {m: config.container_digest(f) for m, f in fingerprints.items()}
        self._since = since
        self._after = after
        # Separate: what is not listed does not show that a pattern matches anything.
        self._patterns = Patterns.of(config.include, config.exclude)

    def stretches(
        self, images: Iterable[Input], earlier: Iterable[Earlier], edges: Edges | None = None
    ) -> Iterator[Stretch]:
        """What there is to do, in the order of the listing.

        ``edges``: of a part of a listing, complete once all is given. Raises ``UsageError`` for
        outputs that collide and containers that cannot be written as asked, after yielding all that
        comes before them.
        """
        entries = side_by_side(images, earlier)
        if self.config.copy_others:
            entries = _without_those_beside(entries)
        return _as_stretches(self._tasks(entries if edges is None else edges.noted(entries)))

    def _tasks(self, entries: Iterable[Entry | NewImages]) -> Iterator[Task]:
        all_methods = tuple(self.config.method)
        for found in apart(outside(entries, self.config), self.config):
            if isinstance(found, NewImages):
                if images := self._beyond_the_last_plan(found.images):
                    self._count_new(images)
                    yield Task(BatchKind(all_methods), images)
            elif found.image is None:
                self._count_unlisted(found.rows.values())
            elif (task := self._task(found.image, found.rows)) is not None:
                yield task

    def _task(self, image: Input, rows: Mapping[Method, Earlier]) -> Task | None:
        methods = tuple(m for m in self.config.method if self._needed(image, m, rows.get(m)))
        if image.is_other:
            self._seen["others"] += 1
            self.findings.beside += image.beside and image.defect is None
            self._seen["others_bytes"] += image.size or 0
            self._seen["todo_others"] += bool(methods)
        else:
            self._count(image, methods, rows)
        if not methods:
            return None
        kind = BatchKind(methods, image.container, image.is_other)
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
        self.findings.pairs += len(images) * len(self.config.method)

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
            self.findings.pairs += len(methods)
            self.findings.container_pairs += image.container * len(methods)
        elif image.container:
            self.findings.images_done_before += max(row.tally.rows for row in rows.values())

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
        """Count the rows of an input that is gone, or that the options do not select."""
        mine = [row for row in rows if row.method in self.config.method]
        found = sum((row.tally for row in mine), Tally())
        new = (row.tally for row in mine if row.batch >= self._since)
        self.findings.unlisted_since = sum(new, self.findings.unlisted_since)
        if all(map(self._selects, mine)):
            self._seen["gone"] += found.rows
            self.findings.gone += found
        else:
            self._seen["not_selected"] += found.rows
            self.findings.not_selected += found

    def _selects(self, row: Earlier) -> bool:
        """Whether the input of a row would be listed if it was there."""
        if self._seen["inputs"] + self._seen["containers"] == self.config.limit:
            return False
        if row.of_container is not None:
            return takes_some_of(self._patterns, row.path)
        if is_other_name(row.path) and not self.config.copy_others:
            return False
        return self._patterns.match(row.path)


def _without_those_beside(entries: Iterable[Entry | NewImages]) -> Iterator[Entry | NewImages]:
    """Leave out the files that go along with containers; those with records are kept up to date."""
    for found in entries:
        image, rows = (found.image, found.rows) if isinstance(found, Entry) else (None, None)
        if image is None or not image.beside or rows:
            yield found


def _as_stretches(tasks: Iterable[Task]) -> Iterator[Stretch]:
    block = _Block()
    try:
        for task in tasks:
            if len(block.inputs) >= AT_ONCE:
                yield from block.stretches()
                block = _Block()
            block.add(task)
    except UsageError:
        yield from block.stretches()
        raise
    yield from block.stretches()


@dataclass
class _Block:
    """Tasks that become rows together, since a table of one row costs as much as one of many."""

    inputs: list[Input] = field(default_factory=list)
    again: list[bool] = field(default_factory=list)
    ends: list[tuple[BatchKind, int]] = field(default_factory=list)
    """Of neighbours of one kind: the kind, and the number of inputs up to the last of them."""

    def add(self, task: Task) -> None:
        self.inputs += task.inputs
        self.again += [task.again] * len(task.inputs)
        if self.ends and self.ends[-1][0] == task.kind:
            self.ends.pop()
        self.ends.append((task.kind, len(self.inputs)))

    def stretches(self) -> Iterator[Stretch]:
        rows, begin = as_rows(self.inputs, self.again), 0
        for kind, end in self.ends:
            yield Stretch(kind, rows.slice(begin, end - begin))
            begin = end
