"""What belongs to the process: its memory, its threads, the settings of libraries."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tests.support.helpers import dark_image
from tests.support.image_checks import SMALL
from tests.support.image_files import read, tiff
from tests.support.mutants import bmp_file

IN_LITTLE_MEMORY = """
import os, resource, sys
import cv2, numpy as np
from batchlight.images import codec
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
    by_pillow = bmp_file(struct.pack("<IHHHH", 12, 8, 6, 1, 24), bytes(range(144)))
    with ThreadPoolExecutor(8) as pool:
        decoded = list(pool.map(read, [SMALL["png"], by_pillow] * 200))
    assert len(decoded) == 400
    assert (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK) == (100, 2**20)
    assert list(warnings.filters) == filters


def test_pillow_warns_nobody() -> None:
    tags = [(65_000, 2, 8, "lantern", True)]  # the last one, since Pillow skips what follows
    tiles = tiff(dark_image(1), tile=(16, 16), extratags=tags)
    entry = struct.pack("<HHI", 65_000, 2, 8)
    assert tiles.count(entry) == 1
    damaged = tiles.replace(entry, struct.pack("<HHI", 65_000, 2, 2**30))  # more than there is
    np.testing.assert_array_equal(read(damaged).pixels, read(tiles).pixels)


UNCHANGED = """
import os, warnings
import cv2
import cv2
import numpy as np
from PIL import Image, ImageFile, PngImagePlugin

def settings():
    limits = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, ImageFile.LOAD_TRUNCATED_IMAGES
    opencv = cv2.utils.logging.getLogLevel(), cv2.getNumThreads(), cv2.useOptimized()
    return *limits, *opencv, list(warnings.filters), dict(os.environ)

before = settings()
import batchlight
from batchlight.errors import ImageError
from batchlight.images import codec
from batchlight.images.header import read_header

batchlight.enhance(np.zeros((8, 8, 3), np.uint8), denoise="guided")
for data in (cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes(), DAMAGED):
    try:
        decoded = codec.decode(data, read_header(data, 10_000))
        for format in ("jpeg", "png", "webp", "tiff", "avif"):
            codec.encode(decoded, decoded.pixels, format, 95)
    except ImageError as error:
        print(error.code, end="")
assert settings() == before, (settings(), before)
"""


def test_the_settings_of_the_process_stay_as_they_are() -> None:
    """Importing the package, enhancing, decoding and encoding leave them alone, and are quiet."""
    damaged = SMALL["bmp"][:2000]  # OpenCV would write to stderr about it
    result = subprocess.run(
        [sys.executable, "-c", UNCHANGED.replace("DAMAGED", repr(damaged))],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "corrupt", "")


def test_opencv_is_quiet_in_any_number_of_threads_and_then_as_before() -> None:
    logging = cv2.utils.logging
    level = logging.setLogLevel(logging.LOG_LEVEL_WARNING)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(read, [SMALL["png"]] * 400))
        assert logging.getLogLevel() == logging.LOG_LEVEL_WARNING
    finally:
        logging.setLogLevel(level)
