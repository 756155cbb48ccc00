"""Images that are not dark: copied, left out, or enhanced like all others."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import batchlight
from batchlight.config import METHODS, JobConfig, Method
from batchlight.driver.dry_run import dry_run
from batchlight.driver.repair import RepairOptions, repair
from batchlight.driver.verify import verify
from batchlight.errors import ErrorCode, ImageError, UsageError
from batchlight.images import codec
from batchlight.images.measures import measure
from batchlight.images.pixels import Pixels
from batchlight.worker.comparing import Problem
from batchlight.worker.network_client import Feeder
from tests.support.helpers import (
    ALL_DARK,
    Row,
    batchlight_here,
    bright_image,
    dark_image,
    outcomes,
    read_image,
    rows,
    stable_rows,
    tree,
    write_images,
)

BOTH = METHODS
DARK = 4
OUTPUT_COLUMNS = (
    *("output", "output_bytes", "output_sha256", "format"),
    *("luminance_after", "clipped_fraction"),
)


def run(folder: Path, **options: Any) -> batchlight.Summary:
    """In this process, into ``out`` beside the input."""
    settings: dict[str, Any] = {
        "output": str(folder.parent / "out"),
        "workers": 0,
        "batch_size": 3,
        "progress": "off",
        "device": "cpu",
    }
    return batchlight.run(JobConfig(input=str(folder), **{**settings, **options}))


def troubles(out: Path, *, mend: bool = False) -> dict[str, str]:
    found: list[Problem] = []
    if mend:
        options = RepairOptions(input=str(out.parent / "in"), workers=0)
        assert repair(str(out), options, on_problem=found.append, say=print).sound
    else:
        verify(str(out), on_problem=found.append)
    return {problem.path: problem.trouble for problem in found}


def write(path: Path, image: Pixels) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path.read_bytes()


@pytest.fixture(autouse=True)
def quick_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchlight.absgn.inference.MEASURED_SIDE", 16)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Some dark ones, and some that are not: of 8 and 16 bit, colour and gray, with alpha."""
    write_images(tmp_path / "in", DARK, height=24, width=32)
    write(tmp_path / "in/a/bright.jpg", bright_image(1))
    write(tmp_path / "in/b/bright.png", bright_image(2, dtype=np.uint16))
    write(tmp_path / "in/b/gray.webp", bright_image(3, channels=1))
    alpha = bright_image(4, channels=4)
    alpha[..., 3] = 100
    write(tmp_path / "in/clear.png", alpha)
    return tmp_path / "in"


BRIGHT = ("a/bright.jpg", "b/bright.png", "b/gray.webp", "clear.png")


@pytest.mark.parametrize("methods", [("classical",), ("absgn",), BOTH])
def test_they_are_copied_and_no_method_sees_them(
    photos: Path, monkeypatch: pytest.MonkeyPatch, methods: tuple[Method, ...]
) -> None:
    seen: list[tuple[int, ...]] = []
    put = Feeder.put

    def watched(self: Feeder[Any], item: Any, pixels: Pixels) -> Iterator[tuple[Any, Any]]:
        seen.append(pixels.shape[:2])
        return put(self, item, pixels)

    monkeypatch.setattr(Feeder, "put", watched)
    summary = run(photos, method=methods)
    count = len(methods)
    assert (summary.exit_code, summary.ok, summary.skipped, summary.failed, summary.missing) == (
        *(0, DARK * count, len(BRIGHT) * count),
        *(0, 0),
    )
    assert seen == [(24, 32)] * (DARK if "absgn" in methods else 0)
    out = photos.parent / "out"
    assert json.loads((out / "summary.json").read_text())["skipped"] == len(BRIGHT) * count
    found = [row for row in rows(out) if row["status"] == "skipped"]
    assert [row["input"] for row in found] == sorted([*BRIGHT] * count)
    for row in found:
        data = (photos / row["input"]).read_bytes()
        assert row["output"] == f"{row['method']}/{row['input']}"
        assert (out / row["output"]).read_bytes() == data
        assert row["output_sha256"] == row["input_sha256"] == hashlib.sha256(data).hexdigest()
        assert row["output_bytes"] == len(data)
        assert (row["error_code"], row["error"]) == (None, None)
        assert (row["omega"], row["mean_transmission"]) == (None, None)
        assert row["luminance_after"] == pytest.approx(row["luminance_before"])
        assert row["luminance_before"] >= 0.45
        pixels = read_image(photos / row["input"])
        colour = pixels[..., :3] if pixels.ndim == 3 else pixels
        assert row["clipped_fraction"] == pytest.approx(measure(np.ascontiguousarray(colour))[1])
        assert None not in (row["batch_atmospheric_light"], row["atmospheric_light"])
    assert all(
        (row["omega"] is None) == (row["method"] == "absgn")
        for row in rows(out)
        if row["status"] == "ok"
    )
    assert troubles(out) == {}


