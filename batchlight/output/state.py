"""What an output holds at one moment, read once per command."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter

from batchlight.errors import StorageError
from batchlight.output.layout import (
    METADATA,
    PARTS,
    PLANS,
    BatchRange,
    metadata_path,
    numbered,
    numbers_in,
    part_path,
)
from batchlight.output.numbers import NumberSet
from batchlight.output.plan import Plan, read_plan
from batchlight.storage import Storage


@dataclass(frozen=True)
class OutputState:
    """The plans, parts and files of records that exist; ``commit.py`` changes them."""

    plans: tuple[int, ...]
    """The first batch of every complete plan, in order."""
    plan: Plan | None
    """The last of them; all earlier ones are closed."""
    closed: bool
    """Whether all rows of the last plan are in ``metadata/``."""
    parts: NumberSet
    """Batches that are committed and not yet moved."""
    metadata: tuple[BatchRange, ...]
    """The files of ``metadata/``, in order."""

    @classmethod
    def load(cls, storage: Storage) -> OutputState:
        """Look at an output. Raises ``StorageError`` for a damaged plan."""
        names = storage.names(PLANS)
        plans = tuple(numbered(names, ".json"))
        # In this order: rows that a run moves meanwhile are then in both, not in neither.
        parts = NumberSet.of(numbers_in(storage.each_name(PARTS), ".parquet"))
        found = map(BatchRange.parse, storage.names(METADATA))
        return cls(
            plans=plans,
            plan=read_plan(storage, plans[-1]) if plans else None,
            closed=bool(plans) and plans[-1] in numbered(names, ".closed"),
            parts=parts,
            metadata=tuple(sorted(chunk for chunk in found if chunk is not None)),
        )

    @property
    def unfinished(self) -> Plan | None:
        """The last plan, unless it is closed."""
        return None if self.closed else self.plan

    @property
    def to_go_on_with(self) -> Plan | None:
        """The last plan, if it is not closed or not the last one of its listing."""
        return self.plan if self.plan is not None and self.plan.has_more else self.unfinished

    @property
    def next_batch(self) -> int:
        """The number of the first batch of a new plan.

        It follows all that ``metadata/`` holds, even if the plans that these came from are gone.
        """
        after = self.metadata[-1].last + 1 if self.metadata else 0
        return max(after, self.plan.next_batch if self.plan else 0)

    @cached_property
    def done(self) -> NumberSet:
        """Batches of the last plan that are committed."""
        if self.plan is None:
            return NumberSet()
        first, after = self.plan.first, self.plan.next_batch
        moved = (
            range(max(chunk.first, first), min(chunk.last + 1, after)) for chunk in self.metadata
        )
        return NumberSet.of_ranges([*self.parts.within(range(first, after)), *moved])

    @property
    def record_files(self) -> list[str]:
        """The files that hold each row exactly once: ``metadata/``, and parts not yet in it."""
        return [
            *map(metadata_path, self.metadata),
            *(part_path(batch) for batch in self.parts if not self.has_moved(batch)),
        ]

    def has_moved(self, batch: int) -> bool:
        """Whether ``metadata/`` has the rows of a batch."""
        which = bisect_right(self.metadata, batch, key=attrgetter("first")) - 1
        return which >= 0 and batch in self.metadata[which]

    def plan_of(self, storage: Storage, batch: int) -> Plan:
        """The plan of a batch. Raises ``StorageError`` if it no longer exists."""
        which = bisect_right(self.plans, batch) - 1
        if which < 0:
            raise StorageError(f"the plan of batch {batch} is gone", transient=False)
        if self.plan is not None and which == len(self.plans) - 1:
            return self.plan
        return read_plan(storage, self.plans[which])
