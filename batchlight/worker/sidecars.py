"""Files beside containers, which are copied to the output byte for byte.

The exceptions are files that state where something is in a container, or its hash, since these are
stale: an index is rewritten if all that it states is known, otherwise it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchlight.config import Method
from batchlight.errors import ImageError, brief
from batchlight.images.container_names import container_kind
from batchlight.output.inputs import Input
from batchlight.output.layout import container_output
from batchlight.shards import indices
from batchlight.shards.tar import members
from batchlight.storage.base import FileTooLargeError, Reader, Writer
from batchlight.worker.context import BatchContext

if TYPE_CHECKING:
    from batchlight.worker.steps import Steps

PIECE_BYTES = 2**20
HEAD_BYTES = 2**16
"""How much of a file is examined to recognize an index."""
LARGEST_INDEX = 64 * 2**20
UNKNOWN_INDEX = (
    "it is an index of an unknown format; if it does not refer to the containers, copy it yourself"
)
ABSENT = "its container is not in the output"


@dataclass(frozen=True)
class Sidecar:
    """A file beside containers."""

    path: str
    container: str | None
    """The container whose index it may be."""
    methods: tuple[Method, ...]
    """Methods whose output tree should have it."""


@dataclass(frozen=True)
class Refused:
    """A file that was not copied to the output."""

    path: str
    reason: str
    command: str | None = None
    """A command that makes it for the new containers."""


def copy_sidecars(context: BatchContext, sidecars: Sequence[Sidecar]) -> list[Refused]:
    """Write some of them. Raises ``StorageError`` for trouble that is not theirs."""
    from batchlight.worker.steps import Steps  # not at the top: the driver needs no codec

    steps = Steps(context)
    refused = []
    for sidecar in sidecars:
        steps.require_wanted()
        try:
            found = _copied(steps, sidecar)
        except (OSError, FileTooLargeError) as error:  # no trouble of the storage as a whole
            found = Refused(sidecar.path, brief(error))
        if found is not None:
            refused.append(found)
    steps.output.sync()
    return refused


def _copied(steps: Steps, sidecar: Sidecar) -> Refused | None:
    if stale := indices.why_stale(sidecar.path):
        return Refused(sidecar.path, *stale)
    permissions = steps.permissions_of(Input(sidecar.path))
    with closing(steps.input.open_reader(sidecar.path)) as source:
        if sidecar.path.endswith(indices.SUFFIX):
            return _written_anew(steps, sidecar, source, permissions)
        command = indices.command_for(source.read_at(0, HEAD_BYTES))
        if command is not None:
            return Refused(sidecar.path, "it describes the containers as they were", command)
        is_remote = steps.context.output.remote
        modified = None if is_remote else steps.input.stat(sidecar.path).modified
        with ExitStack() as exits:
            writers = []
            for method in sidecar.methods:
                path = f"{method}/{sidecar.path}"
                writers.append(steps.output.open_writer(path, permissions, modified))
                exits.callback(writers[-1].abort)
            _copy(source, writers)
    return None


def _copy(source: Reader, writers: Sequence[Writer]) -> None:
    """Read once, for all of them."""
    for start in range(0, source.size, PIECE_BYTES):
        piece = source.read_at(start, PIECE_BYTES)
        for writer in writers:
            writer.write(piece)
    source.require_unchanged()
    for writer in writers:
        writer.commit()


def _written_anew(
    steps: Steps, sidecar: Sidecar, source: Reader, permissions: int
) -> Refused | None:
    index = source.read_at(0, LARGEST_INDEX)
    container = sidecar.container
    command = indices.command_of(sidecar.path, index)
    reason = "it contains offsets into a container" if command else UNKNOWN_INDEX
    refused = Refused(sidecar.path, reason, command)
    if container is None or container_kind(container) != "tar":
        return refused
    try:
        with closing(steps.input.open_reader(container)) as reader:
            old = list(members(reader))
        for method in sidecar.methods:
            with closing(steps.output.open_reader(container_output(method, container))) as reader:
                new = list(members(reader))
            moved = indices.moved(index, old, new)
            if moved is None:
                return refused
            steps.output.write(f"{method}/{sidecar.path}", moved, permissions)
    except ImageError:
        return refused
    except FileNotFoundError:
        return Refused(sidecar.path, ABSENT)
    return None
