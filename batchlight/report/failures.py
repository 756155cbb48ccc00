"""The failed images for the report: by code, with pictures of some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batchlight.errors import ErrorCode
from batchlight.report.cards import FileLinks
from batchlight.report.digest import Digest, FailedImage
from batchlight.report.meanings import meaning, what_next
from batchlight.report.pictures import Picture, PictureMaker
from batchlight.storage.base import escape_controls

PICTURES = 4
"""Number of pictures per code."""
SHOWABLE = frozenset(
    {
        ErrorCode.CORRUPT,
        ErrorCode.UNSUPPORTED,
        ErrorCode.TOO_LARGE,
        ErrorCode.SUSPICIOUS_OUTPUT,
        ErrorCode.WRITE_FAILED,
    }
)
"""Codes of images that caused no harm when they were read."""


@dataclass(frozen=True)
class Failed:
    """One failed image, and why it failed."""

    name: str
    methods: str
    """Methods that failed; empty if the report covers only one."""
    error: str
    picture: Picture | None
    link: str


@dataclass(frozen=True)
class Failures:
    """The failed images of one code; only the first of them may be listed."""

    code: str
    count: int
    """(image, method) pairs."""
    pairs_listed: int
    images: Sequence[Failed]

    @property
    def meaning(self) -> str:
        """The code in words."""
        return meaning(self.code)

    @property
    def what_next(self) -> str:
        """When they are tried again."""
        return what_next(self.code)

    @property
    def paths(self) -> str:
        """What the copy button copies, one path per line."""
        return "\n".join(dict.fromkeys(escape_controls(image.name) for image in self.images))


def failures_of(found: Digest, maker: PictureMaker, links: FileLinks) -> Sequence[Failures]:
    """By code, the most frequent first."""
    counts = sorted(found.tally.failed_by_code, key=lambda item: (-item[1], item[0]))
    several = len(found.methods) > 1
    return [
        _of_code(code, count, found.failures.get(code, ()), several, maker, links)
        for code, count in counts
    ]


def pictures_of(found: Digest) -> int:
    """How many pictures ``failures_of`` will make."""
    return sum(
        min(PICTURES, len({image.input for image in images}))
        for code, images in found.failures.items()
        if code in SHOWABLE
    )


def _of_code(
    code: str,
    count: int,
    listed: Sequence[FailedImage],
    several: bool,
    maker: PictureMaker,
    links: FileLinks,
) -> Failures:
    same: dict[tuple[str, str], list[FailedImage]] = {}
    for image in listed:
        same.setdefault((image.input, image.error), []).append(image)
    pictures = _pictures(code, listed, maker)
    images = [
        Failed(
            name,
            ", ".join(image.method for image in some) if several else "",
            error,
            pictures.get(name),
            links.to_original(maker.place_of(some[0].row)) if name in pictures else "",
        )
        for (name, error), some in same.items()
    ]
    return Failures(code, count, len(listed), images)


def _pictures(
    code: str, listed: Sequence[FailedImage], maker: PictureMaker
) -> Mapping[str, Picture]:
    """Pictures of the first images."""
    pictures: dict[str, Picture] = {}
    for image in listed if code in SHOWABLE else ():
        if len(pictures) == PICTURES:
            break
        if image.input not in pictures:
            pictures[image.input] = maker.original(image.row, failed=True)
    return pictures
