"""Shared by several tests: images to work on, the real command, and its results."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import numpy.typing as npt
import psutil
import pyarrow.parquet as pq
import pytest

from batchlight.classical.dehaze import DehazeParameters
from batchlight.cli.main import main
from batchlight.config import JobConfig
from batchlight.output.documents import serialise
from batchlight.output.layout import lock_path
from batchlight.output.lock import Holder
from batchlight.output.records import VOLATILE
from batchlight.storage import Storage

ALL_DARK: dict[str, Any] = {"not_dark": "enhance"}
"""Options with which a method enhances bright images, too, as before the option existed."""

COMMAND = [sys.executable, "-m", "batchlight"]

STARTUP = Path(__file__).parent / "startup"
"""Put on the PYTHONPATH of processes that tests start."""


def dark_image(
    seed: int, height: int = 48, width: int = 64, channels: int = 3, dtype: type = np.uint8
) -> npt.NDArray[Any]:
    """A smooth, dark, noisy image: gray for one channel, BGR for three, BGRA for four."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((6, 8, channels)) ** 2
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    noisy = np.clip(smooth * 0.3 + rng.normal(0.02, 0.01, smooth.shape), 0, 1)
    image: npt.NDArray[Any] = np.rint(noisy * np.iinfo(dtype).max).astype(dtype)
    return image[..., 0] if image.ndim == 3 and channels == 1 else image


def bright_image(seed: int, height: int = 40, width: int = 56, **kind: Any) -> npt.NDArray[Any]:
    """An image that is not dark; by default, of another size than those of ``dark_image``."""
    dark = dark_image(seed, height, width, **kind)
    image: npt.NDArray[Any] = np.iinfo(dark.dtype).max - dark
    return image


def parameters(**options: Any) -> DehazeParameters:
    """The classical method's parameters in a run with these options."""
    return DehazeParameters.of(JobConfig(input="in", **options))


def read_image(path: Path) -> npt.NDArray[Any]:
    """An image as stored, not turned."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return image


def write_images(folder: Path, count: int, suffix: str = ".jpg", **kind: Any) -> list[Path]:
    """``count`` different images, some in subfolders."""
    paths = []
    for number in range(count):
        path = folder / ("abc"[number % 3]) / f"{number:04d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), dark_image(number, **kind))
        paths.append(path)
    return paths


def write_copies(folder: Path, count: int, **kind: Any) -> None:
    """One image under ``count`` names: much work, quickly written."""
    [first] = write_images(folder, 1, **kind)
    for number in range(1, count):
        first.with_name(f"{number:04d}.jpg").hardlink_to(first)


def batchlight(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the real command in a process of its own."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, **environment},
        check=False,
    )


def batchlight_here(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The same in this process, which saves a second, for tests of what a command says.

    Not for its log: this process has already set up its logging.
    """
    words = ["batchlight", *map(str, arguments)]
    code, shown = 0, [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    at_a_closed_pipe = signal.getsignal(signal.SIGPIPE)
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(shown[0]),
        redirect_stderr(shown[1]),
    ):
        patch.setattr(sys, "argv", words)
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            signal.signal(signal.SIGPIPE, at_a_closed_pipe)
    for stream in shown:
        stream.seek(0)
    return subprocess.CompletedProcess(words, code, *(stream.read() for stream in shown))


_MEASURED = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def measured(*arguments: object, stderr: IO[bytes] | None = None) -> tuple[int, int]:
    """Run the real command; returns its exit code and its peak memory in bytes.

    Through a small intermediate process, as otherwise the peak would start at the size of this one.
    """
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=stderr,
        check=False,
    )
    return done.returncode, int(done.stdout) * (1 if sys.platform == "darwin" else 1024)


def wait_until(moment: Callable[[], Any], process: subprocess.Popen[Any], within_s: float) -> None:
    """Wait until ``moment()`` is true while a run is in progress."""
    deadline = time.monotonic() + within_s
    while not moment():
        assert time.monotonic() < deadline
        assert process.poll() is None, "it ended before that"
        time.sleep(0.01)


def processes_below(pid: int, title: str) -> list[psutil.Process]:
    """Processes whose command line begins with a title; Ray sets such titles for its workers."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):
            if (child.cmdline() or [""])[0].startswith(title):
                found.append(child)
    return found


def parts(output: Path) -> int:
    """How many batches are committed and not yet in ``metadata/``."""
    return len(list((output / "_batchlight/parts").glob("*.parquet")))


def has_parts(output: Path, count: int) -> bool:
    """Whether at least ``count`` batches are."""
    return parts(output) >= count


def rows(output: Path) -> list[dict[str, Any]]:
    """The records, as any engine reads them: every file of ``metadata/``, nothing else."""
    found: list[dict[str, Any]] = []
    for file in sorted((output / "metadata").glob("*.parquet")):
        found += pq.read_table(file).to_pylist()
    return sorted(found, key=lambda row: (row["input"], row["method"]))


def stable_rows(output: Path) -> list[dict[str, Any]]:
    """The records without the columns that two equal runs may differ in."""
    return [{k: v for k, v in row.items() if k not in VOLATILE} for row in rows(output)]


@dataclass(frozen=True)
class Row:
    """The parts of a record that most tests check."""

    status: str
    error_code: str | None


def outcomes(output: Path) -> dict[str, Row]:
    """Status and code by input."""
    return {row["input"]: Row(row["status"], row["error_code"]) for row in rows(output)}


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def locked(storage: Storage) -> int:
    """Lock an output for workers that are tested without a driver; returns the lock's number."""
    storage.check(writable=True)
    storage.create(lock_path(1), serialise(Holder.this_process("run")))
    return 1


def deadly(folder: Path, orders: Mapping[str, str], slow_s: float = 0.0) -> dict[str, str]:
    """The environment of a run in which some images are deadly, or all slow; see ``startup/``."""
    folder.mkdir()
    give_orders(folder, orders, slow_s)
    return deadly_environment(folder)


def give_orders(folder: Path, orders: Mapping[str, str], slow_s: float = 0.0) -> None:
    """Give orders to processes that look into this folder and have not begun to work yet."""
    told = {"slow_s": slow_s, "deadly": dict(orders)}
    (folder / "orders.json").write_text(json.dumps(told))


def deadly_environment(folder: Path) -> dict[str, str]:
    """The environment of processes that obey the orders in a folder, if there are any."""
    return {"PYTHONPATH": str(STARTUP), "DEADLY": str(folder)}


def sha256(path: Path) -> str:
    """Hash of a file's bytes, by which orders name an image."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def decodings(folder: Path) -> list[tuple[str, int]]:
    """For each decoding in such a run, in order, the SHA-256 of the image and the process."""
    log = folder / "decoded"
    lines = log.read_text().splitlines() if log.exists() else []
    return [(digest, int(pid)) for digest, pid in map(str.split, lines)]


@contextmanager
def under_way(
    command: Sequence[object], environment: Mapping[str, str], **options: Any
) -> Iterator[subprocess.Popen[Any]]:
    """A process that is ended with all its descendants, whatever happens in the test."""
    environment = {**os.environ, **environment}
    with subprocess.Popen(list(map(str, command)), env=environment, **options) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                kill_with_all_below(process.pid)


def kill_with_all_below(pid: int) -> None:
    """Kill a process and all its descendants."""
    process = psutil.Process(pid)
    for victim in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            victim.kill()
