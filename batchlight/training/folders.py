"""Folders of images, and the pairing of the images of two folders.

Images are paired by relative path. The same path with another suffix (``a.jpg`` and ``a.png``) is a
pair too, if each folder has just one image of that name; an equal path takes precedence.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from batchlight.config import LARGEST_IMAGE
from batchlight.errors import ErrorCode, ImageError, UsageError, brief
from batchlight.host.resources import usable_cpus
from batchlight.images.codec import decode
from batchlight.images.container_names import may_be_container
from batchlight.images.header import read_header
from batchlight.images.image import Header
from batchlight.images.names import is_image_name
from batchlight.images.pixels import Pixels
from batchlight.output.inputs import Input
from batchlight.output.layout import is_output
from batchlight.shards.inventory import bytes_in, images_in
from batchlight.storage import Location, Storage, open_source
from batchlight.storage.base import NO_SUCH_FILE

T = TypeVar("T")
R = TypeVar("R")

NAMED_AT_MOST = 5
"""How many images without a counterpart to name; all are counted."""

THREADS_PER_CPU = 2
"""Some threads wait for files while others compute, for which they release the interpreter lock."""
AHEAD = 1024
"""Images submitted to the threads at once."""
PIXELS_AT_ONCE = 32_000_000
"""Pixels of images being processed at once, since each takes about 150 bytes. A larger image is
processed alone."""


class NoScoreError(Exception):
    """The reason why an image has no score."""


@dataclass(frozen=True)
class Side:
    """One of the two folders."""

    noun: str
    location: Location
    storage: Storage
    files: Mapping[str, str | None]
    """The images in order: relative path, and why its name cannot be used, if so."""
    members: Mapping[str, Input]
    """Images in containers."""

    @classmethod
    def open(cls, noun: str, option: str, place: str | os.PathLike[str]) -> Side:
        location = Location.parse(place)
        if not location.remote and os.path.isfile(location.path):
            raise UsageError(f"{location} is a file; give the folder that holds it as {option}")
        storage = open_source(location)
        storage.check(writable=False)
        if is_output(storage):
            raise UsageError(
                f"{location} is the output of a run; give one of its folders, "
                f"such as {location}/classical, as {option}"
            )
        files: dict[str, str | None] = {}
        members: dict[str, Input] = {}
        for info in storage.walk():
            if is_image_name(info.path):
                files[info.path] = info.defect
            elif may_be_container(info.path):
                for item in images_in(storage, info):
                    files[item.path] = item.defect
                    if item.inside is not None:
                        members[item.path] = item
        if not files:
            raise UsageError(f"{location} contains no images; check {option}")
        return cls(noun, location, storage, files, members)

    def read(self, path: str) -> tuple[bytes, Header]:
        """An image's bytes and header, before a pixel is decoded. Raises ``NoScoreError``."""
        if (defect := self.files[path]) is not None:
            raise self.refusal(defect)
        try:
            data = self._bytes_of(path)
            return data, read_header(data, LARGEST_IMAGE)
        except FileNotFoundError:
            raise self.refusal(NO_SUCH_FILE) from None
        except PermissionError:
            raise self.refusal("no permission to read it") from None
        except OSError as error:
            raise self.refusal(f"cannot be read: {brief(error)}") from error
        except ImageError as error:
            if (
                error.code == ErrorCode.TOO_LARGE
            ):  # its text names an option that does not exist here
                raise self.refusal(f"more than {LARGEST_IMAGE:,} pixels") from error
            raise self.refusal(error.message) from error

    def _bytes_of(self, path: str) -> bytes:
        if path in self.members:
            return bytes_in(self.members[path], self.storage, open_source)
        return self.storage.read(path)

    def decode(self, data: bytes, header: Header) -> Pixels:
        """Its pixels. Raises ``NoScoreError``."""
        try:
            return decode(data, header).pixels
        except ImageError as error:
            raise self.refusal(error.message) from error

    def refusal(self, reason: str) -> NoScoreError:
        return NoScoreError(f"{self.noun}: {reason}")


class PixelBudget:
    """Admits a limited number of pixels at a time."""

    def __init__(self, pixels: int) -> None:
        self._size = self._left = pixels
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Wait until there is room for ``pixels``; more than the limit wait for all of it."""
        share = min(pixels, self._size)
        with self._changed:
            self._changed.wait_for(lambda: share <= self._left)
            self._left -= share
        try:
            yield
        finally:
            with self._changed:
                self._left += share
                self._changed.notify_all()


@dataclass(frozen=True)
class Unmatched:
    """Images of one folder without a counterpart in the other."""

    count: int
    first: tuple[str, ...]
    """The paths of the first few."""


def pairs_of(enhanced: Iterable[str], references: Iterable[str]) -> dict[str, str]:
    """Each image of one folder with a counterpart in the other, in order, and that counterpart."""
    ours, theirs = _by_stem(enhanced), _by_stem(references)
    found = {}
    for path in enhanced:
        stem = _stem(path)
        candidates = theirs.get(stem, [])
        if path in candidates:
            found[path] = path
        elif len(candidates) == len(ours[stem]) == 1:
            found[path] = candidates[0]
    return found


def _by_stem(paths: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in paths:
        found.setdefault(_stem(path), []).append(path)
    return found


def _stem(path: str) -> str:
    return path.rpartition(".")[0]


def unmatched_of(paths: Iterable[str], matched: Iterable[str]) -> Unmatched:
    """The paths without a counterpart."""
    done = set(matched)
    alone = [path for path in paths if path not in done]
    return Unmatched(len(alone), tuple(alone[:NAMED_AT_MOST]))


def in_order(items: Sequence[T], work: Callable[[T, PixelBudget], R]) -> Generator[R, None, None]:
    """The result of ``work`` for each item, in order, computed by several threads."""
    shared = PixelBudget(PIXELS_AT_ONCE)
    with ThreadPoolExecutor(THREADS_PER_CPU * usable_cpus()) as pool:
        for start in range(0, len(items), AHEAD):
            yield from pool.map(lambda item: work(item, shared), items[start : start + AHEAD])
