"""Inputs that could be read when they were planned, and now cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial

from batchlight.errors import ImageError
from batchlight.host.abandoned import Pool
from batchlight.output.inputs import NOT_COPIED, NOT_NAMED, Batch, Input, place_of
from batchlight.planning.listing import InputSet
from batchlight.storage import Location, Storage
from batchlight.worker.image import of_one_input

LOOKS_AT_ONCE = 16
"""Inputs opened concurrently, since each may be a request."""


def first_gone(inputs: InputSet, batches: Iterable[Batch]) -> str | None:
    """Which image of some batches can no longer be read, and why; None if all can.

    Those that could not be read when they were planned do not count. Raises ``StorageError``.
    """
    root = inputs.opened(inputs.root)
    with Pool(LOOKS_AT_ONCE) as pool:
        looked = pool.map(
            partial(_why_gone, root, inputs.opened), (i for batch in batches for i in batch.inputs)
        )
        reasons = [reason for reason in looked if reason is not None]
    if not reasons:
        return None
    more = len(reasons) - 1
    return reasons[0] + (f" (and {more} more)" if more else "")


def _why_gone(root: Storage, opened: Callable[[Location], Storage], item: Input) -> str | None:
    if item.defect in (NOT_NAMED, NOT_COPIED):
        return f"{item.path}: {item.defect}"
    if item.defect is not None or item.size is None:
        return None
    storage, path = place_of(item, root, opened)
    try:
        with of_one_input(), closing(storage.open_reader(path)):
            return None
    except ImageError as error:
        return f"{item.path}: {error.message}"
