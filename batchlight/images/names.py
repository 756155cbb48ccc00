"""Names of image files: which count as inputs, and how outputs are named."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Literal

from batchlight.config import Format, Method

HAS_HEIF = find_spec("pillow_heif") is not None
"""Whether the extra ``heif`` is installed."""

HEIF_SUFFIXES = (".heic", ".heif")

SUFFIXES: dict[str, Format] = {
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".jpe": "jpeg",
    ".jfif": "jpeg",
    ".png": "png",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".bmp": "bmp",
    ".dib": "bmp",
    ".avif": "avif",
    **(dict.fromkeys(HEIF_SUFFIXES, "heif") if HAS_HEIF else {}),
}
"""Names that count as images; the content decides on the actual format."""


CANONICAL_SUFFIX: dict[Format, str] = {
    "jpeg": ".jpg",
    "png": ".png",
    "webp": ".webp",
    "tiff": ".tiff",
    "avif": ".avif",
}
"""Of the formats that images are converted to."""


def output_path(method: Method, path: str, format: Format | Literal["same"]) -> str:
    """Path of a method's result for an input, below the output."""
    return f"{method}/{output_name(path, format)}"


def passed_over_in_words(counts: Iterable[tuple[str, int]]) -> str:
    """For example ``17 .heic (which batchlight[heif] reads), 3 .txt``, the most frequent first."""
    ordered = sorted(counts, key=lambda item: (-item[1], item[0]))
    return ", ".join(
        f"{number:,} {suffix or 'without a suffix'}"
        + (" (which batchlight[heif] reads)" if suffix in HEIF_SUFFIXES and not HAS_HEIF else "")
        for suffix, number in ordered
    )


def is_image_name(path: str) -> bool:
    """Whether a file of this name counts as an image."""
    return path[path.rfind(".") :].lower() in SUFFIXES


def output_name(path: str, format: Format | Literal["same"]) -> str:
    """The relative path with its suffix changed, if necessary, to one of the format."""
    stem, dot, suffix = path.rpartition(".")
    if format == "same" or not is_image_name(path) or SUFFIXES.get(dot + suffix.lower()) == format:
        return path
    return stem + CANONICAL_SUFFIX[format]
