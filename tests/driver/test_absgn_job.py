"""Whole runs with ABSGN: both methods at once, added methods, refusals, killed processes."""

from __future__ import annotations

import asyncio
import hashlib
import pickle
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

import batchlight
from batchlight.absgn.inference import Enhancer
from batchlight.absgn.loading import Model, choose_model, weights_of
from batchlight.absgn.result import Restored
from batchlight.absgn.start import ClassicalStart
from batchlight.absgn.weights import dump_tensors, dump_weights, parse_weights
from batchlight.config import METHODS, JobConfig, Method
from batchlight.driver.batches import BatchRunner
from batchlight.driver.network import fingerprints_of, serve
from batchlight.engine import InProcessEngine, WorkerDied
from batchlight.engine.base import Answer
from batchlight.errors import BatchlightError, ErrorCode, UsageError
from batchlight.host.turns import in_turns
from batchlight.images import codec
from batchlight.images.image import Decoded
from batchlight.output.inputs import Batch
from batchlight.output.layout import part_path
from batchlight.planning.listing import open_inputs
from batchlight.storage import EVERYONE, Location, open_storage
from batchlight.storage.local import LocalStorage
from batchlight.worker.context import BatchContext
from tests.support import helpers
from tests.support.helpers import (
    ALL_DARK,
    COMMAND,
    dark_image,
    has_parts,
    locked,
    processes_below,
    read_image,
    rows,
    stable_rows,
    tree,
    write_images,
)
from tests.support.helpers import batchlight as command

BOTH = METHODS
MODELS = Path(str(resources.files("batchlight.absgn") / "models"))
SMALL = MODELS / "absgn-small.safetensors"
ENDS_WITHIN_S = 90.0
"""Whatever has nothing to wait for."""


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    """The network sets them for its whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def quick_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchlight.absgn.inference.MEASURED_SIDE", 16)


def run(folder: Path, **options: Any) -> batchlight.Summary:
    """In this process, into ``out`` beside the input."""
    settings: dict[str, Any] = {
        "output": str(folder.parent / "out"),
        "workers": 0,
        "progress": "off",
        "method": BOTH,
        "device": "cpu",
    }
    return batchlight.run(JobConfig(input=str(folder), **{**settings, **options}))


def by_method(output: Path, method: str) -> list[dict[str, Any]]:
    return [row for row in rows(output) if row["method"] == method]


def state(output: Path) -> tuple[dict[str, bytes], dict[str, bytes], list[dict[str, Any]]]:
    """All that two equal outputs agree in."""
    return tree(output / "classical"), tree(output / "absgn"), stable_rows(output)


def files(output: Path) -> dict[Path, int]:
    """Every image with the time of its last change."""
    paths = [p for method in BOTH for p in (output / method).rglob("*") if p.is_file()]
    return {path: path.stat().st_mtime_ns for path in paths}


def one_sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The error of a command that failed, which is all that it says, but for what it was doing."""
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, done.stderr
    return errors[0]


def written(output: Path) -> list[str]:
    """All that is in an output but the lock, which comes first and is free again."""
    return [name for name in tree(output) if not name.startswith("_batchlight/locks/")]


