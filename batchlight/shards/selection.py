"""Which members of a container are images, and what their records call them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pathspec import PathSpec

from batchlight.errors import UsageError
from batchlight.images.names import is_image_name
from batchlight.output.inputs import Input
from batchlight.shards.names import is_container_name
from batchlight.shards.tar import Member
from batchlight.storage.base import BAD_NAME, escape_controls


@lru_cache
def globs(option: str, patterns: tuple[str, ...]) -> PathSpec[Any] | None:
    """What matches any of the patterns; None without any. Raises ``UsageError``."""
    try:
        # Unlike in a file of patterns, '#' begins no comment.
        lines = ["\\" + p if p.startswith("#") else p for p in patterns]
        return PathSpec.from_lines("gitignore", lines) if lines else None
    except ValueError as error:
        raise UsageError(f"{option} is no valid glob pattern: {error}") from error


@dataclass(frozen=True)
class Selection:
    """What ``--include`` and ``--exclude`` leave."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def takes(self, path: str) -> bool:
        """Whether an image of this path, in a container or not, is to be worked on."""
        included, excluded = globs("--include", self.include), globs("--exclude", self.exclude)
        if included is not None and not included.match_file(path):
            return False
        return excluded is None or not excluded.match_file(path)

    def may_take_of(self, container: str) -> bool:
        """Whether anything of a container is, judged by its path alone.

        Patterns with a part that ends like a container speak of containers, those without a slash
        of members anywhere.
        """
        excluded = globs("--exclude", self.exclude)
        if excluded is not None and excluded.match_file(container):
            return False
        return not self.include or any(_may_match(p, container) for p in self.include)


def _may_match(pattern: str, container: str) -> bool:
    parts = pattern.split("/")
    for number, part in enumerate(parts):
        if is_container_name(part):
            parts, anywhere = parts[: number + 1], False
            break
    else:
        anywhere = "/" not in pattern or parts[0] == "**"
    found = globs("--include", ("/".join(parts),))
    return anywhere or (found is not None and found.match_file(container))


def images(
    container: Input, members: Iterable[Member], selection: Selection
) -> Iterator[tuple[Member, Input | None]]:
    """Each member, with what is to be worked on if it is an image.

    A name that is there before gets its number, as in ``a.tar/0.jpg#2``.
    """
    seen: Counter[str] = Counter()
    for member in members:
        name = text_of(member.name)
        if not member.is_file or not is_image(name):
            yield member, None
            continue
        shown = escape_controls(name)
        path = f"{container.path}/{shown}"
        if not selection.takes(path):
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
            ),
        )


def text_of(name: bytes) -> str:
    """A member's name as a relative path; bytes that are no UTF-8 are escaped, as by Python."""
    text = name.decode("utf-8", "surrogateescape").lstrip("/")
    while text.startswith("./"):
        text = text[2:].lstrip("/")
    return text


def is_image(name: str) -> bool:
    """Whether a member is taken for an image: by its suffix, and unless its name is hidden."""
    return is_image_name(name) and not any(part.startswith(".") for part in name.split("/"))


def key_of(name: bytes) -> bytes:
    """What the members of a sample have in common: the path up to the first dot of its name.

    As WebDataset splits it.
    """
    folder, slash, base = name.rpartition(b"/")
    return folder + slash + base.partition(b".")[0]
