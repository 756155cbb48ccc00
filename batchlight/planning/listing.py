"""What a run works on: a directory, one image, a prefix of an object store, or a list of paths."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, lru_cache, partial
from itertools import islice

from batchlight.config import JobConfig
from batchlight.errors import UsageError, counted
from batchlight.host.abandoned import Pool
from batchlight.images.container_names import (
    is_container_name,
    is_parquet_name,
    may_be_container,
    why_refused,
)
from batchlight.images.names import is_image_name
from batchlight.output.inputs import (
    NOT_AN_IMAGE,
    DataSet,
    Input,
    in_order_of_keys,
    is_other_name,
    place_of,
)
from batchlight.output.layout import is_output
from batchlight.planning.passed_over import PassedOver
from batchlight.shards.inventory import holds_images, may_be_of_images
from batchlight.shards.selection import note_inside, takes_some_of
from batchlight.storage import EVERYONE, FileInfo, Location, Storage, open_source
from batchlight.storage.base import (
    BAD_NAME,
    LINKED_FOLDER,
    OUTPUT_FOLDER,
    FileRefusedError,
    escape_controls,
    folder_of,
)
from batchlight.storage.lists import LIST_SUFFIXES, ListEntry
from batchlight.storage.patterns import Patterns

logger = logging.getLogger(__name__)

STAT_THREADS = 16
STAT_AHEAD = 4096


@dataclass(frozen=True)
class InputSet:
    """The data set, and a way to list it."""

    data_set: DataSet
    patterns: Patterns = field(default_factory=Patterns)
    limit: int | None = None
    """How many images to list at most, from the first; all by default."""
    image_columns: tuple[str, ...] = ()
    """Columns of Parquet files with images; found in each file by default."""
    output: Location | None = None
    """This job's own output, which is skipped silently."""
    passed_over: PassedOver = field(default_factory=PassedOver, compare=False)
    """What the listing found besides images; complete once it has ended."""

    @property
    def root(self) -> Location:
        """What the paths are relative to."""
        return self.data_set.root

    @property
    def given(self) -> Location:
        """What was asked for."""
        return self.data_set.given

    def default_output(self) -> Location:
        """The input with ``-enhanced`` appended; ``UsageError`` for a list, or without a name."""
        if self.data_set.is_list or not self.given.name:
            what = "a list" if self.data_set.is_list else "a bucket or a file system as a whole"
            raise UsageError(f"--output is required when --input is {what}")
        return self.given.with_name_suffix("-enhanced")

    def would_lose(self, output: Location) -> bool:
        """Whether an output there would remove images of this input from its listing."""
        if not self.data_set.is_folder or not self.root.encloses(output):
            return False
        storage = open_source(output)
        try:
            storage.check(writable=False)
        except UsageError:  # nothing is there yet
            return False
        images = (file for file in storage.walk() if _is_input_name(file.path))
        return not is_output(storage) and any(images)

    def permissions(self, output: Location) -> int:
        """Who may read the data set as a whole, as permission bits of an output of it."""
        if output.remote or self.root.remote:
            return EVERYONE
        name = "" if self.data_set.is_folder else self.given.name
        return open_source(self.root).permissions(name, output.path)

    def images(self, soon: bool = False) -> Iterator[Input]:
        """The images, in the order of the UTF-8 bytes of their paths, never all in memory.

        ``soon``: see ``Storage.walk``.
        """
        self.passed_over.clear()
        found = self._matching(self._images_of(self._found(soon=soon)))
        return self._limited(in_order_of_keys(found))

    def images_among(self, files: Iterable[FileInfo]) -> Iterator[Input]:
        """The images among the files of one part of a folder's listing."""
        self.passed_over.clear()
        return self._matching(self._images_of(self._looked_into(files)), is_all=False)

    def _limited(self, found: Iterable[Input]) -> Iterator[Input]:
        """Everything up to the last image or container wanted; other files do not count."""
        if self.limit is None:
            yield from found
            return
        images = 0
        for item in found:
            yield item
            images += not item.is_other
            if images == self.limit:
                return

    def first_images(self, files: int) -> tuple[list[Input], bool]:
        """Images and containers among the first ``files`` files, and whether there are no more."""
        self.passed_over.clear()
        found = list(islice(self._found(files + 1), files + 1))
        is_all = len(found) <= files
        return list(self._matching(self._images_of(found[:files]), is_all)), is_all

    def parquet_files(self) -> Iterator[Input]:
        """The Parquet files that may be containers, in the order of the listing."""
        for item in self._found():
            is_one = item.container and item.defect is None and is_parquet_name(item.path)
            if is_one and takes_some_of(self.patterns, item.path):
                yield item

    def _found(self, at_most: int | None = None, soon: bool = False) -> Iterator[Input]:
        """Everything listed, or the first ``at_most`` files; in a folder, files of any kind."""
        if self.data_set.is_list:
            yield from self._listed()
        elif not self.data_set.is_folder:
            opened = self.opened
            yield _look_at(ListEntry(self.given.name, None), opened(self.root), opened)
        else:
            yield from self._looked_into(self.opened(self.root).walk(at_most, soon))

    def _looked_into(self, files: Iterable[FileInfo]) -> Iterator[Input]:
        """Files as inputs; Parquet footers, read several at once, tell which are containers."""
        listed = iter(files)
        with Pool(STAT_THREADS) as pool:
            while ahead := list(islice(listed, STAT_AHEAD)):
                unknown = [f for f in ahead if is_parquet_name(f.path) and not f.defect]
                for _ in pool.map(self._may_be_of_images, unknown):
                    pass  # asked for here, since each thread might make a cache of its own
                yield from (_as_input(info, self.is_container(info)) for info in ahead)

    def is_container(self, file: FileInfo) -> bool:
        """Whether a file of a folder is a container of images."""
        if not is_parquet_name(file.path):
            return is_container_name(file.path)
        if file.defect is None:
            return self._may_be_of_images(file)
        # It cannot be looked into. Beside tars, it most likely describes their members.
        return folder_of(file.path) not in self._with_tars

    @cached_property
    def _with_tars(self) -> set[str]:
        """The folders that hold containers other than Parquet files."""
        listed = self.opened(self.root).walk()
        return {folder_of(f.path) for f in listed if is_container_name(f.path)}

    @cached_property
    def _may_be_of_images(self) -> Callable[[FileInfo], bool]:
        """Looks into a Parquet file, once for each version."""
        storage = self.opened(self.root)
        return cache(partial(may_be_of_images, storage=storage, columns=self.image_columns))

    @cached_property
    def opened(self) -> Callable[[Location], Storage]:
        """Opens a storage to read from, each location only once."""
        return lru_cache(partial(open_source, follow_links=self.data_set.follows_links))

    def _images_of(self, found: Iterable[Input]) -> Iterator[Input]:
        """Leaves out and counts what is passed over; warns of folders at the end."""
        if not self.data_set.is_folder:
            yield from found
            return
        met = self.passed_over
        for item in found:
            if item.defect == LINKED_FOLDER:
                met.linked_folders.append(item.path)
            elif item.defect == OUTPUT_FOLDER:
                if self.root.joined(item.path[:-1]) != self.output:
                    met.outputs.append(item.path)
            elif not _is_other(item) or self._is_copied(item.path):
                yield item
            else:
                self.patterns.note(item.path)
                met.add(item.path, beside=self._goes_along(item))
                if self.data_set.copies_others:
                    yield replace(item, beside=True)
        met.warn_of_folders(self.root)

    def _matching(self, found: Iterable[Input], is_all: bool = True) -> Iterator[Input]:
        for item in found:
            if self._takes(item):
                if item.container and item.defect is None:
                    self.passed_over.add_container(item.path)
                yield item
            elif item.beside:
                continue  # counted already
            elif self.data_set.is_folder and _is_other(item):
                self.passed_over.add(item.path, beside=False)
            else:
                self.passed_over.not_matching += 1
        if is_all:
            self.patterns.warn_of_unused()

    def _goes_along(self, item: Input) -> bool:
        """Whether a file that is not an image is copied if its folder holds containers."""
        return item.defect is None and not self.patterns.excludes(item.path)

    def _is_copied(self, path: str) -> bool:
        """Whether ``--copy-others`` copies a file: not beside containers, where all are copied."""
        return self.data_set.copies_others and folder_of(path) not in self._with_containers

    def copies_beside(self, path: str) -> bool:
        """Whether ``--copy-others`` promises a file beside containers, even if they all fail."""
        others = self.data_set.copies_others and self.limit is None and not self._is_copied(path)
        return others and self.patterns.match(path)

    @cached_property
    def _with_containers(self) -> set[str]:
        """The folders with containers to read; nothing goes along with those that never are."""
        listed = self.opened(self.root).walk()
        return {folder_of(f.path) for f in listed if self._is_read(f)}

    def _is_read(self, file: FileInfo) -> bool:
        """Whether a file is a container to read: selected, and not refused for its name."""
        is_usable = file.defect is None and why_refused(file.path) is None
        named = is_usable and may_be_container(file.path)
        return named and takes_some_of(self.patterns, file.path) and self.is_container(file)

    def _takes(self, item: Input) -> bool:
        if not item.container:
            return self.patterns.match(item.path)
        note_inside(self.patterns, item.path)
        return takes_some_of(self.patterns, item.path)

    def _listed(self) -> Iterator[Input]:
        """The entries in order, each looked up; several at once, since each is a request."""
        entries, duplicates = self.data_set.entries()
        if duplicates:
            logger.warning(
                "%s names %s more than once; each is processed once",
                self.given,
                counted(duplicates, "image"),
            )
        ordered = iter(entries)
        opened = self.opened
        storage = opened(self.root)

        def look(entry: ListEntry) -> Input:
            place = self.root if entry.source is None else Location.parse(entry.source)
            # For a local file, only the file system is trusted: a lookup costs no request.
            known = entry if place.remote else replace(entry, etag=None)
            return _look_at(known, storage, opened)

        with Pool(STAT_THREADS) as pool:
            while ahead := list(islice(ordered, STAT_AHEAD)):
                yield from pool.map(look, ahead)


