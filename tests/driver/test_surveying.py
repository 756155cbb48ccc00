"""Stores that list in order are listed in parts, by workers; all others as before."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import cv2
import pytest
import ray

import batchlight
from batchlight.config import JobConfig
from batchlight.driver import drafting, surveying
from batchlight.errors import StorageError
from batchlight.planning import cutting
from batchlight.planning.listing import InputSet
from batchlight.planning.survey import PartSurvey
from batchlight.storage import KeyRange, objects
from batchlight.storage.local import LocalStorage
from tests.support.dying import Died, die_at
from tests.support.helpers import dark_image, rows, stable_rows, tree, write_images
from tests.support.s3_server import BUCKET, S3Server
from tests.support.tars import samples, write_tar

IMAGES = 24
COUNTS = ("inputs", "pairs", "ok", "failed", "missing", "gone", "done_now")


@dataclass(frozen=True)
class Photos:
    """The same photos in a folder and in a store."""

    server: S3Server
    folder: Path
    prefix: str

    @property
    def uri(self) -> str:
        return f"s3://{BUCKET}/{self.prefix}"

    def put(self) -> None:
        self.server.put(tree(self.folder), self.prefix)

    def run(self, out: Path, given: str | None = None, **options: Any) -> batchlight.Summary:
        settings: dict[str, Any] = {"workers": 0, "batch_size": 2, "progress": "off"}
        config = JobConfig(input=given or self.uri, output=str(out), **(settings | options))
        return batchlight.run(config)


@pytest.fixture
def photos(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Photos:
    """With parts of a few keys, and plans of two chunks of four."""
    monkeypatch.setattr(objects, "lists_in_order", lambda location: True)
    monkeypatch.setattr(surveying, "KEYS_IN_THE_DRIVER", 4)
    monkeypatch.setattr(surveying, "KEYS_AT_ONCE", 3)
    monkeypatch.setattr(surveying, "KEYS_PER_PART", 3)
    monkeypatch.setattr(surveying, "KEYS_AT_MOST", 4)
    monkeypatch.setattr(cutting, "CHUNK_ROWS", 4)
    monkeypatch.setattr(drafting, "CHUNKS_OF_FIRST_PLAN", 2)
    monkeypatch.setattr(drafting, "CHUNKS_OF_PLAN", 2)
    write_images(tmp_path / "in", IMAGES)
    found = Photos(s3, tmp_path / "in", str(uuid4()))
    found.put()
    return found


def outcome(out: Path) -> Any:
    batches = [(row["input"], row["batch"]) for row in rows(out)]
    return tree(out / "classical"), batches, sorted(tree(out / "metadata"))


def test_workers_survey_a_listing(photos: Photos, tmp_path: Path) -> None:
    calm, out = tmp_path / "calm", tmp_path / "out"
    for _ in range(2):
        expected = photos.run(calm, str(photos.folder))
        summary = photos.run(out, workers=2)
        assert [getattr(summary, name) for name in COUNTS] == [
            getattr(expected, name) for name in COUNTS
        ]
        assert outcome(out) == outcome(calm)
        cv2.imwrite(str(photos.folder / "a/0000.jpg"), dark_image(50))
        cv2.imwrite(str(photos.folder / "b/9999.jpg"), dark_image(51))
        photos.put()


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.nightly)])
def test_what_is_redone_while_its_listing_goes_on(
    photos: Photos, tmp_path: Path, workers: int
) -> None:
    """The first plans are closed, which removes files of records, while parts are compared."""
    calm, out = tmp_path / "calm", tmp_path / "out"
    photos.run(out)
    assert photos.run(out, overwrite=True, workers=workers).done_now == IMAGES
    for number, path in enumerate(sorted(photos.folder.rglob("*.jpg"))):
        cv2.imwrite(str(path), dark_image(100 + number))
    photos.put()
    assert photos.run(out, workers=workers).done_now == IMAGES
    photos.run(calm, str(photos.folder))
    assert tree(out / "classical") == tree(calm / "classical")
    assert sorted(row["input"] for row in rows(out)) == sorted(row["input"] for row in rows(calm))


def test_what_an_interrupted_overwrite_has_done_is_not_done_again(
    photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor if it shows only then that the data set cannot be listed in parts."""
    monkeypatch.setattr("batchlight.report.write_report", lambda *_: None)
    monkeypatch.setattr(drafting, "CHUNKS_OF_FIRST_PLAN", 16)
    write_tar(photos.folder / "z.tar", samples(2))
    photos.put()
    out = tmp_path / "out"
    photos.run(out)
    with monkeypatch.context() as patch:
        die_at(patch, LocalStorage, 40)
        with pytest.raises(Died):
            photos.run(out, overwrite=True)
    shutil.rmtree(out / "_batchlight/locks")
    done = 2 * len(tree(out / "_batchlight/parts"))
    assert 0 < done < IMAGES
    assert photos.run(out, overwrite=True).done_now <= IMAGES + 2 - done + 2


