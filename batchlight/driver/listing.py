"""What a run works on: a directory, one image, a prefix of an object store, or a list of paths."""

from __future__ import annotations

import csv
import io
import logging
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pathspec import PathSpec

from batchlight.config import JobConfig
from batchlight.errors import UsageError, brief
from batchlight.images.names import is_image_name
from batchlight.output.inputs import Input
from batchlight.output.layout import is_output
from batchlight.storage import FileInfo, Location, Storage, open_source
from batchlight.storage.base import BAD_NAME, NameRefusedError, escape_controls

logger = logging.getLogger(__name__)

LIST_SUFFIXES = (".txt", ".csv", ".parquet")
SUFFIXES_AT_MOST, SUFFIX_LENGTH = 256, 24
"""Of those that are passed over, told apart."""
STAT_THREADS = 16
STAT_AHEAD = 4096


@dataclass
class PassedOver:
    """What a listing met beside the images that it gave."""

    suffixes: Counter[str] = field(default_factory=Counter)
    """Files that are no images, by the end of their names."""

    def add(self, path: str) -> None:
        """Count a file. There are never more than ``SUFFIXES_AT_MOST``; all else has none."""
        name = path.rpartition("/")[2]
        suffix = "." + name.rpartition(".")[2].lower() if "." in name else ""
        known = suffix in self.suffixes or len(self.suffixes) < SUFFIXES_AT_MOST
        self.suffixes[suffix if known and len(suffix) <= SUFFIX_LENGTH else ""] += 1

    @property
    def counts(self) -> tuple[tuple[str, int], ...]:
        """By suffix, sorted."""
        return tuple(sorted(self.suffixes.items()))


@dataclass(frozen=True)
class InputSet:
    """The data set: where it is, and a way to list it."""

    root: Location
    """What the paths are relative to."""
    given: Location
    """What was asked for: the root itself, an image in it, or a list in it."""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    limit: int | None = None
    """How many images are listed at most, the first ones; all by default."""
    passed_over: PassedOver = field(default_factory=PassedOver, compare=False)
    """By the listing, once it is at its end."""

    @property
    def is_folder(self) -> bool:
        """Whether all that is in the root is asked for."""
        return self.given == self.root

    @property
    def is_list(self) -> bool:
        """Whether a list names the images."""
        return not self.is_folder and self.given.name.lower().endswith(LIST_SUFFIXES)

    def default_output(self) -> Location:
        """The input with ``-enhanced`` appended; ``UsageError`` where that names no place."""
        if self.is_list or not self.given.name:
            what = "a list" if self.is_list else "a bucket or a file system as a whole"
            raise UsageError(f"--output is required when --input is {what}")
        return self.given.with_name_suffix("-enhanced")

    def would_lose(self, output: Location) -> bool:
        """Whether an output there would take images of this input out of its listing."""
        if not self.is_folder or not self.root.encloses(output):
            return False
        storage = open_source(output)
        try:
            storage.check(writable=False)
        except UsageError:  # nothing is there yet
            return False
        images = (file for file in storage.walk() if is_image_name(file.path))
        return not is_output(storage) and any(images)

    def images(self) -> Iterator[Input]:
        """The images, in the order of the UTF-8 bytes of their paths, never all in memory."""
        self.passed_over.suffixes.clear()
        return islice(self._matching(self._found()), self.limit)

    def first_images(self, files: int) -> tuple[list[Input], bool]:
        """Those among the first so many files, or entries of a list, and whether that is all."""
        found = list(islice(self._found(files + 1, of_any_kind=True), files + 1))
        images = [item for item in found[:files] if self.is_list or is_image_name(item.path)]
        return list(self._matching(images)), len(found) <= files

    def _found(self, at_most: int | None = None, of_any_kind: bool = False) -> Iterator[Input]:
        storage = open_source(self.root)
        if self.is_list:
            yield from _from_list(storage, self.given.name, str(self.given))
        elif not self.is_folder:
            yield _look_at(storage, self.given.name, None)
        else:
            for info in storage.walk(at_most):
                if of_any_kind or is_image_name(info.path):
                    yield _as_input(info)
                else:
                    self.passed_over.add(info.path)

    def _matching(self, found: Iterable[Input]) -> Iterator[Input]:
        included, excluded = _globs("--include", self.include), _globs("--exclude", self.exclude)
        for item in found:
            if included is not None and not included.match_file(item.path):
                continue
            if excluded is not None and excluded.match_file(item.path):
                continue
            yield item


