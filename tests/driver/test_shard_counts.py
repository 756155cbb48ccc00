"""Images in shards count as images, files beside shards once, wherever a run is told of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import batchlight
from batchlight import JobConfig, Progress
from batchlight.config import BATCH_SIZE
from batchlight.driver.dry_run import DryRun, dry_run
from batchlight.driver.preview import IMAGES_OF_A_CONTAINER, make_sheet
from batchlight.driver.stats import Goal
from batchlight.driver.verify import verify
from batchlight.engine import base
from batchlight.errors import UsageError
from batchlight.output.records import Tally
from batchlight.planning.listing import open_inputs
from batchlight.worker.comparing import Problem
from tests.support.helpers import ALL_DARK, batchlight_here, rows, tree
from tests.support.s3_server import BUCKET, S3Server
from tests.support.tars import jpeg, samples, write_tar

EACH = 5
SIDECARS = 4


def config(folder: Path | str, out: Path | str, **options: Any) -> JobConfig:
    values: dict[str, Any] = {"workers": 0, "progress": "off", "device": "cpu"} | options
    return JobConfig(input=str(folder), output=str(out), **values)


def planned(folder: Path, **options: Any) -> DryRun:
    return dry_run(config(folder, folder.parent / "out", **options), estimate=True)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards and their sidecars, a loose image, and a label of a folder without shards."""
    folder = tmp_path / "in"
    for number in range(2):
        write_tar(folder / f"set/{number:05d}.tar", samples(EACH, 10 * number))
        (folder / f"set/{number:05d}_stats.json").write_bytes(b'{"successes": 5}')
        (folder / f"set/{number:05d}.parquet").write_bytes(b"PAR1")
    (folder / "loose").mkdir()
    (folder / "loose/a.jpg").write_bytes(jpeg(99))
    (folder / "loose/a.txt").write_bytes(b"label")
    return folder


def test_a_shard_without_images_is_not_said_to_be_not_dark(tmp_path: Path) -> None:
    """Its row is ``skipped``, as those of images are that are not dark."""
    write_tar(tmp_path / "in/a.tar", {"a.txt": b"a"})
    where = ("--input", tmp_path / "in", "--workers", 0, "--progress", "off")
    said = batchlight_here("run", *where).stdout
    assert "skipped: not dark, or no images in it  1\n" in said
    assert "skipped, not dark" not in said


def test_images_of_shards_are_images(shards: Path, tmp_path: Path) -> None:
    found = planned(shards)
    assert (found.inputs, found.todo, found.todo_pairs) == (11, 11, 11)
    assert (found.containers, found.todo_containers, found.batches) == (2, 2, 3)
    summary = batchlight.run(config(shards, tmp_path / "out"))
    assert (summary.inputs, summary.pairs, summary.pairs_now) == (11, 11, 11)
    assert (summary.containers, summary.missing, summary.done_now) == (2, 0, 11)
    assert summary.read_bytes == sum(row["input_bytes"] for row in rows(tmp_path / "out"))
    assert summary.facts["images"] == "11"
    assert summary.facts["in containers"] == "2"
    assert summary.reason == "all images are done"
    again = planned(shards)
    assert (again.inputs, again.todo, again.todo_pairs, again.estimate) == (11, 0, 0, None)
    write_tar(shards / "set/00002.tar", samples(3, 20))
    more = planned(shards, limit=3)
    assert (more.inputs, more.todo) == (11, 0)
    more = planned(shards)
    assert (more.inputs, more.todo, more.unchanged) == (14, 3, 3)


def test_linked_shards_are_looked_into_if_links_are_followed(shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "linked/in"
    folder.mkdir(parents=True)
    (folder / "a.tar").symlink_to(shards / "set/00000.tar")
    found = planned(folder, follow_links=True)
    assert (found.inputs, found.todo, found.in_containers.unreadable) == (EACH, EACH, {})


def test_progress_goes_on_inside_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "REPORT_EVERY_S", 0.002)
    write_tar(tmp_path / "in/a.tar", samples(12))
    (tmp_path / "in/b.jpg").write_bytes(jpeg(99))
    heard: list[Progress] = []
    batchlight.run(config(tmp_path / "in", tmp_path / "out", batch_size=3), heard.append)
    done = [told.done for told in heard]
    assert done == sorted(done)
    assert len(set(done)) > 4, "as of a shard as a whole"
    assert all(told.done < told.total for told in heard if told.done < 13)
    assert (heard[-1].done, heard[-1].total) == (13, 13)


def test_a_goal_is_an_estimate_until_its_shards_are_done() -> None:
    goal = Goal(images=4, containers=3)
    one = Tally(ok=10, in_containers=10, containers=1)
    assert goal.rows(Tally(), Tally()) == 7
    assert goal.rows(Tally(), Tally(ok=50, in_containers=50)) == 57
    assert goal.rows(one, Tally(ok=5, in_containers=5)) == 34
    assert goal.rows(one, Tally(ok=50, in_containers=50)) == 66


def test_pairs_of_two_methods(shards: Path, tmp_path: Path) -> None:
    both = {"method": ("classical", "absgn")}
    found = planned(shards, **both)
    assert (found.todo, found.todo_pairs) == (11, 22)
    summary = batchlight.run(config(shards, tmp_path / "out", **both))
    assert (summary.inputs, summary.pairs, summary.missing) == (11, 22, 0)
    later = planned(shards, method=("classical",))
    assert (later.inputs, later.todo) == (11, 0)


