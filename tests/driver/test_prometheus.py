"""Metrics: whoever watches the cluster sees the images, bytes, failures and times of a run."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
import ray

from batchlight import JobConfig, run
from batchlight.config import Method
from batchlight.engine import InProcessEngine, Meter
from batchlight.output.records import STAGES
from tests.support.helpers import bright_image, rows, write_images

PATIENCE_S = 60


@pytest.fixture
def endpoint() -> Iterator[str]:
    """Where a node of a Ray of this test tells Prometheus how it is."""
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        _system_config={"metrics_report_interval_ms": 200},
    )
    [node] = ray.nodes()
    yield f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"
    ray.shutdown()


def samples(endpoint: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Our metrics as Prometheus would read them, by name and by tags, without Ray's own tags."""
    with urllib.request.urlopen(endpoint, timeout=10) as answer:
        text = answer.read().decode()
    found = {}
    for name, labels, value in re.findall(
        r"^ray_batchlight_(\w+)\{(.*)\} (\S+)$", text, re.MULTILINE
    ):
        tags = re.findall(r'(method|status|code|direction|stage)="(\w+)"', labels)
        found[name, frozenset(tags)] = float(value)
    return found


class Counted(InProcessEngine):
    """Remembers what it is to count."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[tuple[str, ...], float] = {}

    def count(self, meter: Meter, amount: float, **tags: str) -> None:
        key = (meter.name, *tags.values())
        self.counts[key] = self.counts.get(key, 0.0) + amount


@pytest.mark.parametrize("methods", [("classical",), ("absgn",), ("classical", "absgn")])
def test_the_time_of_the_network_is_counted_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, methods: tuple[Method, ...]
) -> None:
    engine = Counted()
    monkeypatch.setattr("batchlight.driver.places.make_engine", lambda *_, **__: engine)
    monkeypatch.setattr("batchlight.absgn.inference.MEASURED_SIDE", 16)
    write_images(tmp_path / "in", 3, height=24, width=32)
    run(JobConfig(input=str(tmp_path / "in"), method=methods, device="cpu", workers=0,
                  progress="off"))  # fmt: skip
    of_network = [
        row["network_ms"] for row in rows(tmp_path / "in-enhanced") if row["method"] == "absgn"
    ]
    assert len(of_network) == (3 if "absgn" in methods else 0)
    counted = engine.counts["batchlight_network_seconds",]
    assert counted == pytest.approx(sum(of_network) / 1000)


def test_prometheus_sees_what_a_run_does(endpoint: str, tmp_path: Path) -> None:
    write_images(tmp_path / "in", 5)
    cv2.imwrite(str(tmp_path / "in/bright.png"), bright_image(1))
    (tmp_path / "in/empty.jpg").touch()
    (tmp_path / "in/text.png").write_text("no image")
    run(JobConfig(input=str(tmp_path / "in"), progress="off", batch_size=3))
    records = rows(tmp_path / "in-enhanced")
    wanted = {
        ("images_total", frozenset({("method", "classical"), ("status", "ok")})): 5,
        ("images_total", frozenset({("method", "classical"), ("status", "skipped")})): 1,
        **{
            (
                "images_total",
                frozenset({("method", "classical"), ("status", "failed"), ("code", code)}),
            ): 1
            for code in ("empty", "corrupt")
        },
        **{
            ("bytes_total", frozenset({("direction", direction)})): sum(
                row[column] or 0 for row in records
            )
            for direction, column in (("read", "input_bytes"), ("written", "output_bytes"))
        },
        **{
            ("stage_seconds_total", frozenset({("stage", stage.removesuffix("_ms"))})): sum(
                row[stage] or 0 for row in records
            )
            / 1000
            for stage in STAGES
        },
    }
    deadline = time.monotonic() + PATIENCE_S
    while samples(endpoint) != pytest.approx(wanted):
        assert time.monotonic() < deadline, samples(endpoint)
        time.sleep(0.2)
