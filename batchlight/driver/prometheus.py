"""Metrics of a run for cluster monitoring, on Ray's Prometheus endpoints."""

from __future__ import annotations

from batchlight.engine import Engine, Meter
from batchlight.worker.batch_result import BatchResult

IMAGES = Meter("batchlight_images", "Images of committed batches.", ("method", "status", "code"))
BYTES = Meter("batchlight_bytes", "Bytes of committed images.", ("direction",))
STAGES = Meter("batchlight_stage_seconds", "What the time of the workers went into.", ("stage",))
NETWORK = Meter("batchlight_network_seconds", "How long the networks computed.", ())


def show(engine: Engine, result: BatchResult) -> None:
    """Count what was committed."""
    for method, tally in result.tallies.items():
        engine.count(IMAGES, tally.ok, method=method, status="ok", code="")
        engine.count(IMAGES, tally.skipped, method=method, status="skipped", code="")
        for code, number in tally.failed_by_code:
            engine.count(IMAGES, number, method=method, status="failed", code=code)
        engine.count(BYTES, tally.output_bytes, direction="written")
    engine.count(BYTES, result.read_bytes, direction="read")
    for stage, seconds in result.stages_s.items():
        engine.count(STAGES, seconds, stage=stage)
    engine.count(NETWORK, result.network_s)
