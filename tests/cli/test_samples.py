"""The sample images replace nothing, and follow no link."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.helpers import batchlight_here, tree


def test_again_into_the_same_folder(tmp_path: Path) -> None:
    for _ in range(2):
        assert batchlight_here("samples", tmp_path / "s").returncode == 0
    assert len(tree(tmp_path / "s")) == 8


def test_they_are_written_to_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = batchlight_here("samples", "s3://bucket/dark")
    assert done.returncode == 2
    assert "s3://bucket/dark is in an object store" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "s/people").mkdir(parents=True)
    (tmp_path / "s/people/astronaut.jpg").write_bytes(b"mine")
    done = batchlight_here("samples", tmp_path / "s")
    assert done.returncode == 2
    assert "choose another DIR" in done.stderr
    assert (tmp_path / "s/people/astronaut.jpg").read_bytes() == b"mine"


def test_no_link_is_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "f").write_bytes(b"mine")
    for name, target in (("people", victim), ("people/astronaut.jpg", victim / "f")):
        folder = tmp_path / name.replace("/", "-")
        (folder / name).parent.mkdir(parents=True)
        (folder / name).symlink_to(target)
        assert batchlight_here("samples", folder).returncode == 2
    assert tree(victim) == {"f": b"mine"}
