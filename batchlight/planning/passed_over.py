"""What a listing found besides the images that it yields."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field

from batchlight.errors import counted
from batchlight.storage import Location
from batchlight.storage.base import folder_of

SUFFIXES_AT_MOST, SUFFIX_LENGTH = 256, 24
"""How many suffixes to count separately, and how long they may be; the rest share one count."""

logger = logging.getLogger(__name__)


@dataclass
class _Folder:
    path: str
    suffixes: Counter[str] = field(default_factory=Counter)
    """Of the files in it that are not images."""
    holds_containers: bool = False

    def encloses(self, folder: str) -> bool:
        return not self.path or folder == self.path or folder.startswith(f"{self.path}/")


@dataclass
class PassedOver:
    """What a listing found besides the images that it yields."""

    linked_folders: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    """Folders that are outputs of other jobs."""
    not_matching: int = 0
    """Images that ``--include`` and ``--exclude`` leave out."""
    _suffixes: Counter[str] = field(default_factory=Counter)
    _beside: int = 0
    _folders: list[_Folder] = field(default_factory=list)
    """The folders that the listing is in: files there may still turn out beside containers."""

    def add(self, path: str, beside: bool = True) -> None:
        """Count a file, in the order of the listing.

        ``beside``: whether it is copied if there is a container in its folder.
        """
        name = path.rpartition("/")[2]
        _, dot, last = name.rpartition(".")
        suffix = f".{last.lower()}" if dot and last else ""
        counter = self._folder_of(path).suffixes if beside else self._suffixes
        _count(counter, suffix if len(suffix) <= SUFFIX_LENGTH else "")

    def add_container(self, path: str) -> None:
        """Note a container that is yielded, in the order of the listing."""
        self._folder_of(path).holds_containers = True

    def include(self, other: PassedOver) -> None:
        """Add what the next part of the same listing found, once that part has ended."""
        self.not_matching += other.not_matching
        for suffix, number in other.suffixes.items():
            _count(self._suffixes, suffix, number)

    def clear(self) -> None:
        """Forget everything, before another listing."""
        self.linked_folders.clear()
        self.outputs.clear()
        self.not_matching = self._beside = 0
        self._suffixes.clear()
        self._folders.clear()

    def warn_of_folders(self, root: Location) -> None:
        """Warn of folders below ``root`` that the listing has not entered."""
        if linked := self.linked_folders:
            logger.warning(
                "links to folders in %s are not followed (%d, such as %s); process their targets "
                "as separate inputs",
                root, len(linked), linked[0],
            )  # fmt: skip
        if outputs := self.outputs:
            logger.warning(
                "skipped in %s, as outputs of runs: %s, such as %s; if one of them is not an "
                "output, delete its _batchlight folder",
                root, counted(len(outputs), "folder"), outputs[0],
            )  # fmt: skip

    @property
    def suffixes(self) -> Counter[str]:
        """Files that are not images, by suffix, except those beside containers."""
        self._leave_all()
        return self._suffixes

    @property
    def counts(self) -> tuple[tuple[str, int], ...]:
        """The same, sorted."""
        return tuple(sorted(self.suffixes.items()))

    @property
    def beside(self) -> int:
        """Files beside containers, which are copied with them."""
        self._leave_all()
        return self._beside

    def _folder_of(self, path: str) -> _Folder:
        folder = folder_of(path)
        while self._folders and not self._folders[-1].encloses(folder):
            self._leave(self._folders.pop())
        if not self._folders or self._folders[-1].path != folder:
            self._folders.append(_Folder(folder))
        return self._folders[-1]

    def _leave_all(self) -> None:
        while self._folders:
            self._leave(self._folders.pop())

    def _leave(self, folder: _Folder) -> None:
        if folder.holds_containers:
            self._beside += folder.suffixes.total()
        else:
            for suffix, number in folder.suffixes.items():
                _count(self._suffixes, suffix, number)


def _count(counter: Counter[str], suffix: str, number: int = 1) -> None:
    """Of more than ``SUFFIXES_AT_MOST``, the first by name are kept, whatever comes first.

    All others are counted as the empty one. So it does not matter who counts what.
    """
    if suffix and suffix not in counter and len(counter) - ("" in counter) >= SUFFIXES_AT_MOST:
        last = max(counter)
        if suffix > last:
            suffix = ""
        else:
            counter[""] += counter.pop(last)
    counter[suffix] += number