def test_failures_are_a_share_of_images(tmp_path: Path) -> None:
    members = samples(20)
    members["000000003.jpg"] = b"broken"
    write_tar(tmp_path / "in/a.tar", members)
    where = tmp_path / "in", tmp_path / "out"
    summary = batchlight.run(config(*where, max_failures="5%", fail_fast=True))
    assert (summary.exit_code, summary.failed_now, summary.pairs_now) == (0, 1, 20)


@pytest.mark.parametrize("copy_others", [False, True])
def test_files_beside_shards_count_once(shards: Path, tmp_path: Path, copy_others: bool) -> None:
    out = tmp_path / "out"
    found = planned(shards, copy_others=copy_others)
    summary = batchlight.run(config(shards, out, copy_others=copy_others))
    for told in (found, summary):
        assert told.beside == SIDECARS
        assert told.others == int(copy_others)
        assert told.passed_over == ({} if copy_others else {".txt": 1})
    copied = [row["input"] for row in rows(out) if row["status"] == "copied"]
    assert copied == (["loose/a.txt"] if copy_others else [])
    missing = set(tree(shards)) - set(tree(out / "classical"))
    assert missing == (set() if copy_others else {"loose/a.txt"})
    problems: list[Problem] = []
    verify(str(out), on_problem=problems.append)
    assert problems == []
    again = batchlight.run(config(shards, out, copy_others=copy_others))
    assert (again.exit_code, again.done_now, again.gone, again.beside) == (0, 0, 0, SIDECARS)


def test_an_excluded_file_beside_shards_is_passed_over(shards: Path, tmp_path: Path) -> None:
    summary = batchlight.run(config(shards, tmp_path / "out", exclude=("*.parquet",)))
    assert (summary.beside, summary.passed_over) == (2, {".txt": 1, ".parquet": 2})


def test_auto_is_the_same_in_every_shard(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", samples(BATCH_SIZE + 2))
    batchlight.run(config(tmp_path / "in", tmp_path / "out", **ALL_DARK))
    by_input = {r["input"]: r["batch_atmospheric_light"] for r in rows(tmp_path / "out")}
    lights = [by_input[name] for name in sorted(by_input)]
    assert len(set(lights[:BATCH_SIZE])) == len(set(lights[BATCH_SIZE:])) == 1
    assert lights[0] != lights[-1]


def test_an_estimate_looks_into_shards(shards: Path, tmp_path: Path) -> None:
    megapixels = 11 * 48 * 64 / 1e6
    tried = planned(shards, **ALL_DARK).estimate
    assert tried is not None
    assert tried.based_on.endswith("images, tried here")
    assert tried.megapixels == pytest.approx(megapixels, rel=0.2)
    batchlight.run(config(shards, tmp_path / "out", limit=2, exclude=("*.cls",), **ALL_DARK))
    more = planned(shards, exclude=("*.cls",), **ALL_DARK)
    assert more.estimate is not None
    assert more.estimate.based_on == "the records of this output"
    assert more.estimate.megapixels == pytest.approx(5 * 48 * 64 / 1e6, rel=0.2)
    written = (shards / "set/00001.tar").stat().st_size
    assert more.estimate.output_bytes == pytest.approx(written, rel=0.2)


def test_requests_of_shards_are_foreseen(shards: Path, s3: S3Server) -> None:
    only = {path: data for path, data in tree(shards).items() if path.endswith(".tar")}
    foreseen = []
    for count in (1, 2):
        name = f"foreseen-{count}"
        s3.put(dict(sorted(only.items())[:count]), name)
        job = config(f"s3://{BUCKET}/{name}", f"s3://{BUCKET}/{name}-out")
        estimate = dry_run(job, estimate=True).estimate
        assert estimate is not None
        foreseen.append(estimate.requests)
    more = {kind: foreseen[1][kind] - foreseen[0][kind] for kind in foreseen[1]}
    # Less pictures of a report, of which there are two for each of five images. The third POST of
    # a shard deletes its part, which costs nothing.
    assert more == {"LIST": 4, "HEAD": 1, "GET": 2 + 2 * EACH, "PUT": 2, "POST": 2}


def test_a_plan_in_words(shards: Path) -> None:
    said = batchlight_here("plan", "--input", shards, "--workers", 0).stdout
    assert "in 1 batch of 2 and 2 containers" in said
    assert "4, which are copied along" in said
    assert "1 .txt" in said


def test_a_preview_shows_images_of_shards(shards: Path) -> None:
    job = config(shards, "-")
    sheet = make_sheet(job, open_inputs(job), ("",))
    shown = {row.name for row in sheet.rows}
    assert len(shown) == 8
    assert any(name.startswith("set/00001.tar/") for name in shown)
    assert f"There are 2 containers; of them, the first {IMAGES_OF_A_CONTAINER} images of " in (
        " ".join(sheet.notes)
    )


def test_a_preview_of_what_holds_nothing_to_show(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", {"only.txt": b"text"})
    job = config(tmp_path / "in", "-")
    with pytest.raises(UsageError, match=r"no images to show in the first containers, such as a\."):
        make_sheet(job, open_inputs(job), ("",))
    (tmp_path / "in/a.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(
        UsageError, match=r"such as a\.tar: the content is not a tar archive; check"
    ):
        make_sheet(job, open_inputs(job), ("",))


def test_what_a_plan_tells_is_json(shards: Path) -> None:
    found = json.loads(batchlight_here("plan", "--input", shards, "--json").stdout)
    assert found["in_containers"]["images"] == 2 * EACH
    assert found["beside"] == SIDECARS
