"""Which columns of a Parquet file hold images."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from batchlight.shards.footer import Footer, Leaf, unsupported
from batchlight.storage.base import BAD_NAME, escape_controls

BYTES, PATH = "bytes", "path"
"""The fields in which Hugging Face's data sets store an image: its bytes, or its path."""


@dataclass(frozen=True)
class ImageColumn:
    """A column of images."""

    names: tuple[str, ...]
    """From the root of the schema."""
    name: str
    """As in records and ``--image-column``; no other column of the file has it."""
    leaf: Leaf
    paths: Leaf | None
    """The column with the paths of images whose bytes are missing."""

    @property
    def defect(self) -> str | None:
        """What is wrong with its name."""
        dotted = ".".join(self.names)
        return BAD_NAME if escape_controls(dotted) != dotted else None


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
    all_paths = {  # a field that repeats has any number of values for each image
        (leaf.parent, leaf.max_repetition): leaf
        for leaf in footer.leaves
        if leaf.names[-1] == PATH and leaf.may_be_text
    }
    found: list[ImageColumn] = []
    taken = _Names()
    for leaf in footer.leaves:
        if leaf.is_binary:
            paths = None
            if leaf.names[-1] == BYTES and leaf.parent:  # not at the root, which is not an image
                paths = all_paths.get((leaf.parent, leaf.max_repetition))
            names = leaf.names if paths is None else leaf.names[:-1]
            name = taken.free(escape_controls(".".join(names)), leaf.max_repetition > 0)
            found.append(ImageColumn(names, name, leaf, paths))
    return found


class _Names:
    """Names that no two columns share, and that give no two images the same name.

    Different fields may have the same name in dots: ``a.b``, and ``b`` in the struct ``a``. The
    images of a list ``a`` are ``a/0``, ``a/1``, which are also possible names of columns.
    """

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._lists: set[str | None] = set()
        self._like_items: set[str | None] = set()
        """Lists, there or not, an image of which would be named like a column."""

    def free(self, name: str, is_list: bool) -> str:
        """The name, or else with the first number that makes it another one."""
        numbered, number = name, 1
        while self._is_taken(numbered, is_list):
            number += 1
            numbered = f"{name}#{number}"
        self._names.add(numbered)
        if is_list:
            self._lists.add(numbered)
        else:
            self._like_items.add(_list_of(numbered))
        return numbered

    def _is_taken(self, name: str, is_list: bool) -> bool:
        clashes = name in self._like_items if is_list else _list_of(name) in self._lists
        return clashes or name in self._names


def _list_of(name: str) -> str | None:
    """The list of which an image may have this name."""
    above, _, index = name.rpartition("/")
    return above if index.isdecimal() else None


def may_hold_images(footer: Footer, named: Collection[str]) -> bool:
    """Whether the footer allows for images, without reading any values."""
    typed = None if named else _typed(footer)
    return bool(candidates(footer) if typed is None else typed)


def _typed(footer: Footer) -> set[tuple[str, ...]] | None:
    """Names of the image columns according to Hugging Face's metadata; None if it names none.

    ``Image`` or, in older files, lists and structs of it.
    """
    with suppress(ValueError, LookupError, TypeError, RecursionError):
        features = json.loads(footer.keys[b"huggingface"])["info"]["features"]
        return set(_images_in(features, ())) or None
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
