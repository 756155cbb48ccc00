"""Names of containers: which files count as one, and which are refused by name."""

from __future__ import annotations

from typing import Literal

ContainerKind = Literal["tar", "tar.gz", "parquet", "refused"]

PARQUET = ".parquet"
SUFFIXES: dict[str, ContainerKind] = {
    ".tar": "tar",
    ".tar.gz": "tar.gz",
    ".tgz": "tar.gz",
    PARQUET: "parquet",
}

_REFUSED = (".tar.zst", ".tar.xz", ".tar.bz2", ".tar.lz4", ".tzst", ".txz", ".tbz2")


_KNOWN = (*SUFFIXES, *_REFUSED)


def is_container_name(path: str) -> bool:
    """Whether a file is a container by its name alone, even if it is one that is refused."""
    return _suffix(path) not in (None, PARQUET)


def may_be_container(path: str) -> bool:
    """The same, or whether that depends on the file's content."""
    return _suffix(path) is not None


def is_parquet_name(path: str) -> bool:
    """Whether a file has the name of one whose columns decide whether it is a container."""
    return _suffix(path) == PARQUET


def container_kind(path: str) -> ContainerKind:
    """The kind of container that a file of this name is."""
    return SUFFIXES.get(_suffix(path) or ".tar", "refused")


def stem_of(path: str) -> str:
    """The path of a container without its suffix."""
    return path[: -len(_suffix(path) or "")]


def why_refused(path: str) -> str | None:
    """Why a container of this name is not read; None if it is."""
    suffix = _suffix(path)
    if suffix is None or suffix in SUFFIXES:
        return None
    return f"{suffix} is not read; decompress it, or compress it as .tar.gz"


def _suffix(path: str) -> str | None:
    if not path.lower().endswith(_KNOWN):  # as for most files of a listing
        return None
    name = path.rpartition("/")[2].lower()
    fitting = (suffix for suffix in _KNOWN if name.endswith(suffix))
    return next((suffix for suffix in fitting if name != suffix), None)
