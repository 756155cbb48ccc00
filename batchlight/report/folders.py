"""Outcomes of images by folder, in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from batchlight.images.container_names import PARQUET

FOLDERS_AT_MOST = 4096
"""Maximum number of folders; if there are more, the deepest count towards their parents."""
DEEPEST = 64

_NAME = r"[^/]*$"


@dataclass(frozen=True)
class FolderCounts:
    """Counts of one folder, excluding subfolders unless there are too many."""

    ok: int = 0
    skipped: int = 0
    failed: int = 0

    def __add__(self, other: FolderCounts) -> FolderCounts:
        return FolderCounts(
            self.ok + other.ok, self.skipped + other.skipped, self.failed + other.failed
        )

    @property
    def images(self) -> int:
        """Number of all images."""
        return self.ok + self.skipped + self.failed


@dataclass(frozen=True)
class Folders:
    """Counts by folder and method.

    The result does not depend on the order of the rows: the depth is the largest that leaves few
    enough folders.
    """

    most: int = FOLDERS_AT_MOST
    depth: int = DEEPEST
    """How many parts of a path count."""
    counts: Mapping[tuple[str, str], FolderCounts] = field(default_factory=dict)
    """By folder, which ends in a slash unless it is the whole input, and method."""

    def added(self, table: pa.Table) -> Folders:
        """With the rows of a table of records added."""
        grouped = (
            pa.table(
                {
                    "folder": _folders(table),
                    "method": table["method"],
                    "status": table["status"],
                }
            )
            .group_by(["folder", "method", "status"])
            .aggregate([([], "count_all")])
        )
        counts = dict(self.counts)
        for row in grouped.to_pylist():
            key = (_cut(row["folder"], self.depth), row["method"])
            known = row["status"] if row["status"] in ("ok", "skipped") else "failed"
            counts[key] = counts.get(key, FolderCounts()) + FolderCounts(
                **{known: row["count_all"]}
            )
        return Folders(self.most, self.depth, counts)._few_enough()

    def _few_enough(self) -> Folders:
        counts, depth = self.counts, self.depth
        while len({folder for folder, _ in counts}) > self.most:
            depth = min(depth, max(folder.count("/") for folder, _ in counts)) - 1
            fewer: dict[tuple[str, str], FolderCounts] = {}
            for (folder, method), count in counts.items():
                key = (_cut(folder, depth), method)
                fewer[key] = fewer.get(key, FolderCounts()) + count
            counts = fewer
        return Folders(self.most, depth, counts)


def _folders(table: pa.Table) -> pa.ChunkedArray:
    """The folder of each row; images of a Parquet file are in one, not in one per row of it."""
    inputs, container = table["input"], table["container"]
    inside = pc.and_(
        pc.ends_with(pc.utf8_lower(container), PARQUET), pc.not_equal(inputs, container)
    )
    return pc.if_else(
        pc.fill_null(inside, False),
        pc.binary_join_element_wise(container, "", "/"),
        pc.replace_substring_regex(inputs, _NAME, ""),
    )


def _cut(folder: str, depth: int) -> str:
    """Its first ``depth`` parts."""
    if folder.count("/") <= depth:
        return folder
    return "".join(f"{part}/" for part in folder.split("/")[:depth])
