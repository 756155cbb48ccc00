"""Codecs: pixels and metadata through real files of every format; nothing is mocked."""

from __future__ import annotations

import io
import os
import resource
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, JpegImagePlugin, PngImagePlugin

from batchlight.config import Format
from batchlight.errors import ImageError
from batchlight.images import av1, codec, names
from batchlight.images.codec import Decoded
from batchlight.images.header import read_header
from batchlight.images.pixels import Pixels
from tests.support.helpers import dark_image
from tests.support.image_files import (
    EXTRA_SAMPLES,
    FORMATS,
    MAX_PIXELS,
    UNSUPPORTED,
    again,
    opened,
    patches,
    png,
    png_chunk,
    png_start,
    png_with_late_metadata,
    read,
    samples,
    saved,
    tiff,
    with_everything,
)
from tests.support.mutants import bmp_file, bmp_header, with_tag


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(ImageError) as caught:
        action()
    assert caught.value.message
    return caught.value.code.value


def assert_holds(decoded: Decoded, array: Pixels) -> None:
    """Pixels, alpha, depth and number of channels are those of the array."""
    planes = array[:, :, None] if array.ndim == 2 else array
    colours = planes.shape[2] - (planes.shape[2] in (2, 4))
    expected = planes[:, :, 0] if colours == 1 else planes[:, :, 2::-1]
    np.testing.assert_array_equal(decoded.pixels, expected)
    assert decoded.pixels.dtype == array.dtype
    assert (decoded.channels, decoded.bit_depth) == (planes.shape[2], array.itemsize * 8)
    assert (decoded.alpha is not None) == (planes.shape[2] in (2, 4))
    if decoded.alpha is not None:
        np.testing.assert_array_equal(decoded.alpha, planes[:, :, -1])


# Pixels


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_keeps_every_sample(channels: int, dtype: type) -> None:
    array = samples(channels, dtype)
    out = again(png(array))
    assert_holds(read(png(array)), array)
    assert_holds(read(out), array)
    assert out[24:26] == png(array)[24:26]  # depth and colour type, as any reader sees them
    if dtype == np.uint8:
        assert opened(out).mode == {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
        np.testing.assert_array_equal(np.asarray(opened(out)), array)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("channels", "alpha"), [(1, None), (3, None), (4, "unassalpha")])
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}, {"byteorder": ">"}, {"bigtiff": True}])
def test_tiff_keeps_every_sample(
    channels: int, alpha: str | None, dtype: type, layout: dict[str, Any]
) -> None:
    array = samples(channels, dtype)
    out = again(tiff(array, alpha, **layout))
    assert_holds(read(out), array)
    with tifffile.TiffFile(io.BytesIO(out)) as file:  # another reader, and the kind of alpha
        [page] = file.pages
        assert isinstance(page, tifffile.TiffPage)
        tag = page.tags.get("ExtraSamples")
        assert (tag.value[0].name.lower() if tag else None) == alpha
        assert page.shape == array.shape
        assert page.dtype == array.dtype


def test_a_tiff_that_does_not_say_what_its_alpha_is_does_not_say_so_after() -> None:
    source = cv2.imencode(".tiff", samples(4))[1].tobytes()
    assert read(source).channels == read(again(source)).channels == 4
    assert EXTRA_SAMPLES not in opened(again(source)).getexif()
    assert opened(again(png(samples(4)), "tiff")).getexif()[EXTRA_SAMPLES] == 2  # unassociated


@pytest.mark.parametrize(
    ("array", "target"),
    [
        *((samples(channels), "tiff") for channels in (1, 3, 4)),
        *((samples(channels), "bmp") for channels in (1, 3, 4)),
        *((samples(channels, np.uint16), "tiff") for channels in (1, 3, 4)),
    ],
)
def test_lossless_formats_hand_pixels_to_each_other(array: Pixels, target: Format) -> None:
    there = again(png(array), target)
    assert_holds(read(there), array)
    assert_holds(read(again(there, "png")), array)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_bmp_shows_the_same(mode: str) -> None:
    source = saved(Image.fromarray(samples(3)).convert(mode), "BMP")
    before, after = opened(source), opened(again(source))
    assert after.format == "BMP"
    np.testing.assert_array_equal(
        np.asarray(before.convert("RGBA")), np.asarray(after.convert("RGBA"))
    )


