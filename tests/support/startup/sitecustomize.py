"""Imported by Python at its start if PYTHONPATH points here: in everything that tests start.

A command, and a worker of Ray, does without pandas and SciPy, as if batchlight alone were
installed. PyArrow and numba import them if they exist, which takes longer than most of what tests
do.

Where $DEADLY is a folder, decoders and OpenCV's encoder are deadly for some images, as specified in
its ``orders.json``: by the SHA-256 of the bytes that are decoded, or by the size, as in "33x47", of
pixels that are encoded. Each decoding appends a line to ``decoded`` there: the SHA-256, and the
process. An image that is to "hold" writes ``held`` there, and waits for ``go``. Without that file,
nothing is changed.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

EXTRAS = ("pandas", "scipy")
PAUSE_S = 0.1
GROWS_TO = 6 * 2**30
GROWS_BY = 64 * 2**20


def do(how: str | None) -> None:
    """What happens to a process that touches a deadly image."""
    match how:
        case "segfault":
            ctypes.string_at(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(3600)
        case "pause":
            time.sleep(PAUSE_S)
        case "hold":
            folder = Path(os.environ["DEADLY"])
            (folder / "held").touch()
            while not (folder / "go").exists():
                time.sleep(0.01)
        case "raise":
            raise ZeroDivisionError("as ordered")
        case "limit":
            before = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (2**30, before[1]))
            try:
                bytearray(2**30)
            finally:  # whatever Ray does now must not be limited
                resource.setrlimit(resource.RLIMIT_AS, before)
        case "grow":
            held: list[bytes] = []
            while len(held) * GROWS_BY < GROWS_TO:
                held.append(b"x" * GROWS_BY)
                time.sleep(0.02)


def make_deadly() -> None:
    """Wrap OpenCV's functions."""
    import cv2
    import simplejpeg

    folder = Path(os.environ["DEADLY"])
    if not (folder / "orders.json").exists():
        return
    orders = json.loads((folder / "orders.json").read_text())
    encode = cv2.imencode

    def touch(data: Any) -> None:
        digest = hashlib.sha256(data).hexdigest()
        with (folder / "decoded").open("a") as log:
            log.write(f"{digest} {os.getpid()}\n")
        time.sleep(orders["slow_s"])
        do(orders["deadly"].get(digest))

    def touching(decode: Callable[..., Any]) -> Callable[..., Any]:
        def touch_and_decode(data: Any, *settings: Any, **named: Any) -> Any:
            touch(data)
            return decode(data, *settings, **named)

        return touch_and_decode

    def imencode(suffix: str, pixels: Any, *settings: Any) -> Any:
        height, width = pixels.shape[:2]
        do(orders["deadly"].get(f"{height}x{width}"))
        return encode(suffix, pixels, *settings)

    vars(cv2).update(imdecode=touching(cv2.imdecode), imencode=imencode)
    vars(simplejpeg).update(decode_jpeg=touching(simplejpeg.decode_jpeg))


class AfterCodec(MetaPathFinder):
    """Acts when batchlight's codec is imported, so that no other process loads OpenCV."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "batchlight.images.codec":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            make_deadly()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


class WithoutExtras(PathFinder):
    """Finds none of the packages that only tests need."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return None if fullname in EXTRAS else super().find_spec(fullname, path, target)


def is_command_or_worker() -> bool:
    """Whether users, or Ray for them, would start this process."""
    words = sys.orig_argv[1:3]
    return words == ["-m", "batchlight"] or any(
        Path(word).name in ("batchlight", "default_worker.py") for word in words
    )


if is_command_or_worker():
    sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutExtras
if "DEADLY" in os.environ:
    sys.meta_path.insert(0, AfterCodec())
