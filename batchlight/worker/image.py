"""One image of a batch on its way to its rows.

The only ``try`` around an image is ``Image.attempt``: a failure becomes that image's rows, and the
other images of the batch never notice.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from batchlight.classical.dehaze import Analysis
from batchlight.config import Method
from batchlight.errors import BatchlightError, ErrorCode, ImageError, brief
from batchlight.images.image import Decoded
from batchlight.output.inputs import Input
from batchlight.output.records import Tally
from batchlight.storage import EVERYONE

T = TypeVar("T")

_WHY_DIED = {
    ErrorCode.CRASH: "it killed its worker each time it was tried alone",
    ErrorCode.OUT_OF_MEMORY: "it needs more memory than a worker has",
    ErrorCode.TIMEOUT: "it did not end within --timeout when tried alone",
    ErrorCode.ERROR: "it may be one of those that do not end within --timeout; there was no time "
    "left to try it alone, which a later run does",
}


@dataclass(frozen=True)
class Losses:
    """What earlier tries of a batch have cost, and which images not to touch again."""

    deaths: Mapping[Input, int] = field(default_factory=dict)
    """How many workers have died of each image, alone or with others."""
    killers: Mapping[tuple[Input, Method | None], ErrorCode] = field(default_factory=dict)
    """What kills a worker each time: one method on an image, or, as None, reading it."""


@dataclass(frozen=True)
class Failure:
    """Why an image failed."""

    code: ErrorCode
    message: str
    deadly: bool = False
    """Whether it has killed workers, and so was not tried again."""


@dataclass(frozen=True)
class Unexpected:
    """An exception that is no image's fault."""

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
    """What one method made of one image."""

    failure: Failure | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    """Columns of its row that tell of the output."""


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
        """Memory that it takes."""
        own = self.analysis.own
        return self.decoded.nbytes + (0 if own is None else own.nbytes)


@dataclass
class Image:
    """What is known of an image so far: never its pixels, all that its rows will tell."""

    input: Input
    methods: tuple[Method, ...]
    """Those that are wanted; with none, it is only analysed."""
    deaths: int = 0
    readers: int = EVERYONE
    """Who may read it, as permission bits of a file that no more people may read."""
    read_bytes: int = 0
    """Of its file; twice of one that was read twice."""
    is_other: bool = False
    """It is no image: it is only copied."""
    skipped: bool = False
    """It is not dark: no method is to enhance it."""
    failure: Failure | None = None
    """Of reading it: no method can do anything with it."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Columns of its rows that tell of the input."""
    results: dict[Method, MethodResult] = field(default_factory=dict)
    unexpected: list[Unexpected] = field(default_factory=list)

    @classmethod
    def of(cls, item: Input, methods: tuple[Method, ...], losses: Losses) -> Image:
        """An image of a batch, with what it has failed of before."""
        image = cls(item, methods, losses.deaths.get(item, 0))
        image.failure = _death_of(item, None, losses)
        for method in methods:
            image.results[method] = MethodResult(_death_of(item, method, losses))
        return image

    def status(self, failure: Failure | None) -> str:
        """The column of that name."""
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
        """Whether there is something left to do for a method."""
        return (
            self.failure is None and method in self.results and self.results[method].failure is None
        )

    @property
    def so_far(self) -> Iterator[str]:
        """Of each method that is done with it: its status, or the code of its failure."""
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
        suffering = self if method is None else self.results[method]
        if self.failure is not None or suffering.failure is not None:
            return None
        try:
            return step()
        except (BatchlightError, MemoryError):
            raise
        except ImageError as error:
            suffering.failure = Failure(error.code, error.message)
        except Exception as error:
            unexpected = Unexpected.of(error)
            self.unexpected.append(unexpected)
            suffering.failure = Failure(ErrorCode.ERROR, unexpected.message)
        return None


class BrokenBatchError(BatchlightError):
    """Every image of a batch failed with an exception that is no image's fault."""

    def __init__(self, batch: int, unexpected: tuple[Unexpected, ...]) -> None:
        super().__init__(batch, unexpected)
        self.batch = batch
        self.unexpected = unexpected

    def __str__(self) -> str:
        return (
            f"every image of batch {self.batch} failed with {self.unexpected[0].message}, which is "
            "no fault of the images; check disk, memory and installation of the workers and run "
            "the same command again, or report the traceback that was logged"
        )


def tally_so_far(images: Iterable[Image]) -> Tally:
    """Of the (image, method) pairs that are done; a container counts once it is committed."""
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
    code = losses.killers.get((item, method))
    return None if code is None else Failure(code, _WHY_DIED[code], deadly=True)


Watch = Callable[[Sequence[Image], Tally], object]
"""Hears which images are being worked on, and what of their batch was done before them."""


def unwatched(images: Sequence[Image], before: Tally) -> None:
    """For a batch of which nobody asks how far it is."""