def open_inputs(config: JobConfig) -> InputSet:
    """Find out what ``--input`` is.

    Raises ``UsageError`` if it cannot be used, ``StorageError`` if it cannot be reached.
    """
    given = Location.parse(config.input)
    root = given
    if _seems_a_file(given):
        folder = open_source(given.parent, follow_links=True)
        folder.check(writable=False)
        if folder.is_file(given.name):
            root = given.parent
    storage = open_source(root)
    storage.check(writable=False)
    patterns = Patterns.of(config.include, config.exclude)
    if root == given and is_output(storage):
        raise UsageError(
            f"{given} is the output of a run and cannot be an input; "
            f"to enhance its images again, give one of its folders, such as {given}/classical"
        )
    if given.remote and root == given and _seems_a_file(given) and not any(storage.walk()):
        # Not to be mistaken for an empty prefix: a missing list is not an empty data set.
        raise UsageError(f"{given} does not exist; check --input")
    columns = config.image_column
    of_images = (
        root != given and is_parquet_name(given.name) and holds_images(given.name, storage, columns)
    )
    data_set = DataSet(root, given, config.follow_links, config.copy_others, of_images)
    if config.copy_others and not data_set.is_folder:
        raise UsageError("--copy-others needs a folder or a prefix as --input; leave it out")
    return InputSet(data_set, patterns, config.limit, columns)


