"""The report says what the records say; it is bounded, escaped, and never in the way of a run."""

from __future__ import annotations

import base64
import html
import re
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import copy
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from batchlight import JobConfig, run
from batchlight.errors import ErrorCode
from batchlight.output.inputs import DataSet
from batchlight.output.layout import BatchRange, metadata_path
from batchlight.output.recordfiles import to_parquet
from batchlight.output.records import Record, as_table
from batchlight.output.state import OutputState
from batchlight.report import charts, write_report
from batchlight.report.bins import Bins
from batchlight.report.digest import Digest, digest
from batchlight.report.folders import Folders
from batchlight.report.meanings import meaning, what_next
from batchlight.report.pictures import BYTES_AT_MOST, SIDE, make_picture
from batchlight.storage import Location, open_storage
from tests.support.helpers import batchlight_here, dark_image, rows, write_images

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LARGEST = 3_000_000
HOSTILE = "<img src=x onerror=alert(1)>&\"'.jpg"


def record(number: int, **columns: Any) -> Record:
    values: dict[str, Any] = {
        "input": f"{number:07d}.jpg",
        "method": "classical",
        "status": "ok",
        "output": f"classical/{number:07d}.jpg",
        "input_bytes": 100,
        "output_bytes": 200,
        "input_sha256": f"{number * 7919 % 1000:064x}",
        "output_sha256": "0" * 64,
        "width": 64,
        "height": 48,
        "batch": number // 64,
        "atmospheric_light": 200.0,
        "batch_atmospheric_light": 200.0 + number // 64 % 10,
        "luminance_before": number % 50 / 100,
        "luminance_after": 0.5 + number % 25 / 100,
        "clipped_fraction": number % 10 / 10,
        "read_ms": 1.0,
        "decode_ms": 2.0,
        "enhance_ms": 3.0,
        "encode_ms": 4.0,
        "write_ms": 5.0,
        "attempts": 1,
        "worker": "here:1",
        "run_id": "run-1",
        "fingerprint": "f",
        "finished_at": NOON + timedelta(milliseconds=10 * number),
    }
    return Record(**values | columns)


def failed(number: int, code: ErrorCode, **columns: Any) -> Record:
    nothing = dict.fromkeys(["output", "output_bytes", "luminance_after", "clipped_fraction"])
    return record(number, status="failed", error_code=code.value, error="told", **nothing | columns)


def write_records(output: Path, *files: Sequence[Record]) -> None:
    storage = open_storage(Location.parse(str(output)))
    storage.check(writable=True)
    for number, records in enumerate(files, 100):
        path = metadata_path(BatchRange(number, number))
        storage.write(path, to_parquet(as_table(records), path))


def page_of(output: Path) -> str:
    return (output / "report.html").read_text()