def open_inputs(config: JobConfig) -> InputSet:
    """Find out what ``--input`` is.

    Raises ``UsageError`` if it is nothing that can be used, ``StorageError`` if it is out of reach.
    """
    given = Location.parse(config.input)
    root = given
    if _seems_a_file(given):
        folder = open_source(given.parent)
        folder.check(writable=False)
        if folder.is_file(given.name):
            root = given.parent
    storage = open_source(root)
    storage.check(writable=False)
    for option, patterns in (("--include", config.include), ("--exclude", config.exclude)):
        _globs(option, patterns)
    if root == given and is_output(storage):
        raise UsageError(
            f"{given} is the output of a run and never an input; "
            f"to enhance its images again, give one of its folders, such as {given}/classical"
        )
    if given.remote and root == given and _seems_a_file(given) and not any(storage.walk()):
        # Not to be mistaken for an empty prefix: a list that is missing is no empty data set.
        raise UsageError(f"there is no {given}; check --input")
    return InputSet(root, given, config.include, config.exclude, config.limit)


def _seems_a_file(location: Location) -> bool:
    return is_image_name(location.name) or location.name.lower().endswith(LIST_SUFFIXES)


def _globs(option: str, patterns: tuple[str, ...]) -> PathSpec[Any] | None:
    try:
        # Unlike in a file of patterns, '#' begins no comment.
        lines = ["\\" + p if p.startswith("#") else p for p in patterns]
        return PathSpec.from_lines("gitignore", lines) if lines else None
    except ValueError as error:
        raise UsageError(f"{option} is no valid glob pattern: {error}") from error


def _as_input(info: FileInfo, source: str | None = None) -> Input:
    return Input(info.path, source, info.size, info.modified, info.etag, info.defect)


def _from_list(storage: Storage, name: str, shown: str) -> Iterator[Input]:
    """The entries of a list in order, each looked at; several at once, since each is a request."""
    try:
        data = storage.read(name)
    except (FileNotFoundError, PermissionError) as error:
        raise UsageError(f"cannot read the list {shown}; check that it is there to be read") from (
            error
        )
    entries: dict[str, tuple[str, str | None]] = {}
    duplicates = 0
    for text in _entries(data, name, shown):
        entry = _resolve(text, shown)
        earlier = entries.setdefault(escape_controls(entry[0]), entry)
        duplicates += earlier is not entry
        if earlier != entry:
            one, other = (source or path for path, source in (earlier, entry))
            raise UsageError(
                f"the list {shown} names {one} and {other}, which would be written to the same "
                "output; make two lists of it"
            )
    if duplicates:
        logger.warning("%s names %d images more than once; each is done once", shown, duplicates)
    ordered = iter([entry for _, entry in sorted(entries.items())])
    opened = lru_cache(open_source)
    with ThreadPoolExecutor(STAT_THREADS) as pool:
        while ahead := list(islice(ordered, STAT_AHEAD)):
            yield from pool.map(lambda entry: _look_at(storage, entry[0], entry[1], opened), ahead)


def _entries(data: bytes, name: str, shown: str) -> list[str]:
    try:
        if name.lower().endswith(".parquet"):
            file = pq.ParquetFile(pa.BufferReader(data))
            if "path" not in file.schema_arrow.names:
                raise UsageError(f"the list {shown} has no column 'path'; add one of that name")
            column = file.read(columns=["path"])["path"].cast(pa.string())
            return [text for text in column.to_pylist() if text]
        lines = io.StringIO(data.decode("utf-8-sig"), newline="")
        if name.lower().endswith(".csv"):
            rows = csv.DictReader(lines)
            if "path" not in (rows.fieldnames or ()):
                raise UsageError(f"the list {shown} has no column 'path'; add one with that header")
            return [row["path"] for row in rows if row["path"]]
        return [text for line in lines if (text := line.rstrip("\r\n"))]
    except (pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read the list {shown}: {brief(error)}") from error


def _resolve(text: str, shown: str) -> tuple[str, str | None]:
    """An entry's path below the output, and its source if that is not the list's folder."""
    source: str | None = None
    if "/" not in text.partition("://")[0] and "://" in text:
        try:
            location = Location.parse(text)
        except UsageError as error:
            raise UsageError(f"in the list {shown}: {error}") from error
        source = str(location)
        path = f"{location.bucket}/{location.path}" if location.remote else location.path[1:]
    else:
        path = posixpath.normpath(text)
        if path.startswith("/"):
            path = path.lstrip("/")
            source = f"/{path}"
    if ".." in path.split("/"):
        raise UsageError(
            f"the list {shown} names {text}, whose output would lie outside the output folder; "
            "give its absolute path instead"
        )
    return path, source


def _look_at(
    storage: Storage,
    path: str,
    source: str | None,
    opened: Callable[[Location], Storage] = open_source,
) -> Input:
    shown = escape_controls(path)
    if shown != path:
        return Input(shown, defect=BAD_NAME)
    if not is_image_name(path):
        return Input(path, source, defect="the name does not end like that of an image")
    try:
        if source is None:
            return _as_input(storage.stat(path))
        top, below = Location.parse(source).split_at_top()
        info = opened(top).stat(below)
    except (FileNotFoundError, PermissionError):
        return Input(path, source)  # the batch will meet it again, and say so in its row
    except NameRefusedError as error:
        return Input(path, source, defect=str(error))
    return replace(_as_input(info, source), path=path)
