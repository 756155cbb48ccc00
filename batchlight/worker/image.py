"""One image of a batch, on its way to becoming rows.

The only ``try`` around an image is ``Image.attempt``: a failure becomes that image's rows, and the
other images of the batch are not affected.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from batchlight.config import Method
from batchlight.errors import BatchlightError, ErrorCode, ImageError, brief
from batchlight.output.inputs import Input
from batchlight.output.records import Tally
from batchlight.storage import EVERYONE
from batchlight.storage.base import (
    NO_SUCH_FILE,
    ChangedError,
    FileRefusedError,
    FileTooLargeError,
)

if TYPE_CHECKING:  # the driver needs no codec
    from batchlight.classical.dehaze import Analysis
    from batchlight.images.image import Decoded

T = TypeVar("T")

_WHY_DIED = {
    ErrorCode.CRASH: "it killed its worker each time it was tried alone",
    ErrorCode.OUT_OF_MEMORY: "it needs more memory than a worker has",
    ErrorCode.TIMEOUT: "it did not end within --timeout when tried alone",
    ErrorCode.ERROR: "it may be one of the images that exceed --timeout; there was no time left "
    "to try it alone, so the next run will",
}


@dataclass(frozen=True)
class Losses:
    """What earlier tries of a batch have cost, and which images must not be touched again."""

    deaths: Mapping[Input, int] = field(default_factory=dict)
    """How many workers have died on each image, alone or with others."""
    fatal_images: Mapping[tuple[Input, Method | None], ErrorCode] = field(default_factory=dict)
    """What kills a worker every time: one method on an image or, as None, reading it."""


@dataclass(frozen=True)
class Failure:
    """Why an image failed."""

    code: ErrorCode
    message: str
    deadly: bool = False
    """Whether it has killed workers, and was therefore not tried again."""


@dataclass(frozen=True)
class Unexpected:
    """An exception that is not the fault of an image."""

    kind: str
    """Its type, and the line of code that raised it."""
    message: str
    traceback: str

    @classmethod
    def of(cls, error: Exception) -> Unexpected:
        """Describe ``error``, which has just been caught."""
        frame = traceback.extract_tb(error.__traceback__)[-1]
        name = type(error).__name__
        return cls(
            f"{name} at {frame.filename}:{frame.lineno}",
            f"{name}: {brief(error)}",
            "".join(traceback.format_exception(error)),
        )


@dataclass
class MethodResult:
    """The result of one method for one image."""

    failure: Failure | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    """Columns of its row that describe the output."""


@dataclass(frozen=True)
class Analysed:
    """An image in memory, decoded and with its light estimated."""

    decoded: Decoded
    analysis: Analysis

    @property
    def light(self) -> float:
        """Its own estimate of the atmospheric light."""
        return self.analysis.atmospheric_light

    @property
    def nbytes(self) -> int:
        """Memory used, in bytes."""
        found = self.analysis.own, self.analysis.visible
        return self.decoded.nbytes + sum(array.nbytes for array in found if array is not None)


@dataclass
class Image:
    """What is known of an image so far: all that its rows will contain, but never its pixels."""

    input: Input
    methods: tuple[Method, ...]
    """Methods to apply; if empty, the image is only analysed."""
    deaths: int = 0
    permissions: int = EVERYONE
    """Who may read it, as permission bits for a file that must not have more readers."""
    read_bytes: int = 0
    """Bytes read of its file; counted twice if it was read twice."""
    is_other: bool = False
    """Not an image, and so only copied."""
    skipped: bool = False
    """Not dark, and so not to be enhanced by any method."""
    failure: Failure | None = None
    """Failure of reading it, which applies to all methods."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Columns of its rows that describe the input."""
    results: dict[Method, MethodResult] = field(default_factory=dict)
    unexpected: list[Unexpected] = field(default_factory=list)

    @classmethod
    def of(cls, item: Input, methods: tuple[Method, ...], losses: Losses) -> Image:
        """An image of a batch, with its earlier failures."""
        image = cls(item, methods, losses.deaths.get(item, 0))
        image.failure = _death_of(item, None, losses)
        for method in methods:
            image.results[method] = MethodResult(_death_of(item, method, losses))
        return image

    def status(self, failure: Failure | None) -> str:
        """The value of the ``status`` column."""
        if failure is not None:
            return "failed"
        if self.is_other:
            return "copied"
        return "skipped" if self.skipped else "ok"

    @property
    def light(self) -> float | None:
        """Its own estimate of the atmospheric light; None until it is analysed."""
        light: float | None = self.facts.get("atmospheric_light")
        return light

    def wants(self, method: Method) -> bool:
        """Whether a method still has something to do."""
        return (
            self.failure is None and method in self.results and self.results[method].failure is None
        )

    @property
    def so_far(self) -> Iterator[str]:
        """For each method that is done with it, its status or the code of its failure."""
        for result in self.results.values():
            failure = self.failure or result.failure
            if failure is not None:
                yield failure.code.value
            elif "finished_at" in result.columns:
                yield self.status(None)

    def attempt(self, step: Callable[[], T], method: Method | None = None) -> T | None:
        """Run one step; record its failure on the image, or on one method of it.

        Raises what affects the whole batch: ``BatchlightError`` and ``MemoryError``.
        """
        target = self if method is None else self.results[method]
        if self.failure is not None or target.failure is not None:
            return None
        try:
            return step()
        except (BatchlightError, MemoryError):
            raise
        except ImageError as error:
            target.failure = Failure(error.code, error.message)
        except Exception as error:
            unexpected = Unexpected.of(error)
            self.unexpected.append(unexpected)
            target.failure = Failure(ErrorCode.ERROR, unexpected.message)
        return None


