"""What descriptions in a TIFF say about its pixels: pictures that follow, ranges, statistics."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.images.test_carry_jpeg import brightened
from tests.images.test_carry_tiff import tags
from tests.support import image_parts as parts
from tests.support.image_checks import refusal
from tests.support.image_files import read, tiff

GRAY = np.ascontiguousarray(parts.DARK[:, :, 0])
IMAGEJ = "ImageJ=1.54f\nimages=1\nhyperstack=true\nmin=3.0\nmax=60.0\nloop=false\n"


def written(array: np.ndarray[Any, Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("tile", [None, (4, 16, 16)])
def test_volumes_are_unsupported(tile: tuple[int, ...] | None) -> None:
    planes = np.stack([GRAY] * 4)
    volume = written(planes, volumetric=True, tile=tile, photometric="minisblack", metadata=None)
    assert 32997 in tags(volume)
    assert refusal(lambda: read(volume)) == "unsupported"


@pytest.mark.parametrize("text", [None, "ImageJ=1.54f\nimages=3\nslices=3\n", "shape=(3, {}, {})"])
def test_stacks_of_one_directory_are_unsupported(text: str | None) -> None:
    if text is None:
        stack = written(np.stack([GRAY] * 3), truncate=True, photometric="minisblack")
    else:
        stack = tiff(GRAY, description=text.format(*GRAY.shape)) + GRAY.tobytes() * 2
    assert refusal(lambda: read(stack)) == "unsupported"
    page = stack[: len(stack) - 2 * GRAY.size]  # taken out of the stack, with its description
    assert read(page).pixels.shape == GRAY.shape


def test_imagejs_range_is_stated_anew() -> None:
    out = brightened(tiff(GRAY, description=IMAGEJ))
    new = IMAGEJ.replace("=3.0", f"={parts.BRIGHT:.1f}").replace("=60.0", f"={parts.BRIGHT:.1f}")
    assert tags(out.data)[270][2].strip() == new.strip()
    assert out.lost == ()


def test_gdals_statistics_are_left_out() -> None:
    """Viewers stretch the contrast to them."""
    item = '<Item name="{}" sample="0">{}</Item>\n  '.format
    text = "<GDALMetadata>\n  {}</GDALMetadata>\n\0"
    kept = item("AREA_OR_POINT", "Area")
    stale = [item(f"STATISTICS_{name}", 66) for name in ("MAXIMUM", "MEAN", "VALID_PERCENT")]
    own = text.format(stale[0] + kept + "".join(stale[1:])).encode()
    out = brightened(parts.tiff_with([(42112, 2, len(own), own)]))
    assert tags(out.data)[42112][2].strip("\0\n") == text.format(kept).strip("\0\n")
    assert out.lost == ("statistics",)
