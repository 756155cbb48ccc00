"""Which members of a container are images, and their names in records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from pathspec import PathSpec

from batchlight.images.container_names import may_be_container
from batchlight.images.names import is_image_name
from batchlight.output.inputs import Input
from batchlight.shards.tar import Member
from batchlight.storage.base import BAD_NAME, escape_controls
from batchlight.storage.patterns import Patterns, spec_of


def takes_some_of(patterns: Patterns, container: str) -> bool:
    """Whether any member of a container may be selected, judged by the container's path alone."""
    if patterns.excludes(container):
        return False
    return not patterns.include or any(_may_match(glob, container) for glob in patterns.include)


def note_inside(patterns: Patterns, container: str) -> None:
    """Mark patterns as used that may match members of a container, which no listing shows."""
    patterns.note_where(lambda glob: _may_match(glob, container))


def _may_match(glob: str, container: str) -> bool:
    """Whether a glob may match a member of a container.

    A glob with a part that ends like a container refers to containers of that name; one without a
    slash, or that begins with ``**``, to members anywhere.
    """
    parts = glob.removesuffix("/").split("/")
    if not any(map(may_be_container, parts)):
        return "/" not in glob or parts[0] == "**" or _spec(glob).match_file(container)
    anchored = ["**", *parts] if len(parts) == 1 else parts[not parts[0] :]
    return _leads_to(anchored, container.split("/"))


def _leads_to(glob: Sequence[str], path: Sequence[str], is_named: bool = False) -> bool:
    """Whether the parts of a glob match a container, a folder above it, or begin with it.

    ``is_named``: whether the part of the path before these has matched one that is not ``**``.
    Otherwise, no later part may refer to a container: it would be another one.
    """
    if not glob:
        return True
    if not path:
        return is_named or not any(map(may_be_container, glob))
    if glob[0] == "**":
        return _leads_to(glob[1:], path) or _leads_to(glob, path[1:])
    return _spec(f"/{glob[0]}").match_file(path[0]) and _leads_to(glob[1:], path[1:], True)


@lru_cache
def _spec(glob: str) -> PathSpec[Any]:
    return spec_of("--include", (glob,))


def images(
    container: Input, members: Iterable[Member], patterns: Patterns
) -> Iterator[tuple[Member, Input | None]]:
    """Each member, with the input to process if it is an image.

    A repeated name gets a number, as in ``a.tar/0.jpg#2``.
    """
    seen: Counter[str] = Counter()
    for member in members:
        name = text_of(member.name)
        if not member.is_file or not is_image(name):
            yield member, None
            continue
        shown = escape_controls(name)
        path = f"{container.path}/{shown}"
        if not patterns.match(path):
            yield member, None
            continue
        seen[path] += 1
        if seen[path] > 1:
            path = f"{path}#{seen[path]}"
        defect = BAD_NAME if shown != name else member.obstacle
        yield (
            member,
            Input(
                path,
                size=member.size,
                modified=container.modified,
                etag=container.etag,
                defect=defect,
                offset=member.data,
                inside=container,
            ),
        )


def text_of(name: bytes) -> str:
    """A member's name as a relative path; bytes that are not UTF-8 are escaped, as in Python."""
    text = name.decode("utf-8", "surrogateescape").lstrip("/")
    while text.startswith("./"):
        text = text[2:].lstrip("/")
    return text


def is_image(name: str) -> bool:
    """Whether a member counts as an image: by its suffix, unless its name is hidden.

    ``.`` and ``..`` hide nothing, and are no danger: no member is ever extracted.
    """
    parts = (part for part in name.split("/") if part not in (".", ".."))
    return is_image_name(name) and not any(part.startswith(".") for part in parts)
