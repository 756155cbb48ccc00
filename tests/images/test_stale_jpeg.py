"""Pictures in a JPEG file that belong to the old pixels: made anew, or left out and named."""

from __future__ import annotations

import time

import pytest

from batchlight.images.segments import segment
from tests.images.test_carry_jpeg import brightened, mean, metadata, of
from tests.support import image_parts as parts
from tests.support.image_checks import refusal
from tests.support.image_files import opened, read

APP2, APP3, APP4, APP5 = 0xE2, 0xE3, 0xE4, 0xE5
PREVIEW = parts.small_jpeg()[:2] + parts.small_jpeg()[20:]
"""As cameras write it: tables come first."""


@pytest.mark.parametrize(
    ("marker", "prefix"), [(APP2, b""), (APP2, b"QVGA\0"), (APP2, b"BGTH"), (APP3, b"")]
)
def test_previews_of_cameras_are_made_anew(marker: int, prefix: bytes) -> None:
    others = [segment(APP2, b"own"), segment(APP4, b"own")]
    source = parts.jpeg(others[0], segment(marker, prefix + PREVIEW), *others)
    out = brightened(source)
    assert out.lost == ()
    [found] = of(out.data, marker, prefix + b"\xff\xd8\xff")
    new = found.payload[len(prefix) :]
    assert opened(new).size == parts.THUMBNAIL
    assert mean(new) == pytest.approx(parts.BRIGHT, abs=3)
    kept = [one for one in metadata(out.data) if one[1] != found.payload]
    assert kept == [one for one in metadata(source) if one[1] != prefix + PREVIEW]


@pytest.mark.parametrize("markers", [(APP2, APP2, APP2), (APP3, APP4, APP5)])
def test_a_preview_of_several_segments_becomes_one_of_one(markers: tuple[int, ...]) -> None:
    third = len(PREVIEW) // 3
    pieces = (PREVIEW[:third], PREVIEW[third : 2 * third], PREVIEW[2 * third :])
    own = [segment(m, piece) for m, piece in zip(markers, pieces, strict=True)]
    last = segment(markers[2], b"own")
    out = brightened(parts.jpeg(*own, last))
    assert out.lost == ()
    [(marker, new), behind] = metadata(out.data)
    assert (marker, behind) == (markers[0], (markers[2], b"own"))
    assert mean(new) == pytest.approx(parts.BRIGHT, abs=3)


def test_a_preview_that_cannot_be_made_is_left_out_and_named() -> None:
    at = PREVIEW.index(b"\xff\xc0") + 5
    huge = PREVIEW[:at] + b"\x7f\xff\x7f\xff" + PREVIEW[at + 4 :]
    out = brightened(parts.jpeg(segment(APP3, huge), segment(APP4, b"own")))
    assert out.lost == ("preview",)
    assert metadata(out.data) == [(APP4, b"own")]


def test_what_only_begins_like_a_preview_stays() -> None:
    own = [segment(APP3, b"\xff\xd8\xff\xdb"), segment(APP4, b"own"), segment(APP2, b"QVGA\0own")]
    cut = [segment(APP3, PREVIEW[:-9]), segment(APP4, b"own")]
    source = parts.jpeg(*own)
    assert metadata(brightened(source).data) == metadata(source)
    assert segment(APP4, b"own") in brightened(parts.jpeg(*cut)).data


URN = b"urn:iso:std:iso:ts:21496:-1\0"
HDRGM = segment(0xE1, parts.XMP_PREFIX + parts.xmp(b'hdrgm:Version="1.0"'))
ISO = segment(APP2, URN + bytes(4))
VIDEO = b"\0\0\0\x18ftypmp42" + bytes(90)


def gain_map(says: bytes) -> bytes:
    small = parts.small_jpeg()
    return small[:2] + says + small[2:]


@pytest.mark.parametrize("says", [HDRGM, ISO])
@pytest.mark.parametrize("before", [b"", VIDEO, parts.small_jpeg()])
def test_a_gain_map_that_nothing_lists_is_found_by_what_it_says(says: bytes, before: bytes) -> None:
    """As after a tool that has dropped the index and the list of the file's parts."""
    gain = gain_map(says)
    out = brightened(parts.jpeg(says, trailer=before + gain + VIDEO))
    assert out.lost == ("gain map",)
    assert out.data.endswith(b"\xff\xd9" + before + VIDEO)
    assert b"hdrgm:" not in out.data
    assert URN not in out.data


@pytest.mark.parametrize("says", [HDRGM, ISO])
def test_what_follows_a_picture_without_its_gain_map_stays(says: bytes) -> None:
    for trailer in (VIDEO, parts.small_jpeg(), VIDEO + b"\xff\xd8\xff" + b"\xff\xda\0\2" * 200):
        source = parts.jpeg(says, trailer=trailer)
        out = brightened(source)
        assert out.lost == ()
        assert out.data.endswith(b"\xff\xd9" + trailer)
        assert metadata(out.data) == metadata(source)


def test_another_file_behind_the_image_may_have_a_gain_map() -> None:
    trailer = gain_map(HDRGM)
    out = brightened(parts.jpeg(trailer=trailer))
    assert out.lost == ()
    assert out.data.endswith(trailer)


def test_ratio_images_of_jpeg_hdr_are_left_out() -> None:
    ratio = segment(0xEB, b"HDR_RI ver=11 ln0=-4 ln1=3 s2n=1\n~\0" + parts.small_jpeg())
    rest = segment(0xEB, b"HDR_RI ver=11\n~\0" + bytes(90))
    boxes = parts.jumbf(b"another use of boxes")
    out = brightened(parts.jpeg(boxes, ratio, rest, segment(0xEB, b"own")))
    assert out.lost == ("gain map",)
    assert metadata(out.data) == [(0xEB, boxes[4:]), (0xEB, b"own")]


def test_an_index_of_thousands_of_pictures_is_refused_in_no_time() -> None:
    small = parts.small_jpeg()
    further = small[:2] + segment(APP4, b"") * 5_000 + small[2:]
    size = len(parts.mpf([0], [0], [0])) + 16 * 3999
    start = len(parts.jpeg()) + size + 4 - (2 + 4 + 4)
    index = parts.mpf([start] * 4000, [len(further)] * 4000, [0] * 4000)
    began = time.monotonic()
    assert refusal(lambda: read(parts.jpeg(segment(APP2, index), trailer=further))) == "unsupported"
    assert time.monotonic() - began < 5