def _seems_a_file(location: Location) -> bool:
    return _is_input_name(location.name) or location.name.lower().endswith(LIST_SUFFIXES)


def _is_input_name(path: str) -> bool:
    return is_image_name(path) or may_be_container(path)


def _is_other(item: Input) -> bool:
    """Whether a listed file is neither an image nor a container, whatever is wrong with it."""
    return is_other_name(item.path) and not item.container


def _as_input(info: FileInfo, container: bool) -> Input:
    defect = info.defect or (why_refused(info.path) if container else None)
    return Input(info.path, None, info.size, info.modified, info.etag, defect, container)


def _look_at(entry: ListEntry, storage: Storage, opened: Callable[[Location], Storage]) -> Input:
    path, source = entry.path, entry.source
    shown = escape_controls(path)
    if not _is_input_name(shown):
        return Input(shown, source, defect=NOT_AN_IMAGE)
    if shown != path:
        return Input(shown, defect=BAD_NAME)
    container = may_be_container(path)  # a list names a Parquet file for the images in it
    if entry.etag is not None:
        listed = FileInfo(path, entry.size, entry.modified, entry.etag)
        return replace(_as_input(listed, container), source=source)
    try:
        place, below = place_of(Input(path, source), storage, opened)
        return replace(_as_input(place.stat(below), container), path=path, source=source)
    except (FileNotFoundError, PermissionError):
        # The batch will fail in the same way, and record that in its row.
        return Input(path, source, container=container)
    except FileRefusedError as error:
        return Input(path, source, defect=str(error), container=container)