@contextmanager
def of_one_input() -> Iterator[None]:
    """Turn errors in reading a file into ``ImageError``."""
    try:
        yield
    except FileNotFoundError as error:
        raise ImageError(ErrorCode.MISSING, NO_SUCH_FILE) from error
    except PermissionError as error:
        raise ImageError(ErrorCode.UNREADABLE, "no permission to read it") from error
    except (FileRefusedError, ChangedError) as error:
        raise ImageError(ErrorCode.UNREADABLE, str(error)) from error


@contextmanager
def of_one_output() -> Iterator[None]:
    """Turn the refusal of an output's name or size into ``ImageError``."""
    try:
        with of_one_size():
            yield
    except FileRefusedError as error:
        raise ImageError(ErrorCode.WRITE_FAILED, str(error)) from error


@contextmanager
def of_one_size() -> Iterator[None]:
    """Turn the refusal of an output's size into ``ImageError``, where inputs are read as well."""
    try:
        yield
    except FileTooLargeError as error:
        raise ImageError(ErrorCode.WRITE_FAILED, error.message) from error


class BrokenBatchError(BatchlightError):
    """Every image of a batch failed with an exception that is not the fault of an image."""

    def __init__(self, batch: int, unexpected: tuple[Unexpected, ...]) -> None:
        super().__init__(batch, unexpected)
        self.batch = batch
        self.unexpected = unexpected

    def __str__(self) -> str:
        return (
            f"every image of batch {self.batch} failed with {self.unexpected[0].message}, which is "
            "not the images' fault; check the workers' disk, memory and installation and run the "
            "same command again, or report the traceback that was logged"
        )


def tally_so_far(images: Iterable[Image]) -> Tally:
    """Tally of the (image, method) pairs that are done; a container counts once it is committed."""
    ended: Counter[str] = Counter()
    inside = 0
    for image in images:
        before = ended.total()
        ended.update(image.so_far)
        inside += (ended.total() - before) * (image.input.inside is not None)
    ok, skipped, copied = (ended.pop(status, 0) for status in ("ok", "skipped", "copied"))
    failed = tuple(sorted(ended.items()))
    return Tally(ok=ok, skipped=skipped, copied=copied, failed_by_code=failed, in_containers=inside)


def _death_of(item: Input, method: Method | None, losses: Losses) -> Failure | None:
    code = losses.fatal_images.get((item, method))
    return None if code is None else Failure(code, _WHY_DIED[code], deadly=True)


Watch = Callable[[Sequence[Image], Tally], object]
"""Receives the images being worked on, and the tally of what was done of their batch before."""


def unwatched(images: Sequence[Image], before: Tally) -> None:
    """For a batch whose progress nobody asks for."""