def test_a_run_that_ends_early_leaves_nobody_listing(
    photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(threading.enumerate())
    meanwhile: list[threading.Thread] = []

    def listing() -> list[threading.Thread]:
        return [t for t in set(threading.enumerate()) - before if t.name == surveying.LOOP]

    def refused(*_: object) -> None:
        time.sleep(1)  # while the next plan is drafted
        meanwhile.extend(listing())
        raise StorageError("the disk is full", transient=False)

    monkeypatch.setattr("batchlight.driver.run._Run._do", refused)
    photos.server.put({f"n/{number:05d}.jpg": b"none" for number in range(300)}, photos.prefix)
    with pytest.raises(StorageError, match="the disk is full"):
        photos.run(tmp_path / "out", workers=2)
    assert meanwhile
    assert not ray.is_initialized()
    assert not listing()


@pytest.mark.parametrize("every", [13, pytest.param(1, marks=pytest.mark.nightly)])
def test_death_at_every_write(
    photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    monkeypatch.setattr("batchlight.report.write_report", lambda *_: None)
    out = tmp_path / "out"
    photos.run(out)
    calm, operation, died = stable(out), 1, True
    while died:
        shutil.rmtree(out)
        with monkeypatch.context() as patch:
            die_at(patch, LocalStorage, operation)
            try:
                photos.run(out)
                died = False
            except Died:
                shutil.rmtree(out / "_batchlight/locks", ignore_errors=True)
        assert photos.run(out).missing == 0
        assert stable(out) == calm, f"after death at operation {operation}"
        operation += every
    assert operation > 40


def stable(out: Path) -> Any:
    return tree(out / "classical"), stable_rows(out)


def test_what_is_not_plain_is_listed_in_the_driver(
    photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tar(photos.folder / "z.tar", samples(2))
    photos.put()
    asked: list[object] = []
    look, images = PartSurvey.look, InputSet.images

    def looked(self: PartSurvey, within: KeyRange, *arguments: Any) -> Any:
        asked.append(within)
        return look(self, within, *arguments)

    def listed(self: InputSet, soon: bool = False) -> Any:
        asked.append(soon)
        return images(self, soon)

    monkeypatch.setattr(PartSurvey, "look", looked)
    monkeypatch.setattr(InputSet, "images", listed)
    done = photos.run(tmp_path / "out")
    assert (done.inputs, done.missing, done.ok) == (IMAGES + 2, 0, IMAGES + 2)
    assert asked[0] == KeyRange()
    assert True in asked
    assert False not in asked


def test_a_limit_and_files_to_copy_are_for_the_driver(photos: Photos, tmp_path: Path) -> None:
    assert photos.run(tmp_path / "some", limit=5).done_now == 5
    photos.server.put({"a/labels.txt": b"0 1"}, photos.prefix)
    assert photos.run(tmp_path / "all", copy_others=True).done_now == IMAGES + 1
