"""Which columns of a Parquet file hold images."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from batchlight.shards.footer import Footer, Leaf, unsupported

BYTES, PATH = "bytes", "path"
"""What Hugging Face's data sets store an image as: its bytes, or where it is."""


@dataclass(frozen=True)
class ImageColumn:
    """A column of images."""

    names: tuple[str, ...]
    """From the top."""
    leaf: Leaf
    paths: Leaf | None
    """Where images are of which the bytes are not there."""

    @property
    def name(self) -> str:
        """As records and ``--image-column`` have it."""
        return ".".join(self.names)


def image_columns(
    footer: Footer, named: Collection[str], holds_images: Callable[[Leaf], bool]
) -> list[ImageColumn]:
    """Those that the file types as images, or else those whose values are.

    ``named``: those that are taken instead; ``holds_images`` looks at a column's first values.
    Raises ``ImageError`` for a file that has none that is named so.
    """
    there = candidates(footer)
    if named:
        found = [column for column in there if column.name in named]
        if not found:
            names = ", ".join(column.name for column in there) or "none"
            raise unsupported(f"it has no column of bytes named {' or '.join(named)}, but {names}")
        return found
    typed = _typed(footer)
    if typed is not None:
        return [column for column in there if column.names in typed]
    return [column for column in there if holds_images(column.leaf)]


def candidates(footer: Footer) -> list[ImageColumn]:
    """The columns that may hold images: of bytes of no other kind.

    A name that is there before gets its number, as in ``image#2``.
    """
    by_names = {leaf.names: leaf for leaf in footer.leaves}
    found: list[ImageColumn] = []
    seen: Counter[tuple[str, ...]] = Counter()
    for leaf in footer.leaves:
        if leaf.is_binary:
            above = leaf.names[:-1]
            paths = by_names.get((*above, PATH)) if leaf.names[-1] == BYTES and above else None
            names = leaf.names if paths is None else above
            seen[names] += 1
            if seen[names] > 1:
                names = (*names[:-1], f"{names[-1]}#{seen[names]}")
            found.append(ImageColumn(names, leaf, paths))
    return found


def may_hold_images(footer: Footer, named: Collection[str]) -> bool:
    """What can be told without a look at any value."""
    typed = None if named else _typed(footer)
    return bool(candidates(footer) if typed is None else typed)


def _typed(footer: Footer) -> set[tuple[str, ...]] | None:
    """The names of columns of images, as Hugging Face's data sets note them; None if they do not.

    ``Image`` or, in older files, lists and structs of it.
    """
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        features = json.loads(footer.keys[b"huggingface"])["info"]["features"]
        return set(_images_in(features, ()))
    return None


def _images_in(feature: Any, names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(feature, Sequence) and not isinstance(feature, str):
        yield from _images_in(feature[0], names)
    elif isinstance(feature, dict):
        kind = feature.get("_type")
        if kind == "Image":
            yield names
        elif isinstance(kind, str):
            yield from _images_in(feature.get("feature", {}), names)
        else:
            for name, below in feature.items():
                yield from _images_in(below, (*names, name))