@pytest.mark.parametrize("not_dark", ["copy", "leave-out"])
def test_they_count_for_the_light_of_their_batch(photos: Path, not_dark: str) -> None:
    """Whatever becomes of them, dark images come out the same."""
    run(photos, **ALL_DARK, output=str(photos.parent / "all"))
    run(photos, not_dark=not_dark)
    wanted = {row["input"]: row for row in rows(photos.parent / "all")}
    assert {row["status"] for row in wanted.values()} == {"ok"}
    for row in rows(photos.parent / "out"):
        light = wanted[row["input"]]["batch_atmospheric_light"]
        assert row["batch_atmospheric_light"] == light
        if row["status"] == "ok":
            assert row["output_sha256"] == wanted[row["input"]]["output_sha256"]


def test_left_out_they_have_no_output_and_miss_none(photos: Path) -> None:
    summary = run(photos, not_dark="leave-out", method=BOTH)
    out = photos.parent / "out"
    assert (summary.exit_code, summary.ok, summary.skipped) == (0, 2 * DARK, 2 * len(BRIGHT))
    assert not {*BRIGHT} & {*tree(out / "classical"), *tree(out / "absgn")}
    for row in rows(out):
        if row["status"] == "skipped":
            assert all(row[name] is None for name in OUTPUT_COLUMNS)
            assert row["luminance_before"] > 0.45
    assert troubles(out) == troubles(out, mend=True) == {}
    assert run(photos, not_dark="leave-out", method=BOTH).done_now == 0


@pytest.mark.parametrize("target", [0.2, 0.9])
def test_the_target_says_who_is_dark(photos: Path, target: float) -> None:
    run(photos, target_luminance=target)
    found = rows(photos.parent / "out")
    assert len({row["status"] for row in found}) == (2 if target < 0.5 else 1)
    for row in found:
        assert (row["status"] == "skipped") == (row["luminance_before"] >= target)


def test_another_format_is_written_with_the_pixels_as_they_are(photos: Path) -> None:
    shutil.move(photos / "b/bright.png", photos / "b/named.jpg")  # but it is a PNG
    summary = run(photos, format="png")
    assert (summary.ok, summary.skipped) == (DARK, len(BRIGHT))
    out = photos.parent / "out/classical"
    for name in ("a/bright.jpg", "b/gray.webp"):
        copy = out / Path(name).with_suffix(".png")
        assert copy.read_bytes().startswith(b"\x89PNG")
        assert np.array_equal(read_image(copy), read_image(photos / name))
    assert (out / "clear.png").read_bytes() == (photos / "clear.png").read_bytes()
    assert (out / "b/named.png").read_bytes() == (photos / "b/named.jpg").read_bytes()
    assert {row["format"] for row in rows(photos.parent / "out")} == {"png"}


def test_a_format_that_cannot_hold_one_is_said(photos: Path) -> None:
    summary = run(photos, format="jpeg")
    found = outcomes(photos.parent / "out")
    unsupported = Row("failed", "unsupported")
    assert (found["clear.png"], found["b/bright.png"]) == (unsupported, unsupported)
    assert (summary.ok, summary.skipped, summary.failed) == (DARK, 2, 2)
    failed = [row for row in rows(photos.parent / "out") if row["status"] == "failed"]
    assert all(row["luminance_after"] > 0.45 for row in failed)