def report(output: Path, input: Path | None = None) -> str:
    place = Location.parse(str(input))
    write_report(Location.parse(str(output)), DataSet(place, place) if input else None)
    return page_of(output)


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 10**7), st.floats(-1e6, 1e6)), max_size=20), max_size=6
    ),
    st.integers(1, 8),
)
def test_bins_hold_all_values_in_few_bins(groups: list[list[tuple[int, float]]], most: int) -> None:
    bins = Bins(most)
    for group in groups:
        positions = np.array([position for position, _ in group], np.int64)
        bins = bins.added(positions, np.array([value for _, value in group]))
    values = [pair for group in groups for pair in group]
    wanted: dict[int, list[float]] = {}
    for position, value in values:
        wanted.setdefault(position // bins.width, []).append(value)
    assert bins.index.tolist() == sorted(wanted)
    assert not values or bins.index[-1] - bins.index[0] < most
    for index, count, total, low, high in zip(
        bins.index, bins.count, bins.total, bins.low, bins.high, strict=True
    ):
        held = wanted[int(index)]
        assert (count, low, high) == (len(held), min(held), max(held))
        assert total == pytest.approx(sum(held), abs=1e-3)
    span = max((p for p, _ in values), default=0) - min((p for p, _ in values), default=0)
    assert bins.width == 1 or span >= bins.width // 2 * (most - 1)  # no wider than it must be


def test_the_digest_counts_as_the_records_do(tmp_path: Path) -> None:
    first = [record(n) for n in range(640)]
    later = {"run_id": "run-2", "finished_at": NOON + timedelta(days=1)}
    second = [
        *(record(n, method="absgn", **later) for n in range(640, 700)),
        *(failed(n, ErrorCode.EMPTY, **later) for n in range(700, 703)),
        failed(703, ErrorCode.CORRUPT, **later),
    ]
    write_records(tmp_path, first, second)
    found = digested(tmp_path)
    assert (found.tally.ok, dict(found.tally.failed_by_code)) == (700, {"empty": 3, "corrupt": 1})
    assert {name: m.tally.ok for name, m in found.methods.items()} == {
        "classical": 640,
        "absgn": 60,
    }
    classical = found.methods["classical"]
    assert classical.before.sum() == classical.after.sum() == 640
    assert classical.luminance[0] == pytest.approx(sum(n % 50 / 100 for n in range(640)))
    assert [total / 640 for total in classical.stages_ms] == [1, 2, 3, 4, 5]
    assert found.light.count.sum() == 644  # the network has no light
    assert found.light.mean.tolist()[:11] == [200.0 + n % 10 for n in range(11)]
    assert found.last_run is not None
    assert (found.last_run.run_id, found.last_run.images, found.last_run.failed) == ("run-2", 64, 4)
    assert found.pace.count.sum() == 64
    assert [image.input for image in found.failures["empty"]] == [
        f"{n:07d}.jpg" for n in range(700, 703)
    ]


def digested(folder: Path) -> Digest:
    storage = open_storage(Location.parse(str(folder)))
    return digest(storage, OutputState.load(storage).record_files)


@pytest.mark.parametrize("batches", [2, 3, 40, 1000])
def test_batches_are_counted_in_whole_numbers(batches: int) -> None:
    numbers = np.arange(7, 7 + batches)
    curve = charts.light(Bins(256).added(numbers, np.full(batches, 200.0)))
    labels = re.findall(r">([^<>]*)</text>", curve)
    along = labels[: labels.index("batch")]
    assert along
    assert all(label.isdigit() for label in along)


def test_selections_do_not_depend_on_the_files(tmp_path: Path) -> None:
    records = [record(n) for n in range(500)]
    found = []
    for name, files in (("one", [records]), ("many", [records[n::7] for n in range(7)])):
        write_records(tmp_path / name, *files)
        found.append(digested(tmp_path / name).selections.reasons)
    assert found[0] == found[1]
    numbers = {
        reason: [int(image[:7]) for image, why in found[0].items() if reason in why]
        for reason in ("sample", "darkest", "changed most", "became darker")
    }
    assert {reason: len(images) for reason, images in numbers.items()} == {
        "sample": 12,
        "darkest": 4,
        "changed most": 4,
        "became darker": 0,
    }
    assert all(n % 50 == 0 for n in numbers["darkest"])
    assert all(n % 50 == 0 or n % 25 - n % 50 == 0 for n in numbers["changed most"])


def test_a_run_makes_it_and_an_idle_rerun_leaves_it(tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 6)
    config = JobConfig(input=str(tmp_path / "in"), workers=0, progress="off")
    run(config)
    output = tmp_path / "in-enhanced"
    page = page_of(output)
    for path in images:
        assert page.count(f"{path.relative_to(tmp_path / 'in')}, before") == 1
    assert page.count("data:image/webp;base64,") >= 12
    made = (output / "report.html").stat().st_mtime_ns
    run(config)
    assert (output / "report.html").stat().st_mtime_ns == made
    images[0].write_bytes(b"broken")
    run(config)
    assert (output / "report.html").stat().st_mtime_ns > made
    assert "<code>corrupt</code>" in page_of(output)
    (output / "report.html").unlink()
    run(config)
    assert page_of(output)


def test_trouble_with_it_does_not_change_how_the_run_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "the output"
    write_images(tmp_path / "in", 2)
    (out / "report.html").mkdir(parents=True)
    (out / "report.html/not a report").touch()
    done = batchlight_here("run", "--input", tmp_path / "in", "--output", out, "--workers", 0)
    assert done.returncode == 0
    assert "could not write the report" in caplog.text
    assert f"; this creates it: batchlight report '{out}'" in caplog.text
    assert len(rows(out)) == 2


def test_the_command_makes_it_again(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 2)
    batchlight_here("run", "--input", tmp_path / "in", "--workers", 0)
    page = tmp_path / "in-enhanced/report.html"
    before = page.read_bytes()
    page.unlink()
    done = batchlight_here("report", tmp_path / "in-enhanced", "--input", tmp_path / "in")
    assert (done.returncode, done.stdout) == (0, f"the report is {page}\n")
    assert page.read_bytes() == before
    assert batchlight_here("report", tmp_path / "in-enhanced").returncode == 0
    told = "the original is not shown: &#39;batchlight report OUTPUT --input URI&#39; shows it"
    assert told in page.read_text()
    assert batchlight_here("report", tmp_path / "in").returncode == 2


def test_a_folder_in_its_place_is_told_of(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 1)
    batchlight_here("run", "--input", tmp_path / "in", "--workers", 0)
    page = tmp_path / "in-enhanced/report.html"
    page.unlink()
    page.mkdir()
    done = batchlight_here("report", tmp_path / "in-enhanced")
    message = (
        f"error: cannot use report.html of the output: cannot write {page}: is a directory; "
        "fix this, or choose another --output"
    )
    assert (done.returncode, done.stderr.strip()) == (1, message)


def test_names_are_escaped(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in/image.jpg"), dark_image(1))
    (tmp_path / "in/image.jpg").rename(tmp_path / "in" / HOSTILE)
    (tmp_path / "in" / ("empty" + HOSTILE)).touch()
    run(JobConfig(input=str(tmp_path / "in"), workers=0, progress="off", max_failures="9"))
    page = page_of(tmp_path / "in-enhanced")
    assert "<img src=x" not in page
    assert html.escape(HOSTILE, quote=False).split("&quot;")[0][:30] in page


def test_images_of_a_list_are_found_wherever_they_are(tmp_path: Path) -> None:
    [image] = write_images(tmp_path / "elsewhere", 1)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/list.txt").write_text(f"{image}\n")
    run(
        JobConfig(
            input=str(tmp_path / "lists/list.txt"),
            output=str(tmp_path / "out"),
            workers=0,
            progress="off",
        )
    )
    assert page_of(tmp_path / "out").count("data:image/webp") >= 2


def test_images_that_are_gone_or_changed_are_told(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "in", 3)
    run(JobConfig(input=str(tmp_path / "in"), workers=0, progress="off"))
    output = tmp_path / "in-enhanced"
    paths[0].unlink()
    paths[1].write_bytes(paths[2].read_bytes())
    (output / "classical" / paths[2].relative_to(tmp_path / "in")).write_bytes(b"no image")
    page = report(output, tmp_path / "in")
    for told in (
        "the original is no longer there",
        "the original has changed since",
        "the result has changed since",
    ):
        assert told in page


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_a_picture_is_small_upright_and_bare(tmp_path: Path, kind: str) -> None:
    pixels = dark_image(1, 600, 1200, dtype=np.uint16)
    path = tmp_path / f"image.{kind}"
    cv2.imwrite(str(path), pixels)
    picture = make_picture(path.read_bytes())
    assert (picture.width, picture.height) == (SIDE, SIDE // 2)
    data = base64.b64decode(picture.uri.partition(",")[2])
    small = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert small is not None
    wanted = cv2.resize(pixels >> 8, (SIDE, SIDE // 2), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(float) - wanted).mean() < 3


def test_a_picture_is_turned_and_says_nothing_of_the_camera(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    exif[0x010F] = "a secret camera"
    path = tmp_path / "image.jpg"
    Image.fromarray(dark_image(1, 300, 900)).save(path, exif=exif)
    picture = make_picture(path.read_bytes())
    assert (picture.width, picture.height) == (SIDE // 3, SIDE)
    assert b"secret" not in base64.b64decode(picture.uri.partition(",")[2])


def test_noise_has_few_bytes_too() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (960, 960, 3), np.uint8)
    picture = make_picture(bytes(cv2.imencode(".png", noise)[1]))
    assert len(base64.b64decode(picture.uri.partition(",")[2])) <= BYTES_AT_MOST


@pytest.mark.nightly  # in every run: the limit of one picture, above
def test_it_is_small_for_any_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the largest pictures there can be, and more failures than can be listed."""
    # Noise takes long to encode, and the page that counts is the one at the end.
    monkeypatch.setattr("batchlight.report.write_report", lambda *_: None)
    noise = np.random.default_rng(1)
    (tmp_path / "in").mkdir()
    for number in range(20):
        image = noise.integers(0, 200, (SIDE, SIDE, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"in/{number:02d}.jpg"), image)
    run(JobConfig(input=str(tmp_path / "in"), workers=0, progress="off"))
    output = tmp_path / "in-enhanced"
    many = [failed(n * 500 + i, code) for n, code in enumerate(ErrorCode) for i in range(500)]
    others = [Record(**row | {"method": "absgn"}) for row in rows(output)]
    write_records(output, others, many)
    page = report(output, tmp_path / "in")
    assert len(page.encode()) < LARGEST
    assert page.count("data:image/webp") >= 24
    assert page.count("<summary>") == 1 + len(ErrorCode)  # and how it ended
    assert page.count("more, which") == len(ErrorCode)


def test_it_says_first_how_the_run_ended_and_with_what(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 2)
    (tmp_path / "in/empty.jpg").touch()
    config = JobConfig(
        input=str(tmp_path / "in"), workers=0, progress="off", strength=0.5, max_failures="50%"
    )
    run(config)
    page = page_of(tmp_path / "in-enhanced")
    told = page[page.index("How it ended") : page.index("Totals</h2>")]
    for text in (
        "exit 0",
        "1 of 3 images failed",
        "<code>--strength</code></dt><dd>0.5",
        "<code>--max-failures</code></dt><dd>50%",
        f"batchlight run --input {tmp_path}/in --strength 0.5 --workers 0 --max-failures 50%",
        "<code>--target-luminance</code></dt><dd>0.45",
        "batchlight 0.1.0, python 3",
    ):
        assert text in told, text


def test_images_that_failed_are_seen_as_far_as_possible(tmp_path: Path) -> None:
    [whole] = write_images(tmp_path / "in", 1, height=200, width=300)
    (tmp_path / "in/cut short.jpg").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (tmp_path / "in/text.png").write_text("no image")
    Image.new("CMYK", (60, 40), (10, 20, 30, 40)).save(tmp_path / "in/print.jpg")
    run(JobConfig(input=str(tmp_path / "in"), workers=0, progress="off"))
    page = page_of(tmp_path / "in-enhanced")
    told = page[page.index('<h2 id="failures">') : page.index('<h2 id="folders">')]
    seen = re.findall(r'src="data:image/webp[^>]* alt="([^"]*), which failed"', told)
    assert sorted(seen) == ["cut short.jpg", "print.jpg"]
    for code in ("corrupt", "unsupported"):
        assert html.escape(meaning(code)) in told
    assert 'href="../in/cut%20short.jpg"' in told


def test_every_code_has_a_meaning() -> None:
    assert all(meaning(code) and what_next(code) for code in ErrorCode)
    assert meaning("of a later version") == ""


@given(
    st.lists(
        st.lists(st.sampled_from(["a/", "a/b/", "a/c/", "d/e/f/", "g/", ""]), max_size=8),
        max_size=4,
    ),
    st.integers(1, 6),
)
def test_folders_are_few_and_count_everything(groups: list[list[str]], most: int) -> None:
    folders = Folders(most)
    other = Folders(most)
    for group, others in zip(groups, reversed(groups), strict=True):
        folders, other = (
            f.added(as_table(record(n, input=f"{folder}{n}.jpg") for n, folder in enumerate(g)))
            for f, g in ((folders, group), (other, others))
        )
    assert folders.counts == other.counts
    assert len({folder for folder, _ in folders.counts}) <= most
    assert sum(count.images for count in folders.counts.values()) == sum(map(len, groups))
    if most == 6:
        wanted = Counter(folder for group in groups for folder in group)
        assert {folder: c.images for (folder, _), c in folders.counts.items()} == wanted


def test_a_parquet_file_is_one_folder_and_a_tar_has_its_own() -> None:
    rows = [
        record(1, input="a.parquet/0/image", container="a.parquet"),
        record(2, input="a.parquet/1/image", container="a.parquet"),
        record(3, input="sub/b.parquet", container="sub/b.parquet"),
        record(4, input="c.tar/x/1.jpg", container="c.tar"),
        record(5, input="d/1.jpg"),
    ]
    counts = Folders().added(as_table(rows)).counts
    found = {folder: count.images for (folder, _), count in counts.items()}
    assert found == {"a.parquet/": 2, "sub/": 1, "c.tar/x/": 1, "d/": 1}


def test_what_it_keeps_does_not_grow_with_the_records(tmp_path: Path) -> None:
    """Of many rows, whose files are as large as those that a large run leaves."""
    kept = []
    for files in (2, 8):
        out = tmp_path / str(files)
        write_records(out, [record(n, input=f"{n % 5000}/{n}.jpg") for n in range(2000)])
        [path] = (out / "metadata").iterdir()
        for number in range(1, files):
            copy(
                path, path.parent / Path(metadata_path(BatchRange(100 + number, 100 + number))).name
            )
        tracemalloc.start()
        found = digested(out)
        kept.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found.tally.ok == 2000 * files
    assert kept[1] < 1.2 * kept[0]


def test_it_loads_nothing_from_anywhere(tmp_path: Path) -> None:
    write_records(tmp_path, [record(n) for n in range(10)])
    page = report(tmp_path)
    assert not re.findall(r"""src="(?!data:)|<link|<(?!a )[^>]* href=""", page)
    assert not re.findall(r"""href="(?!#|\./)""", page)
    assert not re.findall(r"url\((?!#)|@import", page)
    assert "default-src 'none'" in page
