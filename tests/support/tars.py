"""Tars as real writers make them, and a look at the results."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2

from tests.support.helpers import bright_image, dark_image

BRIGHT_EVERY = 5
"""One image in this many is not dark."""


def jpeg(seed: int, bright: bool = False) -> bytes:
    image = bright_image(seed) if bright else dark_image(seed)
    return cv2.imencode(".jpg", image)[1].tobytes()


def samples(count: int, first: int = 0) -> dict[str, bytes]:
    """Members as img2dataset makes them: an image, its caption, its metadata, its class."""
    found: dict[str, bytes] = {}
    for number in range(first, first + count):
        bright = number % BRIGHT_EVERY == BRIGHT_EVERY - 1
        found |= {
            f"{number:09d}.jpg": jpeg(number, bright),
            f"{number:09d}.json": json.dumps({"key": number}).encode(),
            f"{number:09d}.txt": b"a caption",
            f"{number:09d}.cls": str(number % 3).encode(),
        }
    return found


def write_tar(
    path: Path, members: Mapping[str, bytes], format: int = tarfile.PAX_FORMAT, mode: str = "w"
) -> None:
    """Written by Python, with all that its headers can hold: owners, modes, fractional times."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, format=format) as tar:  # type: ignore[call-overload]
        for number, (name, data) in enumerate(members.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(data), 1_700_000_000.25 + number, 0o640
            info.uid, info.gid, info.uname, info.gname = 1001, 100, "somebody", "users"
            tar.addfile(info, io.BytesIO(data))


def gnu_tar(path: Path, folder: Path, *options: str, names: Sequence[str] = (".",)) -> None:
    """Written by GNU tar."""
    command = ["tar", "-c", "-f", str(path), *options, "-C", str(folder), *names]
    subprocess.run(command, check=True)


def headers_and_data(path: Path) -> list[tuple[dict[str, Any], bytes | None]]:
    """All that Python's reader reports about the members of a tar, in order, and their data."""
    found = []
    with tarfile.open(path) as tar:
        for info in tar:
            told: dict[str, Any] = {
                k: v for k, v in info.get_info().items() if k not in ("size", "chksum")
            }
            told["pax"] = info.pax_headers
            file = tar.extractfile(info) if info.isreg() else None
            found.append((told, file.read() if file else None))
    return found