def test_no_encoder_has_a_say_in_a_copy(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise ImageError(ErrorCode.UNSUPPORTED, "it cannot be written")

    monkeypatch.setattr(codec, "encode", refuse)
    summary = run(photos)
    assert (summary.skipped, summary.failed_by_code) == (len(BRIGHT), {"unsupported": DARK})
    assert sorted(tree(photos.parent / "out/classical")) == sorted(BRIGHT)


def test_a_copy_has_to_decode(photos: Path) -> None:
    whole = (photos / "a/bright.jpg").read_bytes()
    (photos / "a/bright.jpg").write_bytes(whole[: len(whole) // 3])
    write(photos / "large.png", bright_image(5, 90, 90))
    (photos / "none.jpg").touch()
    run(photos, max_pixels=8000)
    found = outcomes(photos.parent / "out")
    for name, code in (("a/bright.jpg", "corrupt"), ("large.png", "too_large")):
        assert found[name] == Row("failed", code)
    assert found["none.jpg"] == Row("failed", "empty")


def test_strength_changes_no_copy(photos: Path) -> None:
    run(photos, strength=0.3)
    out = tree(photos.parent / "out/classical")
    assert all(out[name] == (photos / name).read_bytes() for name in BRIGHT)


def state(out: Path) -> tuple[dict[str, bytes], dict[str, bytes], list[dict[str, Any]]]:
    return tree(out / "classical"), tree(out / "absgn"), stable_rows(out)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            {"method": BOTH, "gpu_workers": 1, "strength": 0.5},
            marks=pytest.mark.nightly,
            id="copy",
        ),
        pytest.param({"not_dark": "leave-out"}, id="leave-out"),
    ],
)
def test_workers_do_not_matter(photos: Path, shared_ray: str, options: dict[str, Any]) -> None:
    outputs = [photos.parent / f"out{workers}" for workers in (0, 2)]
    for workers, out in zip((0, 2), outputs, strict=True):
        run(photos, output=str(out), workers=workers, **options)
    assert state(outputs[0]) == state(outputs[1])
    assert any(row["status"] == "skipped" for row in rows(outputs[0]))


@pytest.mark.parametrize("not_dark", ["copy", "leave-out"])
def test_a_rerun_does_what_became_bright_or_dark_and_nothing_else(
    photos: Path, not_dark: str
) -> None:
    run(photos, not_dark=not_dark)
    out = photos.parent / "out"
    where: dict[str, Any] = {"input": str(photos), "output": str(out), "not_dark": not_dark}
    plan = dry_run(JobConfig(**where, batch_size=3))
    assert (plan.todo, plan.unchanged) == (0, DARK + len(BRIGHT))
    before = rows(out)
    [first, second, *_] = [row["input"] for row in before if row["status"] == "ok"]
    data = write(photos / first, bright_image(11))
    write(photos / "a/bright.jpg", dark_image(12))
    (photos / second).unlink()
    (photos / "b/gray.webp").unlink()
    summary = run(photos, not_dark=not_dark)
    assert (summary.done_now, summary.gone) == (2, 2)
    assert (summary.ok, summary.skipped) == (DARK - 1, len(BRIGHT) - 1)
    found = outcomes(out)
    assert (found[first].status, found["a/bright.jpg"].status) == ("skipped", "ok")
    images = tree(out / "classical")
    assert images.get(first) == (data if not_dark == "copy" else None)
    assert images["a/bright.jpg"] != (photos / "a/bright.jpg").read_bytes()
    unchanged = [row for row in before if row["input"] not in (first, "a/bright.jpg")]
    assert [row for row in rows(out) if row["input"] not in (first, "a/bright.jpg")] == unchanged
    assert run(photos, not_dark=not_dark, retry_failed=True).done_now == 0


def test_another_choice_is_refused_and_overwrites(photos: Path) -> None:
    run(photos)
    with pytest.raises(UsageError, match="not-dark copy -> leave-out"):
        run(photos, not_dark="leave-out")
    run(photos, not_dark="leave-out", overwrite=True)
    assert not {*BRIGHT} & {*tree(photos.parent / "out/classical")}
    assert troubles(photos.parent / "out") == {}


def alter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize("not_dark", ["copy", "enhance"])
def test_a_damaged_copy_is_found_and_made_again(photos: Path, not_dark: str) -> None:
    out = photos.parent / "out"
    run(photos, not_dark=not_dark, method=BOTH)
    calm = state(out)
    (out / "classical/a/bright.jpg").unlink()
    alter(out / "absgn/b/bright.png")
    expected = {"classical/a/bright.jpg": "missing", "absgn/b/bright.png": "altered"}
    assert troubles(out) == expected
    assert troubles(out, mend=True) == expected
    assert state(out) == calm
    assert troubles(out) == {}


