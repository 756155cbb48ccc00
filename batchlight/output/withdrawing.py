"""Undoing the beginning of an output, for a run that was refused before it stored a plan."""

from __future__ import annotations

from batchlight.output.commit import drop_drafts
from batchlight.output.layout import FORMAT, PLANS, lock_path
from batchlight.storage import Storage

FIRST_LOCK, FIRST_BATCH = 1, 0


def can_withdraw(storage: Storage, lock: int) -> bool:
    """Whether nothing in the output is older than this lock, and no plan is stored."""
    return lock == FIRST_LOCK and not storage.names(PLANS)


def withdraw(storage: Storage) -> None:
    """Remove what the first run on an output has left there before it stored a plan.

    Otherwise an untouched folder would count as an output and be refused as an input. The lock goes
    last: until then, no other run begins.
    """
    drop_drafts(storage, FIRST_BATCH)
    storage.delete(FORMAT)
    storage.delete(lock_path(FIRST_LOCK))
    storage.withdraw()
