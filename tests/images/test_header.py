"""What is refused: damaged files, what cannot be kept, and what claims to be too large."""

from __future__ import annotations

import resource
import struct
from contextlib import suppress

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchlight.config import Format
from batchlight.errors import ImageError
from batchlight.images import codec
from batchlight.images.header import read_header
from tests.support.helpers import dark_image
from tests.support.image_checks import SMALL, refusal
from tests.support.image_files import (
    FORMATS,
    MAX_PIXELS,
    UNSUPPORTED,
    png,
    png_chunk,
    png_start,
    read,
    samples,
    tiff,
)
from tests.support.mutants import with_tag


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("cut", ["10 bytes", "half", "all but the last byte"])
def test_truncated_files_are_corrupt(format: Format, cut: str) -> None:
    data = SMALL[format]
    length = {"10 bytes": 10, "half": len(data) // 2}.get(cut, len(data) - 1)
    assert refusal(lambda: read(data[:length])) == "corrupt"


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_cannot_be_kept_is_unsupported(name: str) -> None:
    assert refusal(lambda: read(UNSUPPORTED[name])) == "unsupported"


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"", "empty"), (b"no image, only text\n" * 20, "corrupt"), (bytes(4096), "corrupt")],
)
def test_what_is_no_image(data: bytes, code: str) -> None:
    assert refusal(lambda: read(data)) == code


def test_huge_images_are_refused_by_their_header() -> None:
    data = png_start(40_000, 40_000) + png(samples(3))[33:]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert refusal(lambda: read_header(data, MAX_PIXELS)) == "too_large"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024
    assert refusal(lambda: read_header(SMALL["png"], 48 * 32 - 1)) == "too_large"
    assert read_header(SMALL["png"], 48 * 32).width == 48


END_OF_4_GB = SMALL["png"].replace(b"\0\0\0\0IEND", b"\xff\xff\xff\xffIEND")

CHUNK_BEHIND_THE_END = (
    png(samples(3))[:33] + png_chunk(b"IEND") + b"\x7f\xff\xff\xfftRNS" + bytes(9)
)

CHUNK_OF_4_GB = SMALL["png"][:33] + b"\xff" + SMALL["png"][34:]

TILE_OF_768_MB = with_tag(
    with_tag(tiff(dark_image(1), tile=(16, 16), compression="zlib"), 322, 2**14), 323, 2**14
)

LARGE_INSIDE = bytes(cv2.imencode(".avif", np.zeros((4000, 5000, 3), np.uint8))[1]).replace(
    struct.pack(">4sIII", b"ispe", 0, 5000, 4000), struct.pack(">4sIII", b"ispe", 0, 50, 40)
)


@pytest.mark.parametrize(
    ("damaged", "code"),
    [
        (CHUNK_OF_4_GB, "corrupt"),
        (END_OF_4_GB, "corrupt"),
        (CHUNK_BEHIND_THE_END, "corrupt"),
        (TILE_OF_768_MB, "too_large"),
        (LARGE_INSIDE, "too_large"),
    ],
)
def test_what_claims_much_reserves_no_memory(damaged: bytes, code: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert refusal(lambda: codec.decode(damaged, read_header(damaged, 4_000_000))) == code
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=250)
@given(data=st.data())
def test_damage_never_gives_another_exception(format: Format, data: st.DataObject) -> None:
    damaged = bytearray(SMALL[format])
    place = st.integers(0, len(damaged) - 1)
    for at in data.draw(st.lists(place, max_size=6)):
        damaged[at] ^= data.draw(st.integers(1, 255))
    try_to_read(bytes(damaged[: data.draw(st.none() | place)]))


@settings(max_examples=500)
@given(st.binary(), st.sampled_from([b"", *(data[:12] for data in SMALL.values())]))
def test_noise_never_gives_another_exception(noise: bytes, start: bytes) -> None:
    try_to_read(start + noise)


def try_to_read(data: bytes) -> None:
    with suppress(ImageError):
        # A damaged header may ask for a lot of memory, so the limit is low.
        decoded = codec.decode(data, read_header(data, 1_000_000))
        assert decoded.pixels.dtype in (np.uint8, np.uint16)