@pytest.mark.parametrize("not_dark", ["copy", "leave-out"])
@pytest.mark.parametrize("damage", [Path.unlink, alter])
def test_lost_records_of_skipped_images_are_made_again(
    photos: Path, not_dark: str, damage: Callable[[Path], None]
) -> None:
    out = photos.parent / "out"
    run(photos, not_dark=not_dark)
    calm = state(out)
    [records] = (out / "metadata").iterdir()
    damage(records)
    assert set(troubles(out, mend=True).values()) == {"damaged"}
    assert state(out) == calm


def test_the_terminal_and_the_page_say_so(photos: Path) -> None:
    done = batchlight_here("run", "--input", photos, "--workers", 0, "--progress", "off")
    assert f"skipped, not dark  {len(BRIGHT)}\n" in done.stdout
    out = photos.parent / "in-enhanced"
    page = (out / "report.html").read_text()
    assert f"<dt>left unchanged, not dark</dt><dd>{len(BRIGHT)}</dd>" in page
    assert page.count("not dark, copied") == len(BRIGHT)
    assert batchlight_here("failures", out).stdout == ""
    shown = batchlight_here("plan", "--input", photos).stdout
    assert f"done before  {DARK + len(BRIGHT)}\n" in shown


def test_all_of_them(tmp_path: Path) -> None:
    write(tmp_path / "in/a.png", bright_image(1))
    for not_dark in ("copy", "leave-out"):
        out = tmp_path / not_dark
        summary = run(tmp_path / "in", not_dark=not_dark, output=str(out), method=BOTH)
        assert (summary.exit_code, summary.reason) == (0, "all images are done")
        assert (summary.ok, summary.skipped) == (0, 2)
        assert '<th scope="col" class="value">not dark</th>' in (out / "report.html").read_text()


KINDS: dict[str, bytes] = {
    "ok": bytes(cv2.imencode(".png", dark_image(1, 8, 9))[1]),
    "skipped": bytes(cv2.imencode(".png", bright_image(1, 8, 9))[1]),
    "failed": b"no image",
}


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(
    first=st.lists(st.sampled_from(sorted(KINDS)), max_size=6),
    second=st.dictionaries(st.integers(0, 7), st.sampled_from([*sorted(KINDS), "gone"])),
    not_dark=st.sampled_from(["copy", "leave-out"]),
    limit=st.none() | st.integers(1, 8),
)
def test_all_that_is_listed_is_counted_once(
    tmp_path_factory: pytest.TempPathFactory,
    first: list[str],
    second: dict[int, str],
    not_dark: str,
    limit: int | None,
) -> None:
    """Inputs x methods = ok + skipped + failed, and a rerun counts what is there now."""
    photos = tmp_path_factory.mktemp("counts") / "in"
    photos.mkdir()
    there: dict[int, str] = {}
    for wanted, most in ((dict(enumerate(first)), None), (second, limit)):
        for number, kind in wanted.items():
            path = photos / f"{number}.png"
            if kind == "gone":
                path.unlink(missing_ok=True)
                there.pop(number, None)
            elif there.get(number) != kind:
                path.write_bytes(KINDS[kind])
                there[number] = kind
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("batchlight.report.write_report", lambda *_: None)
            summary = run(
                photos, not_dark=not_dark, limit=most, max_failures="100%", allow_empty=True
            )
        listed = [there[number] for number in sorted(there)[:most]]
        assert summary.inputs == len(listed) == summary.ok + summary.skipped + summary.failed
        for kind, count in (("ok", summary.ok), ("skipped", summary.skipped)):
            assert count == listed.count(kind)
        assert (summary.missing, summary.exit_code) == (0, 0)
        assert summary.done_now + summary.done_before == len(listed)


def test_a_copy_has_every_byte_of_the_file(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(bright_image(1)).save(buffer, "jpeg", exif=b"Exif\x00\x00MM\x00*", comment=b"x")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jpg").write_bytes(buffer.getvalue() + b"trailing bytes of a camera")
    os.utime(tmp_path / "in/a.jpg", (1_500_000_000, 1_400_000_000.123456))
    run(tmp_path / "in")
    [(name, data)] = tree(tmp_path / "out/classical").items()
    assert (name, data) == ("a.jpg", (tmp_path / "in/a.jpg").read_bytes())
    assert (tmp_path / "out/classical/a.jpg").stat().st_mtime == pytest.approx(1_400_000_000.123456)
