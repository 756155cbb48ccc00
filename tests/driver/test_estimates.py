"""What ``plan`` says that a run will take: from records, or from a few images that it tries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import batchlight
from batchlight.config import JobConfig
from batchlight.driver import estimates, requests
from batchlight.driver.dry_run import dry_run
from batchlight.driver.estimates import Estimate
from batchlight.report import selections
from tests.support.faulty_proxy import FaultPlan, faulty_proxy
from tests.support.helpers import ALL_DARK, batchlight_here, rows, tree, write_images
from tests.support.s3_server import BUCKET, S3Server

MEGAPIXELS = 48 * 64 / 1e6
BOTH = ("classical", "absgn")
STAGES = ("read_ms", "decode_ms", "enhance_ms", "encode_ms", "write_ms")


def config(folder: Path, **options: Any) -> JobConfig:
    where: dict[str, Any] = {"input": str(folder), "output": str(folder.parent / "out")}
    fixed: dict[str, Any] = {"workers": 0, "progress": "off", "device": "cpu", **ALL_DARK}
    return JobConfig(**{**where, **fixed, **options})


def estimated(job: JobConfig) -> Estimate:
    found = dry_run(job, estimate=True).estimate
    assert found is not None
    return found


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(tmp_path / "in", 20)
    return tmp_path / "in"


def test_a_few_images_are_tried_and_nothing_is_written(photos: Path) -> None:
    (photos / "0.jpg").write_bytes(b"no image")
    before = tree(photos.parent)
    found = estimated(config(photos, workers=4))
    assert found.based_on.endswith(" images, tried here")
    assert found.megapixels == pytest.approx(20 * MEGAPIXELS, rel=0.2)
    assert found.ms_per_megapixel > 0
    assert found.seconds == pytest.approx(found.cpu_hours * 3600 / 4)
    assert (found.workers, found.gpu_hours, found.requests, found.price_usd) == (4, 0, {}, 0)
    assert found.warning is None
    assert tree(photos.parent) == before


def test_records_of_the_same_parameters_tell_more(photos: Path) -> None:
    batchlight.run(config(photos, limit=15))
    found = estimated(config(photos))
    made = rows(photos.parent / "out")
    assert found.based_on == "the records of this output"
    spent = sum(row[stage] for row in made for stage in STAGES)
    assert found.ms_per_megapixel == pytest.approx(spent / (15 * MEGAPIXELS))
    assert found.megapixels == pytest.approx(5 * MEGAPIXELS, rel=0.2)
    written = sum(row["output_bytes"] for row in made)
    assert found.output_bytes == pytest.approx(written / 3, rel=0.2)
    other = estimated(config(photos, omega=0.5, overwrite=True))
    assert "tried here" in other.based_on


def test_two_methods_share_their_reading_and_the_network_is_apart(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batchlight.run(config(photos, limit=3, method=BOTH))
    found = estimated(config(photos, method=BOTH))
    made = rows(photos.parent / "out")
    classical = [row for row in made if row["method"] == "classical"]
    absgn = [row for row in made if row["method"] == "absgn"]
    cpu = sum(row[stage] for row in classical for stage in STAGES)
    cpu += sum(row["enhance_ms"] - row["network_ms"] for row in absgn)
    cpu += sum(row["encode_ms"] + row["write_ms"] for row in absgn)
    assert found.ms_per_megapixel == pytest.approx(cpu / (3 * MEGAPIXELS))
    network = sum(row["network_ms"] for row in absgn)
    assert found.network_ms_per_megapixel == pytest.approx(network / (3 * MEGAPIXELS))


def test_methods_with_records_of_different_images_count_alike(photos: Path) -> None:
    """As when the network was added later, or has done no more than a trial."""
    batchlight.run(config(photos, limit=15))
    batchlight.run(config(photos, limit=3, method=BOTH))
    found = estimated(config(photos, method=BOTH))
    made = rows(photos.parent / "out")
    each = [[row for row in made if row["method"] == method] for method in BOTH]
    assert [len(of_one) for of_one in each] == [15, 3]
    read = [sum(row["input_bytes"] for row in of_one) for of_one in each]
    written = [sum(row["output_bytes"] for row in of_one) for of_one in each]
    todo = sum(path.stat().st_size for path in photos.rglob("*.jpg")) - read[1]
    expected = sum(out * todo / size for out, size in zip(written, read, strict=True))
    assert found.output_bytes == pytest.approx(expected, abs=1)
    network = sum(row["network_ms"] for row in each[1])
    assert found.network_ms_per_megapixel == pytest.approx(network / (3 * MEGAPIXELS), rel=0.2)


def test_a_network_on_cpus_is_warned_of_before_anything_starts(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchlight.absgn.inference.MEASURED_SIDE", 16)
    words = ("plan", "--input", photos, "--method", "absgn", "--device", "cpu", "--workers", 16)
    said = batchlight_here(*words).stdout
    assert "ABSGN runs on CPUs here: absgn-small takes about " in said
    assert "s per megapixel; --method classical takes milliseconds" in said
    assert not (photos.parent / "in-enhanced").exists()
    found = json.loads(batchlight_here(*words, "--json").stdout)["estimate"]
    in_all = found["network_ms_per_megapixel"] / 1000 * found["megapixels"]
    of_network = found["seconds"] - found["ms_per_megapixel"] / 1000 * found["megapixels"] / 16
    assert of_network == pytest.approx(in_all / 2)  # as two networks of eight threads
    assert found["warning"]


def test_of_gpus_nothing_is_made_up(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchlight.driver.network.refuse_cuda_without_gpu", lambda device: None)
    found = estimated(config(photos, method="absgn", device="cuda"))
    assert (found.gpu_hours, found.seconds, found.network_ms_per_megapixel) == (None, None, None)
    said = batchlight_here(
        *("plan", "--input", photos, "--method", "absgn", "--device", "cuda", "--workers", 1)
    )
    assert "GPU time       not known before some images are done" in said.stdout


def test_with_nothing_to_do_nothing_is_tried(photos: Path) -> None:
    batchlight.run(config(photos))
    assert dry_run(config(photos), estimate=True).estimate is None


def test_images_that_all_fail_take_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jpg").write_bytes(b"no image")
    assert dry_run(config(tmp_path / "in"), estimate=True).estimate is None


def test_images_of_no_size_take_nothing_beside_records_of_others(photos: Path) -> None:
    (photos / "empty.jpg").touch()
    job = config(photos, max_failures=1)
    batchlight.run(job)
    found = dry_run(job.model_copy(update={"retry_failed": True}), estimate=True)
    assert (found.todo, found.estimate) == (1, None)


def test_trying_ends_in_time(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "TRY_FOR_S", 0.0)
    assert estimated(config(photos)).based_on == "1 images, tried here"


def test_a_cluster_that_was_not_asked_has_no_time(photos: Path) -> None:
    found = estimated(config(photos, workers=None, address="10.0.0.1:6379"))
    assert (found.seconds, found.workers) == (None, None)
    assert found.cpu_hours > 0


def test_lists_that_tell_take_no_look_at_each_object(photos: Path, s3: S3Server) -> None:
    files = {path.name: path.read_bytes() for path in photos.rglob("*.jpg")}
    s3.put(files, "told")
    told = [f"{name},{len(data)},e" for name, data in sorted(files.items())]
    bare = [f"{name},," for name in sorted(files)]
    s3.put({"told.csv": "\n".join(["path,size,etag", *told]).encode()}, "told")
    s3.put({"bare.csv": "\n".join(["path,size,etag", *bare]).encode()}, "told")
    heads = []
    for name in ("told", "bare"):
        where = {"input": f"s3://{BUCKET}/told/{name}.csv", "output": f"s3://{BUCKET}/{uuid4()}"}
        heads.append(estimated(config(photos, **where)).requests.get("HEAD", 0))
    assert heads == [0, len(files)]


def test_the_pictures_of_a_report_are_as_many_as_it_shows() -> None:
    assert requests.IMAGES_OF_A_REPORT == selections.IMAGES_AT_MOST


def test_requests_are_about_those_that_are_sent(
    photos: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = str(uuid4())
    for path in photos.rglob("*.jpg"):
        s3_server.put({path.name: path.read_bytes()}, source)
    plan = FaultPlan()
    with faulty_proxy(s3_server.environment["AWS_ENDPOINT_URL"], plan) as proxy:
        for name, value in proxy.environment(s3_server.environment).items():
            monkeypatch.setenv(name, value)
        where = {"input": f"s3://{BUCKET}/{source}", "output": f"s3://{BUCKET}/{uuid4()}"}
        found = estimated(config(photos, **where))
        before = dict(plan.requests)
        batchlight.run(config(photos, **where))
        sent = {kind: plan.requests[kind] - before.get(kind, 0) for kind in ("GET", "PUT")}
    requests = found.requests
    assert requests["PUT"] == pytest.approx(sent["PUT"], rel=0.3)
    assert requests["GET"] + requests["LIST"] == pytest.approx(sent["GET"], rel=0.5)
    price = 0.005 / 1000 * (requests["PUT"] + requests["LIST"]) + 0.0004 / 1000 * requests["GET"]
    assert found.price_usd == pytest.approx(price)