SHADES = bytes(range(8 * 6 * 3))
BMPS = {
    "os2": bmp_file(struct.pack("<IHHHH", 12, 8, 6, 1, 24), SHADES),
    "555": bmp_file(bmp_header(8, 6, 16, 0), SHADES),
    "565": bmp_file(bmp_header(8, 6, 16, 3), SHADES, 0xF800, 0x07E0, 0x001F),
    "top-down": bmp_file(bmp_header(8, -6, 24, 0), SHADES),
    "rle": bmp_file(bmp_header(8, 6, 8, 1), b"\x08\x51\0\0" * 6 + b"\0\1", *range(0, 2**16, 256)),
    "version-5": bmp_file(bmp_header(8, 6, 32, 3, 124), bytes(range(192))),
    **{
        f"os2-{bits}-bits": bmp_file(
            struct.pack("<IHHHH", 12, 8, 6, 1, bits) + SHADES[: 3 * 2**bits], SHADES
        )
        for bits in (1, 4)
    },
}


@pytest.mark.parametrize("name", BMPS)
def test_bmp_of_every_kind_of_header(name: str) -> None:
    expected = np.asarray(opened(BMPS[name]).convert("RGBA"))
    before, after = read(BMPS[name]), read(again(BMPS[name]))
    np.testing.assert_array_equal(codec.in_colour(before.pixels), expected[:, :, 2::-1])
    np.testing.assert_array_equal(before.pixels, after.pixels)


def test_bmp_of_a_kind_that_is_not_read() -> None:
    swapped = bmp_file(bmp_header(8, 6, 16, 3), SHADES, 0x001F, 0x07E0, 0xF800)
    assert refusal(lambda: read(swapped)) == "unsupported"


@pytest.mark.parametrize("channels", [3, 4])
def test_lossless_webp_stays_lossless(channels: int) -> None:
    array = samples(channels)
    if channels == 4:
        array[:, :4, 3] = 0  # the colours under these pixels are data, too
    out = again(saved(Image.fromarray(array), "WEBP", lossless=True, exact=True))
    assert_holds(read(out), array)
    assert read(out).header.lossless
    assert b"VP8L" in out


@pytest.mark.parametrize("channels", [3, 4])
def test_lossy_webp_stays_lossy(channels: int) -> None:
    source = saved(Image.fromarray(samples(channels)), "WEBP", quality=80)
    after = read(again(source))
    assert not read(source).header.lossless
    assert not after.header.lossless
    if channels == 4:
        np.testing.assert_array_equal(after.alpha, samples(4)[:, :, 3])


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_jpeg_keeps_its_sampling(subsampling: str) -> None:
    source = saved(patches(), "JPEG", subsampling=subsampling)
    assert _sampling(again(source)) == _sampling(source)


def _sampling(data: bytes) -> list[tuple[int, int]]:
    image = opened(data)
    assert isinstance(image, JpegImagePlugin.JpegImageFile)
    return [layer[1:3] for layer in image.layer]


@pytest.mark.parametrize("format", FORMATS)
def test_gray_stays_gray(format: Format) -> None:
    source = saved(patches().convert("L"), format.upper())
    out = again(source)
    if opened(source).mode != "L":  # WebP has no gray, nor has Pillow's AVIF before 12.3
        assert opened(out).mode == "RGB"
        return
    assert read(source).channels == read(out).channels == 1
    assert opened(out).mode == "L"


def test_depth_is_that_of_the_type_never_of_the_values() -> None:
    dark = samples(3, np.uint16) % 256
    assert_holds(read(again(png(dark))), dark)
    assert_holds(read(again(tiff(dark))), dark)


@pytest.mark.parametrize("format", FORMATS)
def test_same_pixels_same_bytes(format: Format) -> None:
    source = saved(patches(), format.upper())
    assert again(source) == again(source)


