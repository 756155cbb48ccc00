"""What a batch tells the driver about its time and bytes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from batchlight.config import Method
from batchlight.output.records import Record, as_table
from batchlight.worker.batch_result import BatchResult

SHARED = {"read_ms": 1000.0, "decode_ms": 2000.0}


def record(name: str, method: Method, **columns: Any) -> Record:
    return Record(
        input=name, method=method, status="ok", batch=1, input_bytes=100, attempts=1,
        worker="host:1", run_id="run", fingerprint="f", finished_at=datetime.now(UTC), **columns,
    )  # fmt: skip


def test_what_methods_share_is_counted_once() -> None:
    rows = [
        record("a", "classical", enhance_ms=3000.0, encode_ms=4000.0, write_ms=5000.0, **SHARED),
        record("a", "absgn", enhance_ms=9000.0, network_ms=6000.0, encode_ms=4000.0, **SHARED),
    ]
    found = BatchResult.of(as_table(rows))
    assert found.stages_s == pytest.approx(
        {"read": 1, "decode": 2, "enhance": 12, "encode": 8, "write": 5}
    )
    assert found.network_s == pytest.approx(6)


def test_bytes_that_nobody_has_counted_are_those_of_the_images_read() -> None:
    rows = [record("a", method, **SHARED) for method in ("classical", "absgn")]
    rows.append(record("missing", "classical"))
    assert BatchResult.of(as_table(rows)).read_bytes == 100
    assert BatchResult.of(as_table(rows), read_bytes=250).read_bytes == 250
    assert BatchResult.of(as_table([])).read_bytes == 0
