"""Files beside containers that state offsets in them, or hashes: rewritten, or refused.

DALI's ``wds2idx`` writes a text: ``v1.2`` and the number of samples, then a line for each sample
with suffix, offset of the data, size and name of each of its members; ``v1.1`` has no names.
Energon's ``.tar.idx`` is a list of little-endian 64-bit offsets: where the headers of each sample's
first member begin, and finally where the members end. The index of ``wids`` is a JSON object with
sizes and hashes of shards; that of ``.nv-meta`` is Energon's too. Checksums, signatures, the
``_metadata`` of a Parquet data set and ratarmount's indices are recognized by their names.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence

from batchlight.images.container_names import may_be_container
from batchlight.shards.tar import Member

SUFFIX = ".idx"
MAKES_DALI = "wds2idx SHARD"
MAKES_ENERGON = "energon prepare FOLDER"
MAKES_WIDS = "widsindex create SHARDS"
MAKES_METADATA = "pyarrow.parquet.write_metadata"
MAKES_RATARMOUNT = "ratarmount SHARD"

_DALI = b"v1."
_OFFSET_BYTES = 8
_WIDS = b"wids-shard-index"
_OF_COMPONENT = {b"v1.1": 3, b"v1.2": 4}
"""Words per member, by version."""

_HASH = "md5|sha(?:1|224|256|384|512)|blake2b|blake3|xxh(?:32|64|128)"
_CHECKSUMS = re.compile(
    rf"(?:^|[._-])(?:({_HASH})|checksums?|blake2s|crc32c?|crc64|adler32|sfv)(?:\.txt)?$"
    rf"|(?:^|[._-])(?:({_HASH}|sha|b[23])sums?|checksums?|manifest-({_HASH}))(?:\.(?:txt|json|csv))?$"
    r"|\.(?:(sha|b[23])|crc|xxh)$"
)
"""How the name of a file of checksums ends, in lower case, with the algorithm if it is named."""
_PROGRAMS = {"blake2b": "b2", "blake3": "b3"}
_SIGNATURES = ("asc", "sig", "sign", "minisig", "p7s")
"""Suffixes; beside those, ``gpg`` for checksums, but a shard of that suffix is an encrypted one."""

Move = tuple[int, int]
"""Offset and size."""


def why_stale(path: str) -> tuple[str, str | None] | None:
    """Why a file of this name is wrong for the new containers, and what makes a correct one.

    None unless the name alone tells.
    """
    name = path.rpartition("/")[2].lower()
    if found := _CHECKSUMS.search(name):
        algorithm = next(filter(None, found.groups()), None)
        program = algorithm and f"{_PROGRAMS.get(algorithm, algorithm)}sum FILES"
        return "it contains checksums of the old files", program
    signed, _, kind = name.rpartition(".")
    is_of_shard = kind in _SIGNATURES and may_be_container(signed)
    if is_of_shard or (kind in (*_SIGNATURES, "gpg") and _CHECKSUMS.search(signed)):
        return "it signs an old file", None
    if name == "_metadata":
        return "it contains offsets into the old Parquet files", MAKES_METADATA
    if name.endswith(".index.sqlite"):
        return "it contains offsets into an old tar", MAKES_RATARMOUNT
    return None


def command_for(data: bytes) -> str | None:
    """The command that makes an index of a whole set of shards; None if this is not one."""
    return MAKES_WIDS if _WIDS in data else None


def command_of(path: str, index: bytes) -> str | None:
    """The command that makes the index of one shard; None if its format is unknown."""
    if index.startswith(_DALI):
        return MAKES_DALI
    is_energon = path.endswith(f".tar{SUFFIX}") and len(index) % _OFFSET_BYTES == 0
    return MAKES_ENERGON if is_energon else None


def moved(index: bytes, old: Sequence[Member], new: Sequence[Member]) -> bytes | None:
    """A shard's index adapted to another shard with the same members, which differ in size.

    None if it lists something that the old shard lacks, or if the new shard lacks members.
    """
    if len(old) != len(new):
        return None
    if index.startswith(_DALI):
        pairs = zip(old, new, strict=True)
        return _moved_lines(index, {(o.data, o.size): (n.data, n.size) for o, n in pairs})
    starts = {o.start: n.start for o, n in zip(old, new, strict=True)}
    if old:
        starts[old[-1].end] = new[-1].end
    return _moved_offsets(index, starts)


def _moved_offsets(index: bytes, starts: Mapping[int, int]) -> bytes | None:
    if len(index) % _OFFSET_BYTES:
        return None
    offsets = [starts.get(offset) for (offset,) in struct.iter_unpack("<Q", index)]
    known = [offset for offset in offsets if offset is not None]
    return struct.pack(f"<{len(known)}Q", *known) if len(known) == len(offsets) else None


def _moved_lines(index: bytes, moves: Mapping[Move, Move]) -> bytes | None:
    first, *samples = index.split(b"\n")
    words_each = _OF_COMPONENT.get(first.partition(b" ")[0])
    if words_each is None:
        return None
    lines = [first]
    for sample in samples:
        words = sample.split(b" ") if sample else []
        if len(words) % words_each:
            return None  # a name with spaces
        for at in range(1, len(words), words_each):
            offset, size = words[at : at + 2]
            move = moves.get((int(offset), int(size))) if (offset + size).isdigit() else None
            if move is None:
                return None
            words[at : at + 2] = (b"%d" % number for number in move)
        lines.append(b" ".join(words))
    return b"\n".join(lines)