def ended(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """A process that ends soon; if it does not, it is told to, so that its Ray ends with it."""
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            out, errors = process.communicate(timeout=ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=ENDS_WITHIN_S)
            finally:
                process.kill()
            pytest.fail("it waits for ever")
    return subprocess.CompletedProcess(arguments, process.returncode, out, errors)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(tmp_path / "in", 4, height=24, width=32)
    return tmp_path / "in"


# Both methods in one run


def test_both_methods_have_their_outputs_and_rows(photos: Path) -> None:
    summary = run(photos, batch_size=3)
    out = photos.parent / "out"
    assert (summary.exit_code, summary.inputs, summary.ok, summary.missing) == (0, 4, 8, 0)
    names = sorted(tree(photos))
    assert sorted(tree(out / "classical")) == sorted(tree(out / "absgn")) == names
    found = rows(out)
    keys = [(row["input"], row["method"]) for row in found]
    assert keys == [(name, method) for name in names for method in ("absgn", "classical")]
    for row in found:
        before, after = read_image(photos / row["input"]), read_image(out / row["output"])
        assert after.mean() > before.mean()
        assert row["output"] == f"{row['method']}/{row['input']}"
        assert row["enhance_ms"] > 0
        assert (row["mean_transmission"] is None) == (row["method"] == "absgn")
        assert row["output_bytes"] == (out / row["output"]).stat().st_size
    for absgn, classical in zip(found[::2], found[1::2], strict=True):
        assert absgn["output_sha256"] != classical["output_sha256"]
        shared = ("batch", "input_sha256", "atmospheric_light", "batch_atmospheric_light")
        for name in (*shared, "luminance_before", "width", "height", "read_ms", "decode_ms"):
            assert absgn[name] is not None
            assert absgn[name] == classical[name], name


def test_pixels_are_those_of_the_network_alone(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 3, ".png", height=24, width=32)
    run(tmp_path / "in", method="absgn")
    network = Enhancer(SMALL.read_bytes(), "cpu", "fp32")
    for name in tree(tmp_path / "in"):
        alone = network.enhance([read_image(tmp_path / "in" / name)])[0]
        assert np.array_equal(read_image(tmp_path / "out/absgn" / name), alone.get())


@pytest.mark.parametrize("light", ["batch", "image"])
def test_each_image_is_read_and_decoded_once(
    photos: Path, monkeypatch: pytest.MonkeyPatch, light: str
) -> None:
    reads: Counter[str] = Counter()
    decodes = 0
    read, decode = LocalStorage.read, codec.decode

    def counted_read(self: LocalStorage, path: str) -> bytes:
        reads[path] += path.endswith(".jpg")
        return read(self, path)

    def counted_decode(*arguments: Any) -> Decoded:
        nonlocal decodes
        decodes += 1
        return decode(*arguments)

    monkeypatch.setattr(LocalStorage, "read", counted_read)
    monkeypatch.setattr(codec, "decode", counted_decode)
    monkeypatch.setattr(
        "batchlight.report.write_report", lambda output: None
    )  # which reads some too
    run(photos, batch_size=3, atmospheric_light=light)
    assert +reads == Counter(tree(photos).keys())
    assert decodes == 4


def test_memory_budget_changes_nothing(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(photos)
    calm = state(photos.parent / "out")
    for budget in (0, 1500):
        monkeypatch.setattr("batchlight.worker.pipeline.KEEP_BYTES", budget)
        run(photos, output=str(photos.parent / f"out{budget}"))
        assert state(photos.parent / f"out{budget}") == calm


KINDS: dict[str, dict[str, Any]] = {
    "colour.png": {},
    "deep.png": {"dtype": np.uint16},
    "gray.png": {"channels": 1},
    "gray.jpg": {"channels": 1},
    "deep-gray.png": {"channels": 1, "dtype": np.uint16},
    "deep.tiff": {"dtype": np.uint16},
    "alpha.png": {"channels": 4},
    "deep-alpha.png": {"channels": 4, "dtype": np.uint16},
    "alpha.webp": {"channels": 4},
}


def test_every_kind_stays_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number, (name, kind) in enumerate(KINDS.items()):
        image = dark_image(number, height=25, width=39, **kind)
        settings = [cv2.IMWRITE_WEBP_QUALITY, 101] if name.endswith("webp") else []
        assert cv2.imwrite(str(tmp_path / "in" / name), image, settings)
    summary = run(tmp_path / "in")
    assert (summary.ok, summary.failed_by_code) == (2 * len(KINDS), {})
    for row in rows(tmp_path / "out"):
        before = read_image(tmp_path / "in" / row["input"])
        after = read_image(tmp_path / "out" / row["output"])
        assert (after.shape, after.dtype) == (before.shape, before.dtype), row["output"]
        assert row["bit_depth"] == before.dtype.itemsize * 8
        if before.ndim == 3 and before.shape[2] == 4:
            assert np.array_equal(after[..., 3], before[..., 3])
            before, after = before[..., :3], after[..., :3]
        assert after.mean() > 1.2 * before.mean(), row["output"]


# Failures


def test_a_corrupt_image_fails_once_for_each_method(photos: Path) -> None:
    (photos / "b/bad.jpg").write_bytes(b"no image")
    summary = run(photos)
    assert (summary.exit_code, summary.failed_by_code, summary.ok) == (3, {"corrupt": 2}, 8)
    bad = [row for row in rows(photos.parent / "out") if row["input"] == "b/bad.jpg"]
    assert [row["method"] for row in bad] == ["absgn", "classical"]
    assert {(row["error_code"], row["output"]) for row in bad} == {("corrupt", None)}


def dimmer_weights(file: Path) -> str:
    """The packaged weights, but for a last convolution that gives six tenths of what it gave."""
    packaged = resources.files("batchlight.absgn") / "models/absgn-small.safetensors"
    network = parse_weights(packaged.read_bytes()).network()
    last = [module for module in network.modules() if isinstance(module, nn.Conv2d)][-1]
    for parameter in last.parameters():
        parameter.data *= 0.6
    file.write_bytes(dump_weights(network.state_dict(), {}))
    return str(file)


def test_a_darker_result_fails_for_its_method_alone(photos: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 6, (24, 32, 3))
    cv2.imwrite(str(photos / "white.png"), (250 + noise).astype(np.uint8))
    out, weights = photos.parent / "out", dimmer_weights(photos.parent / "dimmer.safetensors")
    summary = run(photos, atmospheric_light="image", weights=weights, **ALL_DARK)
    white = {row["method"]: row for row in rows(out) if row["input"] == "white.png"}
    assert white["absgn"]["error_code"] == "suspicious_output"
    assert white["absgn"]["output"] is None
    assert white["absgn"]["luminance_after"] < white["absgn"]["luminance_before"] - 0.02
    assert white["classical"]["status"] == "ok"
    assert summary.failed_by_code == {"suspicious_output": 1}
    assert not (out / "absgn/white.png").exists()
    assert (out / "classical/white.png").exists()
    again = run(photos, atmospheric_light="image", weights=weights, **ALL_DARK)
    assert again.done_now == 0  # it is permanent


def test_what_the_network_says_of_one_image_is_that_images_failure(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def some_fail(self: Enhancer, groups: Any) -> list[list[Restored]]:
        error = batchlight.errors.ImageError(ErrorCode.OUT_OF_MEMORY, "too large for it")
        if np.array_equal(groups[0][0], worst):
            return [[Restored(None, error, 1.0)]]
        return in_turns(original, (groups,))  # type: ignore[no-any-return]

    worst = ClassicalStart().before(read_image(photos / "b/0001.jpg"))
    original = partial(Enhancer.restore_groups, Enhancer(SMALL.read_bytes(), "cpu", "fp32"))
    monkeypatch.setattr(Enhancer, "restore_groups", some_fail)
    summary = run(photos)
    assert (summary.ok, summary.failed_by_code) == (7, {"out_of_memory": 1})
    failed = [row for row in rows(photos.parent / "out") if row["status"] == "failed"]
    assert [(row["input"], row["method"], row["error"]) for row in failed] == [
        ("b/0001.jpg", "absgn", "too large for it")
    ]


@dataclass(frozen=True)
class Fatal:
    """An answer of a network that dies."""

    code: ErrorCode

    def done(self) -> bool:
        return True

    def result(self) -> Any:
        raise WorkerDied(self.code)


@dataclass(frozen=True)
class Brighter:
    groups: list[list[Any]]

    def done(self) -> bool:
        return True

    def result(self) -> list[list[Restored]]:
        return [[Restored(2 * image, None, 1.0) for image in group] for group in self.groups]


@dataclass(frozen=True)
class PoisonedService:
    """A network that one image kills."""

    poison: Any
    code: ErrorCode

    def submit(self, method: str, *arguments: Any) -> Answer:
        groups = arguments[0]
        deadly = any(np.array_equal(image, self.poison) for group in groups for image in group)
        return Fatal(self.code) if deadly else Brighter(groups)


@pytest.mark.parametrize("code", [ErrorCode.CRASH, ErrorCode.TIMEOUT, ErrorCode.OUT_OF_MEMORY])
@pytest.mark.parametrize("at_once", [0, 10_000])
def test_an_image_that_kills_the_network_fails_alone(
    tmp_path: Path, code: ErrorCode, at_once: int
) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    write_images(photos, 9, height=24, width=32)
    run(photos, method="classical", batch_size=64)
    calm = stable_rows(out)

    config = JobConfig(input=str(photos), output=str(out), method=BOTH, workers=0)
    inputs = tuple(open_inputs(config).images())
    poison = inputs[4].path
    service = PoisonedService(read_image(photos / poison), code)
    other = Location.parse(str(tmp_path / "other"))
    lock = locked(open_storage(other))
    digests: dict[Method, str] = {"classical": calm[0]["fingerprint"], "absgn": "f"}
    context = BatchContext(
        config, Location.parse(str(photos)), other, "run", digests, lock, pixels_at_once=at_once
    )
    batch = Batch(0, BOTH, inputs)
    result = asyncio.run(BatchRunner(InProcessEngine(), context, service).run(batch))

    assert (result.tally.ok, result.tally.failed_by_code) == (17, ((code.value, 1),))
    assert tree(tmp_path / "other/classical") == tree(out / "classical")
    assert sorted(tree(tmp_path / "other/absgn")) == sorted({i.path for i in inputs} - {poison})
    found = pq.read_table(tmp_path / "other" / part_path(0)).to_pylist()
    classical = [{k: row[k] for k in calm[0]} for row in found if row["method"] == "classical"]
    assert classical == calm
    died = next(row for row in found if row["status"] == "failed")
    assert (died["input"], died["method"], died["error_code"]) == (poison, "absgn", code)
    assert died["attempts"] >= 3


# Later runs


def no_network(*arguments: object) -> None:
    raise AssertionError("there is nothing to do for a network")


def test_a_second_run_starts_nothing(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = photos.parent / "out"
    run(photos)
    before = (rows(out), files(out))
    monkeypatch.setattr("batchlight.driver.run.serve", no_network)
    monkeypatch.setattr("batchlight.driver.places.make_engine", no_network)
    for workers in (0, 2):
        summary = run(photos, workers=workers)
        assert (summary.exit_code, summary.done_now, summary.ok) == (0, 0, 8)
    assert (rows(out), files(out)) == before


@pytest.mark.parametrize("methods", [BOTH, ("absgn",)])
def test_a_method_that_is_added_leaves_the_other_alone(
    photos: Path, methods: tuple[str, ...]
) -> None:
    out = photos.parent / "out"
    run(photos, method="classical")
    before = (rows(out), files(out))
    summary = run(photos, method=methods)
    assert (summary.exit_code, summary.done_now, summary.ok) == (0, 4, 4 * len(methods))
    classical = {path: at for path, at in files(out).items() if "/classical/" in str(path)}
    assert (by_method(out, "classical"), classical) == before
    assert len(by_method(out, "absgn")) == len(tree(out / "absgn")) == 4
    run(photos, output=str(photos.parent / "at-once"))
    assert tree(photos.parent / "at-once/absgn") == tree(out / "absgn")


def test_what_only_the_classical_method_lacks_needs_no_network(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(photos, method="absgn")
    monkeypatch.setattr("batchlight.driver.run.serve", no_network)
    assert run(photos).done_now == 4


def test_new_images_get_both(photos: Path) -> None:
    out = photos.parent / "out"
    run(photos, method="classical")
    cv2.imwrite(str(photos / "z.jpg"), dark_image(9, 24, 32))
    assert run(photos).done_now == 4 + 2
    assert run(photos).done_now == 0
    assert Counter(row["method"] for row in rows(out)) == {"classical": 5, "absgn": 5}


class Died(BaseException):
    """Stands for the end of the process."""


def die_after_a_batch(photos: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """A run that is killed when the first of its batches is done."""
    out = photos.parent / "out"
    with monkeypatch.context() as patch:
        write = LocalStorage.create

        def create(self: LocalStorage, path: str, data: bytes, permissions: int = EVERYONE) -> Any:
            if "/parts/" in path and tree(out / "_batchlight/parts"):
                raise Died
            return write(self, path, data, permissions)

        patch.setattr(LocalStorage, "create", create)
        with pytest.raises(Died):
            run(photos, batch_size=2, **options)
    assert len(tree(out / "_batchlight/parts")) == 1
    shutil.rmtree(out / "_batchlight/locks")  # held by this process


def test_a_killed_run_goes_on(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(photos, output=str(photos.parent / "calm"), batch_size=2)
    die_after_a_batch(photos, monkeypatch)
    assert run(photos, batch_size=2).done_now == 4
    assert state(photos.parent / "out") == state(photos.parent / "calm")


def test_a_killed_run_goes_on_with_one_of_its_methods(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of the stored plan needs a network, so it may be refused in a sentence."""
    die_after_a_batch(photos, monkeypatch)
    with suppress(UsageError):
        assert run(photos, batch_size=2, method="classical").ok == 4
    assert run(photos, batch_size=2).ok == 8
    run(photos, output=str(photos.parent / "calm"), batch_size=2)
    out, calm = (photos.parent / name for name in ("out", "calm"))
    assert tree(out / "classical") == tree(calm / "classical")
    assert tree(out / "absgn") == tree(calm / "absgn")


# What may change, and what not


def other_weights(folder: Path) -> Path:
    """A network that differs, but not so much that its images get dark."""
    packaged = parse_weights(SMALL.read_bytes())
    tensors = dict(packaged.tensors)
    tensors["s0.0.bias"] = tensors["s0.0.bias"] + 0.02
    (folder / "other.safetensors").write_bytes(dump_weights(tensors, packaged.about))
    return folder / "other.safetensors"


def test_the_same_weights_by_another_name_are_no_change(photos: Path) -> None:
    run(photos)
    shutil.copy(SMALL, photos.parent / "copy.safetensors")
    assert run(photos, weights=str(photos.parent / "copy.safetensors")).done_now == 0


@pytest.mark.parametrize("change", ["weights", "precision"])
def test_a_changed_network_is_refused_and_overwrite_redoes_only_it(
    photos: Path, change: str
) -> None:
    out = photos.parent / "out"
    run(photos)
    before = (rows(out), files(out), tree(out / "absgn"))
    options = {
        "weights": {"weights": str(other_weights(photos.parent))},
        "precision": {"precision": "bf16"},
    }[change]
    for methods in (BOTH, ("absgn",)):
        with pytest.raises(UsageError, match=rf"\({change} \S+ -> \S+\).*--overwrite"):
            run(photos, method=methods, **options)
    assert (rows(out), files(out), tree(out / "absgn")) == before
    assert run(photos, method="classical", **options).done_now == 0

    summary = run(photos, method="absgn", overwrite=True, **options)
    assert (summary.exit_code, summary.done_now) == (0, 4)
    assert tree(out / "absgn").keys() == before[2].keys()
    assert tree(out / "absgn") != before[2]
    assert by_method(out, "classical") == [r for r in before[0] if r["method"] == "classical"]
    kept = {path for path, at in files(out).items() if before[1].get(path) == at}
    assert {path.relative_to(out).parts[0] for path in kept} == {"classical"}
    assert len(kept) == 4
    assert run(photos, **options).done_now == 0
    with pytest.raises(UsageError, match=change):
        run(photos)


def test_what_decides_the_pixels_of_the_network(tmp_path: Path) -> None:
    def digest(**options: Any) -> str:
        settings = {"device": "cpu", "workers": 0, "method": "absgn", **options}
        config = JobConfig(input="photos", **settings)
        weights = weights_of(config)
        assert weights is not None
        return fingerprints_of(config, choose_model(config, weights, lambda: 0))["absgn"].digest

    plain = digest()
    same: list[dict[str, Any]] = [
        *({"tile": 64}, {"workers": 2}, {"gpu_workers": 3}, {"batch_size": 7}),
        *({"atmospheric_light": "image"}, {"omega": 0.5}, {"denoise": "guided"}),
        *({"device": "auto", "precision": "fp32"}, {"precision": "fp32"}, {"method": BOTH}),
        *({"address": "local"}, {"timeout": 5.0}, {"weights": str(SMALL)}),
    ]
    for options in same:
        assert digest(**options) == plain, options
    changed: list[dict[str, Any]] = [
        *({"format": "png"}, {"quality": 90}, {"max_pixels": 100}, {"precision": "bf16"}),
        {"weights": str(other_weights(tmp_path))},
        {"device": "cuda"},  # whose precision is fp16 unless told otherwise
    ]
    digests = {digest(**options) for options in changed}
    assert len(digests | {plain}) == len(changed) + 1


def test_another_tile_on_the_same_output(photos: Path) -> None:
    run(photos)
    summary = run(photos, tile=64, gpu_workers=2, batch_size=2, atmospheric_light="batch",
                  method="absgn")  # fmt: skip
    assert (summary.exit_code, summary.done_now) == (0, 0)


# Refusals


def bad_weights(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.safetensors"
    good = SMALL.read_bytes()
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        content = {
            "empty": b"",
            "truncated": good[: len(good) // 2],
            "one-byte-short": good[:-1],
            "pickle": pickle.dumps({"s0.0.bias": [0.0]}),
            "other": dump_tensors({"some.weight": torch.zeros(3, 3)}, {}),
            "html": b"<!doctype html><title>404</title>",
        }
        path.write_bytes(content[kind])
    return path


@pytest.mark.parametrize(
    "kind",
    ["missing", "folder", "empty", "truncated", "one-byte-short", "pickle", "other", "html"],
)
def test_bad_weights_are_refused_before_anything_is_written(photos: Path, kind: str) -> None:
    path = bad_weights(photos.parent, kind)
    with pytest.raises(UsageError, match=rf"{kind}\.safetensors.*; check --weights$"):
        run(photos, weights=str(path))
    assert not written(photos.parent / "out")


def test_bad_weights_on_the_command_line(photos: Path) -> None:
    path = bad_weights(photos.parent, "truncated")
    arguments = ("--input", photos, "--output", photos.parent / "out", "--workers", 2)
    done = command("run", *arguments, "--method", "absgn", "--weights", path)
    assert done.returncode == 2
    assert "--weights" in one_sentence(done)
    assert not written(photos.parent / "out")


@pytest.mark.parametrize(("gpus", "name"), [(0, "absgn-small"), (1, "absgn")])
def test_the_network_is_the_full_one_where_a_gpu_runs_it(gpus: int, name: str) -> None:
    def chosen(**options: Any) -> Model:
        config = JobConfig(input="photos", method=("absgn",), **options)
        weights = weights_of(config)
        assert weights is not None
        return choose_model(config, weights, lambda: gpus)

    assert chosen().name == name
    assert (
        chosen().sha256 == hashlib.sha256((MODELS / f"{name}.safetensors").read_bytes()).hexdigest()
    )
    assert chosen(device="cpu").name == "absgn-small"
    assert chosen(device="cuda").name == "absgn"
    assert chosen(model="absgn-small").name == "absgn-small"
    assert chosen(weights=str(SMALL)).sha256 == chosen(model="absgn-small").sha256


def test_a_model_without_weights(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchlight.absgn.loading.resources.files", lambda _: tmp_path)
    with pytest.raises(UsageError, match=r"^this version comes without weights for --model absgn;"):
        run(photos, model="absgn")
    assert not written(photos.parent / "out")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(photos: Path) -> None:
    out = photos.parent / "out"
    line = ["run", "--input", photos, "--output", out, "--method", "absgn", "--device", "cuda"]
    done = ended([*COMMAND, *map(str, line), "--workers", "2"])
    assert done.returncode == 2
    assert "GPU" in one_sentence(done)
    assert not tree(out / "_batchlight/plan")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_advice_after_a_missing_gpu_works(photos: Path) -> None:
    """Nothing was done, so nothing can have been done with other parameters."""
    with pytest.raises(UsageError, match="give --device cpu"):
        run(photos, device="cuda")
    assert run(photos, device="cpu").ok == 8


# Speed, and who is told


class StubService:
    """Answers how fast it is."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def submit(self, method: str, *arguments: object) -> Answer:
        return self.answer


class StubEngine(InProcessEngine):
    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer

    async def host(self, make: Callable[[], object], count: int, on_gpus: bool) -> StubService:
        return StubService(self.answer)


def test_cpus_are_warned_of_with_an_estimate(
    photos: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Enhancer, "seconds_per_megapixel", lambda self: 600.0)
    run(photos)
    warned = [r.getMessage() for r in caplog.records if "CPUs" in r.getMessage()]
    assert len(warned) == 1
    assert "absgn-small takes about 600.0 s per megapixel here" in warned[0]
    assert "4 images of 1 megapixel take 40 minutes" in warned[0]


def test_the_speed_is_measured(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(photos)
    words = caplog.text.partition("takes about ")[2].split()
    assert float(words[0]) > 0
    assert words[1:4] == ["s", "per", "megapixel"]


def test_the_estimate_is_for_the_networks_there_are(
    photos: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process there is one, whatever ``--gpu-workers`` says."""
    monkeypatch.setattr(Enhancer, "seconds_per_megapixel", lambda self: 600.0)
    run(photos, gpu_workers=4)
    assert "600.0 s per megapixel" in caplog.text


def test_the_estimate_is_for_what_is_left(
    photos: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    die_after_a_batch(photos, monkeypatch)
    caplog.clear()
    run(photos, batch_size=2)
    assert "so 2 images of 1 megapixel" in caplog.text


@pytest.mark.parametrize("code", [ErrorCode.TIMEOUT, ErrorCode.CRASH, ErrorCode.OUT_OF_MEMORY])
def test_a_network_that_dies_of_being_measured_is_told_in_a_sentence(code: ErrorCode) -> None:
    """As it does of a --timeout that is shorter than the measurement takes."""
    config = JobConfig(input="photos", method=("absgn",), device="cpu", timeout=1.0)
    model = Model("absgn-small", b"", "", "cpu", "fp32", None)
    with pytest.raises(BatchlightError):
        asyncio.run(serve(StubEngine(Fatal(code)), config, model, 1))


def test_a_cpu_without_memory_is_told_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch raises a RuntimeError for it; then smaller tiles are tried, and at last it fails."""
    network = Enhancer(SMALL.read_bytes(), "cpu", "fp32")

    def allocate(*arguments: object) -> None:
        torch.empty(1 << 55, dtype=torch.uint8)

    monkeypatch.setattr(network, "_run", allocate)
    (restored,) = network.enhance([np.zeros((24, 32, 3), np.uint8)])
    assert restored.error is not None
    assert restored.error.code == ErrorCode.OUT_OF_MEMORY


# Real processes


IMAGES = 18


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough work to be killed in the middle of it."""
    folder = tmp_path_factory.mktemp("larger") / "in"
    write_images(folder, IMAGES, height=96, width=128)
    (folder / "b/bad.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def calm(larger: Path) -> Any:
    """What any run of these images ends with."""
    out = larger.parent / "calm"
    summary = run(larger, output=str(out), batch_size=3)
    assert summary.failed_by_code == {"corrupt": 2}
    return state(out)


def command_line(larger: Path, out: Path, *options: object) -> list[str]:
    both = ("--method", "classical", "--method", "absgn", "--device", "cpu", "--batch-size", "3")
    places = ("--input", larger, "--output", out, "--max-failures", 2)
    return [str(word) for word in ("run", *places, *both, *options)]


wait_until = partial(helpers.wait_until, within_s=ENDS_WITHIN_S)
actors_below = partial(processes_below, title="ray::Host")


def test_workers_actors_and_their_deaths_change_nothing(
    larger: Path, calm: object, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    line = command_line(larger, out, "--workers", 2, "--gpu-workers", 2)
    with subprocess.Popen([*COMMAND, *line], stderr=subprocess.PIPE, text=True) as process:
        wait_until(partial(has_parts, out, 1), process)
        actors = actors_below(process.pid)
        assert len(actors) == 2
        actors[0].kill()
        _, errors = process.communicate(timeout=2 * ENDS_WITHIN_S)
    assert process.returncode == 0, errors
    assert state(out) == calm
    assert "ABSGN runs on CPUs: absgn-small takes about" in errors
    assert f"so {IMAGES + 1} images of 1 megapixel take" in errors


@pytest.mark.nightly
def test_a_killed_driver_and_the_same_command_again(
    larger: Path, calm: object, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    line = command_line(larger, out, "--workers", 2)
    with subprocess.Popen([*COMMAND, *line], stderr=subprocess.DEVNULL) as process:
        wait_until(partial(has_parts, out, 2), process)
        process.kill()
    done = command(*command_line(larger, out, "--workers", 0))
    assert done.returncode == 0, done.stderr
    assert state(out) == calm
    assert not tree(out / "_batchlight/tmp")


@pytest.mark.nightly
def test_a_signal_while_the_network_starts(larger: Path, tmp_path: Path) -> None:
    line = command_line(larger, tmp_path / "out", "--workers", 2)
    with subprocess.Popen([*COMMAND, *line], stderr=subprocess.PIPE, text=True) as process:
        wait_until(partial(actors_below, process.pid), process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=ENDS_WITHIN_S)
    assert process.returncode == 130, errors
    assert "interrupted by SIGINT; run the same command again" in errors
    assert "Traceback" not in errors


ONE_CPU = """
import sys, ray, batchlight
ray.init(address="local", num_cpus=1, object_store_memory=100 * 2**20,
         include_dashboard=False, log_to_driver=False, logging_level="ERROR")
config = batchlight.JobConfig(input=sys.argv[1], output=sys.argv[2], method="absgn", device="cpu",
                              workers=1, progress="off")
try:
    sys.exit(batchlight.run(config).exit_code)
except batchlight.errors.BatchlightError as error:
    print("sentence:", error)
"""


@pytest.mark.nightly
def test_one_cpu_is_enough_or_the_run_says_so(photos: Path) -> None:
    """On a Ray that is there already, the network must not take the CPU that its work needs."""
    script = [sys.executable, "-c", ONE_CPU, str(photos), str(photos.parent / "out")]
    done = ended(script)
    assert done.returncode == 0, done.stderr
    assert "sentence:" in done.stdout or len(tree(photos.parent / "out/absgn")) == 4