# Refusals

SMALL = {format: saved(patches(), format.upper()) for format in FORMATS}
SMALL["png"] = png_with_late_metadata()
SMALL["jpeg"] = with_everything("jpeg")


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


@pytest.mark.parametrize(
    ("array", "target"),
    [
        *((samples(channels), "jpeg") for channels in (2, 4)),
        *((samples(1, np.uint16), target) for target in ("jpeg", "webp", "avif", "bmp")),
        *((samples(4, np.uint16), target) for target in ("jpeg", "webp", "avif", "bmp")),
        *((samples(2), target) for target in ("tiff", "bmp")),
    ],
)
def test_what_the_target_cannot_hold_is_unsupported(array: Pixels, target: Format) -> None:
    assert refusal(lambda: again(png(array), target)) == "unsupported"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_premultiplied_alpha_is_unsupported(dtype: type) -> None:
    assert refusal(lambda: read(tiff(samples(4, dtype), "assocalpha"))) == "unsupported"


def test_sizes_beyond_a_format_are_unsupported() -> None:
    assert refusal(lambda: again(png(samples(1, width=70_000)), "jpeg")) == "unsupported"
    assert refusal(lambda: again(png(samples(1, width=70_000)), "webp")) == "unsupported"


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


@pytest.mark.parametrize("options", [{}, {"subsampling": "4:4:4"}, {"speed": 10}, {"alpha": True}])
@pytest.mark.parametrize("size", [(1, 1), (64, 48), (333, 7), (2000, 1000)])
def test_the_size_of_pictures_inside_avif(size: tuple[int, int], options: dict[str, Any]) -> None:
    options = dict(options)
    image = Image.new("RGBA" if options.pop("alpha", False) else "RGB", size, (9, 20, 30))
    found = av1.picture_sizes(saved(image, "AVIF", **options))
    assert set(found) == {size}
    by_opencv = cv2.imencode(".avif", np.zeros((size[1], size[0], 3), np.uint8))[1]
    assert set(av1.picture_sizes(bytes(by_opencv))) == {size}


def test_pixels_of_another_size_than_the_header_says() -> None:
    header = read_header(SMALL["jpeg"], MAX_PIXELS)
    wider = replace(header, width=header.width + 1)
    assert refusal(lambda: codec.decode(SMALL["jpeg"], wider)) == "corrupt"


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_damage_never_gives_another_exception(format: Format, data: st.DataObject) -> None:
    damaged = bytearray(SMALL[format])
    place = st.integers(0, len(damaged) - 1)
    for at in data.draw(st.lists(place, max_size=6)):
        damaged[at] ^= data.draw(st.integers(1, 255))
    try_to_read(bytes(damaged[: data.draw(st.none() | place)]))


@settings(max_examples=500, deadline=None)
@given(st.binary(), st.sampled_from([b"", *(data[:12] for data in SMALL.values())]))
def test_noise_never_gives_another_exception(noise: bytes, start: bytes) -> None:
    try_to_read(start + noise)


def try_to_read(data: bytes) -> None:
    with suppress(ImageError):
        # A damaged header may ask for a lot of memory, so the limit is low.
        decoded = codec.decode(data, read_header(data, 1_000_000))
        assert decoded.pixels.dtype in (np.uint8, np.uint16)


# What belongs to the process

