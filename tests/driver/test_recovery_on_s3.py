"""Runs on an object store that die at any of their writes, and the same command run again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import cv2
import obstore
import pytest

import batchlight
from batchlight.storage.objects import ObjectStorage
from tests.support.dying import Died, die_at
from tests.support.helpers import dark_image, stable_rows, tree, write_images
from tests.support.s3_server import BUCKET, S3Server

State = tuple[dict[str, bytes], list[dict[str, Any]], list[str]]


@dataclass(frozen=True)
class Output:
    """One below a prefix of its own."""

    server: S3Server
    prefix: str
    folder: Path
    """For local copies of it."""

    def run(self, photos: Path) -> batchlight.Summary:
        config = batchlight.JobConfig(
            input=str(photos),
            output=f"s3://{BUCKET}/{self.prefix}",
            workers=0,
            batch_size=2,
            progress="off",
        )
        return batchlight.run(config)

    def copy_of(self, files: dict[str, bytes]) -> Output:
        """Another, which starts with these files."""
        copy = Output(self.server, str(uuid4()), self.folder.with_name(str(uuid4())))
        self.server.put(files, copy.prefix)
        return copy

    def files(self) -> dict[str, bytes]:
        return self.server.tree(self.prefix)

    def unlock(self) -> None:
        """This process, which lives, still holds what the run that died has locked."""
        store = self.server.store(self.prefix)
        for path in self.files():
            if path.startswith("_batchlight/locks/"):
                obstore.delete(store, path)

    def fetched(self) -> Path:
        for path, data in self.files().items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_bytes(data)
        return self.folder

    def state(self) -> State:
        """All that two equal outputs agree in."""
        local = self.fetched()
        return tree(local / "classical"), stable_rows(local), sorted(tree(local / "metadata"))


@pytest.fixture
def output(s3: S3Server, tmp_path: Path) -> Output:
    return Output(s3, str(uuid4()), tmp_path / "fetched")


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.nightly)])
def test_death_at_every_single_write(
    output: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """First run and incremental run (new, changed and vanished inputs), killed at each change.

    Or at every ninth, which is of another kind each time.
    """
    # It takes most of a run's time, and nothing that is done here depends on it.
    monkeypatch.setattr("batchlight.report.write_report", lambda output: None)
    photos = tmp_path / "in"
    write_images(photos, 7)
    output.run(photos)
    first, calm_first = output.files(), output.state()
    deaths = deaths_that_change_nothing(output.copy_of, {}, photos, calm_first, every)

    cv2.imwrite(str(photos / "a/0000.jpg"), dark_image(50))
    cv2.imwrite(str(photos / "new.jpg"), dark_image(52))
    (photos / "c/0002.jpg").write_bytes(b"no image any more")  # so its old output must go
    (photos / "b/0004.jpg").unlink()
    second = output.copy_of(first)
    second.run(photos)
    calm = second.state()
    assert calm != calm_first
    deaths += deaths_that_change_nothing(output.copy_of, first, photos, calm, every)
    assert deaths > 30 // every


def deaths_that_change_nothing(
    start: Callable[[dict[str, bytes]], Output],
    files: dict[str, bytes],
    photos: Path,
    calm: State,
    every: int,
) -> int:
    """Let runs that start with these files die, each some changes later; returns how many did."""
    operation = 1
    while True:
        out = start(files)
        with pytest.MonkeyPatch.context() as patch:
            count = die_at(patch, ObjectStorage, operation)
            with contextlib.suppress(Died):
                out.run(photos)
            if count() < operation:
                return (operation - 1) // every
        out.unlock()
        out.run(photos)
        assert out.state() == calm, f"after death at operation {operation}"
        assert not [path for path in out.files() if path.startswith("_batchlight/parts/")]
        operation += every
