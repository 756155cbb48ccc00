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
"""The fields in which Hugging Face's data sets store an image: its bytes, or its path."""


@dataclass(frozen=True)
class ImageColumn:
    """A column of images."""

    names: tuple[str, ...]
    """From the root of the schema."""
    leaf: Leaf
    paths: Leaf | None
    """The column with the paths of images whose bytes are missing."""

    @property
    def name(self) -> str:
        """As in records and ``--image-column``."""
        return ".".join(self.names)


def image_columns(
    footer: Footer, named: Collection[str], holds_images: Callable[[Leaf], bool]
) -> list[ImageColumn]:
    """The columns that the file types as images, or otherwise those with values that are images.

    ``named``: columns to use instead; ``holds_images`` checks a column's first values. Raises
    ``ImageError`` if the file has no column of a given name.
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
    """The columns that may hold images: those of bytes without another type.

    A repeated name gets a number, as in ``image#2``.
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
    """Whether the footer allows for images, without reading any values."""
    typed = None if named else _typed(footer)
    return bool(candidates(footer) if typed is None else typed)


def _typed(footer: Footer) -> set[tuple[str, ...]] | None:
    """Names of the image columns according to Hugging Face's metadata; None if there is none.

    ``Image`` or, in older files, lists and structs of it.
    """
    with suppress(ValueError, LookupError, TypeError, RecursionError):
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