IN_LITTLE_MEMORY = """
import os, resource, sys
import cv2, numpy as np
from batchlight.images import av1
from batchlight.images import codec, names
from batchlight.images.header import read_header
from tests.support.image_files import Image, png, saved, tiff
from tests.support.helpers import dark_image

cv2.setNumThreads(1)
array = cv2.resize(dark_image(1), (2000, 1500))
image = Image.fromarray(array)
files = {
    "jpeg": saved(image, "JPEG"),
    "progressive": saved(image, "JPEG", progressive=True),
    "png": png(array),
    "webp": saved(image, "WEBP", lossless=True, method=0),
    "tiff": tiff(array),
    "tiles": tiff(array, tile=(256, 256)),
    "bmp": saved(image, "BMP"),
    "avif": saved(image, "AVIF", speed=10),
}

def attempt(data, decoded):
    try:
        if decoded:
            codec.encode(decoded, decoded.pixels, decoded.header.format, 95)
        else:
            codec.decode(data, read_header(data, 10**7))
        return "done"
    except BaseException as error:
        return repr(error) if not isinstance(error, MemoryError) else "MemoryError"

for name, data in files.items():
    decoded = codec.decode(data, read_header(data, 10**7))
    encoded = [decoded] if name in ("png", "webp", "bmp") else []  # some encoders just die
    for subject in [None, *encoded]:
        for megabytes in (0, 4, 12, 22):
            sys.stdout.flush()
            if os.fork() == 0:
                [used] = [line for line in open("/proc/self/status") if line.startswith("VmSize")]
                limit = int(used.split()[1]) * 1024 + megabytes * 2**20
                resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
                print(name, "encode" if subject else "decode", attempt(data, subject))
                sys.stdout.flush()
                os._exit(0)
            os.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="others do not limit the address space")
def test_too_little_memory_is_no_fault_of_the_image() -> None:
    # Memory that was freed goes back at once, so that the limit is felt.
    environment = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    result = subprocess.run(
        [sys.executable, "-c", IN_LITTLE_MEMORY],
        env=os.environ | environment | {"MALLOC_ARENA_MAX": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    said = [line.split(" ", 2) for line in result.stdout.splitlines()]
    assert {outcome for _, _, outcome in said} == {"done", "MemoryError"}, result.stdout
    too_little = {(name, what) for name, what, outcome in said if outcome == "MemoryError"}
    assert too_little >= {("webp", "encode"), ("bmp", "encode")}
    assert too_little >= {(name, "decode") for name, _, _ in said}


def test_headers_can_be_read_by_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow refuses twice of that
    filters = list(warnings.filters)
    tiles = tiff(dark_image(1), tile=(16, 16))
    with ThreadPoolExecutor(8) as pool:
        decoded = list(pool.map(read, [SMALL["png"], tiles] * 200))
    assert decoded[1].header.pillow_pixels
    assert (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK) == (100, 2**20)
    assert list(warnings.filters) == filters


def test_pillow_warns_nobody() -> None:
    tags = [(65_000, 2, 8, "lantern", True)]  # the last one, since Pillow skips what follows
    tiles = tiff(dark_image(1), tile=(16, 16), extratags=tags)
    entry = struct.pack("<HHI", 65_000, 2, 8)
    assert tiles.count(entry) == 1
    damaged = tiles.replace(entry, struct.pack("<HHI", 65_000, 2, 2**30))  # more than there is
    assert read(damaged).header.pillow_pixels
    np.testing.assert_array_equal(read(damaged).pixels, read(tiles).pixels)


# Names


@pytest.mark.parametrize(
    ("path", "format", "expected"),
    [
        ("a/b.JPG", "same", "a/b.JPG"),
        ("a/b.JPG", "jpeg", "a/b.JPG"),
        ("a/b.jpeg", "jpeg", "a/b.jpeg"),
        ("a/b.tif", "tiff", "a/b.tif"),
        ("a/b.png", "jpeg", "a/b.jpg"),
        ("a.b/c.d.tif", "png", "a.b/c.d.png"),
        ("a b#%é.bmp", "webp", "a b#%é.webp"),
    ],
)
def test_output_names(path: str, format: Any, expected: str) -> None:
    assert names.output_name(path, format) == expected


@pytest.mark.parametrize("name", ["a.jpg", "x/A.JPEG", "a.b.Png", "é.webp", "a.tif", "a.avif"])
def test_image_names(name: str) -> None:
    assert names.is_image_name(name)


@pytest.mark.parametrize("name", ["jpg", "x.jpg/a", "x.jpg/png", "a.gif", "a.jpg.txt", "a.", ""])
def test_other_names(name: str) -> None:
    assert not names.is_image_name(name)
