"""Finds the files beside containers that should be in the output, and has them copied.

A file whose name begins with that of a container in its folder, such as ``00000_stats.json`` beside
``00000.tar``, belongs to it; any other to the whole folder. It is written once what it belongs to
is in the output, with ``--copy-others`` in any case, and again when it, or for an index its
container, is newer than what was written.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batchlight.config import Method
from batchlight.engine import Engine, call_patiently, window
from batchlight.errors import counted
from batchlight.images.container_names import is_container_name, may_be_container, stem_of
from batchlight.images.names import is_image_name
from batchlight.output.recordfiles import read_records
from batchlight.output.state import OutputState
from batchlight.planning.listing import InputSet
from batchlight.shards.indices import MAKES_ENERGON, SUFFIX
from batchlight.storage import FileInfo, Location, Storage, open_storage
from batchlight.storage.base import folder_of
from batchlight.worker.context import BatchContext
from batchlight.worker.sidecars import Refused, Sidecar, copy_sidecars

SIDECARS_PER_CALL = 32

ENERGON_FILES = (".nv-meta/.info.json", ".nv-meta/.info.yaml")
"""One of these exists where a data set was prepared for Energon."""

_BETWEEN = "._-"
"""Separators between the name of a container and the rest of its sidecar's name."""

WRITTEN = "container_output_sha256"
"""The column that is null for a container without an output."""

IN_RECORDS = (
    "recorded outputs of earlier runs are in their place and are kept; choose another --output to "
    "get these files"
)

logger = logging.getLogger(__name__)


@dataclass
class _Tree:
    """The containers in a method's folder of the output, and the files beside them."""

    containers: dict[str, FileInfo] = field(default_factory=dict)
    """By path, anything with a container's name; a Parquet file may be either."""
    others: dict[str, FileInfo] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    """Folders with containers."""

    @classmethod
    def of(cls, storage: Storage) -> _Tree:
        tree = cls()
        for info in storage.walk():
            if may_be_container(info.path):
                tree.containers[info.path] = info
                tree.folders.add(folder_of(info.path))
            if not is_container_name(info.path) and not is_image_name(info.path):
                tree.others[info.path] = info
        return tree

    def holds(self, container: str | None, folder: str) -> bool:
        """Whether this container, or any one if it is None, is in a folder."""
        return folder in self.folders if container is None else container in self.containers

    def lacks(self, file: FileInfo, container: str | None) -> bool:
        """Whether a file, which belongs to this container or to all of them, has to be written."""
        written = self.others.get(file.path)
        if written is None or _is_newer(file, written):
            return True
        if not file.path.endswith(SUFFIX):
            return written.size != file.size
        return container in self.containers and _is_newer(self.containers[container], written)


def due(inputs: InputSet, output: Location, methods: Sequence[Method]) -> Iterator[Sidecar]:
    """What has to be copied from the input root to the output. Raises ``StorageError``.

    Never anything in the place of an output with records.
    """
    root, patterns = inputs.opened(inputs.root), inputs.patterns
    there = set(open_storage(output).folders(""))
    found = {
        m: _Tree.of(open_storage(output.joined(m))) if m in there else _Tree() for m in methods
    }
    wanted = set().union(*(tree.folders for tree in found.values()))
    listed: defaultdict[str, dict[str, str]] = defaultdict(dict)
    files = []
    for info in root.walk():
        folder = folder_of(info.path)
        if is_image_name(info.path) or info.path.endswith("/"):
            continue
        if folder not in wanted and not inputs.copies_beside(info.path):
            continue
        if inputs.is_container(info):
            listed[folder][stem_of(info.path)] = info.path
        elif not patterns.excludes(info.path):
            files.append(info)
    lacking, unusable = [], []
    for info in files:
        folder, anyway = folder_of(info.path), inputs.copies_beside(info.path)
        container = _owner_of(info.path, listed[folder])
        trees = {m: tree for m, tree in found.items() if anyway or tree.holds(container, folder)}
        if info.defect is not None:
            unusable += [Refused(info.path, info.defect)] if trees else []
        elif to := tuple(m for m, tree in trees.items() if tree.lacks(info, container)):
            lacking.append(Sidecar(info.path, container, to))
    written = {s.path for s in lacking if any(s.path in found[m].others for m in s.methods)}
    taken = _recorded(open_storage(output), written) if written else set()
    _warn_of(unusable + [Refused(path, IN_RECORDS) for path in sorted(taken)])
    yield from (sidecar for sidecar in lacking if sidecar.path not in taken)


async def copy(
    sidecars: Sequence[Sidecar], engine: Engine, context: BatchContext, inputs: InputSet
) -> None:
    """Have the files copied by workers, and warn about those that were refused."""
    parts = [
        sidecars[start : start + SIDECARS_PER_CALL]
        for start in range(0, len(sidecars), SIDECARS_PER_CALL)
    ]

    async def jobs() -> AsyncIterator[Coroutine[Any, Any, list[Refused]]]:
        for part in parts:
            yield call_patiently(engine, copy_sidecars, context, part)

    root = inputs.opened(inputs.root)
    refused = [item async for found in window(jobs(), engine.window) for item in found]
    if any(root.is_file(path) for path in ENERGON_FILES):
        refused.append(Refused(".nv-meta", "it describes the old containers", MAKES_ENERGON))
    _warn_of(refused)


def _recorded(storage: Storage, paths: Collection[str]) -> set[str]:
    """Those of some inputs whose outputs have records, as containers or as copied files.

    Such an input has become a file beside containers since, as a Parquet file does when a tar of
    its name appears. Its output stays as recorded; otherwise verification and runs would keep
    contradicting each other.
    """
    wanted, found = pa.array(sorted(paths), pa.string()), set[str]()
    for path in OutputState.load(storage).record_files:
        rows = read_records(storage, path, ("input", "status", "container", WRITTEN))
        containers = rows.filter(pc.is_valid(rows[WRITTEN]))["container"]
        copied = rows.filter(pc.equal(rows["status"], "copied"))["input"]
        for names in (containers, copied):
            found.update(names.filter(pc.is_in(names, wanted)).unique().to_pylist())
    return found


def _warn_of(refused: Sequence[Refused]) -> None:
    """Warn about files missing from the output, once per reason, with the command to make them."""
    by_reason: defaultdict[tuple[str, str | None], list[str]] = defaultdict(list)
    for item in refused:
        by_reason[item.reason, item.command].append(item.path)
    for (reason, command), paths in by_reason.items():
        logger.warning(
            "not in the output: %s beside containers, such as %s: %s%s",
            counted(len(paths), "file"),
            min(paths),
            reason,
            f"; '{command}' makes them for the new ones" if command else "",
        )


def _owner_of(path: str, containers: Mapping[str, str]) -> str | None:
    """The container, given by stem, that a file belongs to."""
    start = len(path) - len(path.rpartition("/")[2])
    ends = (at for at in range(len(path) - 1, start, -1) if path[at] in _BETWEEN)
    return next((containers[path[:at]] for at in ends if path[:at] in containers), None)


def _is_newer(file: FileInfo, than: FileInfo) -> bool:
    times: tuple[datetime | None, datetime | None] = file.modified, than.modified
    return times[0] is not None and times[1] is not None and times[0] > times[1]
