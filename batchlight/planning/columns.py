"""The columns of ``--image-column``, looked for before anything is planned.

A file without them fails as a whole and loses its output, so a misspelt name must not get that far.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import islice

from batchlight.errors import ImageError, UsageError, counted
from batchlight.planning.listing import InputSet
from batchlight.shards.parquet_contents import ParquetContents
from batchlight.shards.source import opened_container

LOOKED_AT = 64
"""How many Parquet files to look into; the first is enough if it has all columns."""


def refuse_unknown_columns(inputs: InputSet) -> None:
    """Raise ``UsageError`` if none of the first Parquet files has a column that was named.

    Files that cannot be read do not count; each fails by itself later.
    """
    missing = set(inputs.image_columns)
    if not missing:
        return
    there: dict[str, None] = {}
    looked_at, root = 0, inputs.opened(inputs.root)
    for item in islice(inputs.parquet_files(), LOOKED_AT):
        with (
            suppress(ImageError, OSError),
            opened_container(item, root, inputs.opened) as contents,
        ):
            assert isinstance(contents, ParquetContents)
            names = [column.name for column in contents.columns_of_bytes]
            there.update(dict.fromkeys(names))
            missing.difference_update(names)
            looked_at += 1
        if not missing:
            return
    if looked_at:
        raise UsageError(
            f"--image-column {min(missing)}: no column of bytes has that name in "
            f"{counted(looked_at, 'Parquet file')} of {inputs.given}; "
            f"there is {', '.join(there) or 'none'}"
        )
