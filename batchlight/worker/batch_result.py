"""What the driver hears of batches: counts, never pixels, never rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from batchlight.output.records import STAGES, Tally
from batchlight.worker.image import Unexpected


@dataclass(frozen=True)
class BatchResult:
    """Of a committed batch, or of several together."""

    tallies: Mapping[str, Tally]
    """By method."""
    stages_s: Mapping[str, float]
    """What the time of all images went into: read, decode, enhance, encode, write."""
    network_s: float
    """How long the network computed."""
    unexpected: tuple[Unexpected, ...] = ()
    """Exceptions that are no image's fault, one of each kind."""
    read_bytes: int = 0
    """Of images, as often as they were read."""

    @property
    def tally(self) -> Tally:
        """Of all methods."""
        return sum(self.tallies.values(), Tally())

    def __add__(self, other: BatchResult) -> BatchResult:
        """Of both batches; of unexpected exceptions still one of each kind."""
        return BatchResult(
            {
                method: self.tallies.get(method, Tally()) + other.tallies.get(method, Tally())
                for method in {**self.tallies, **other.tallies}
            },
            {stage: self.stages_s[stage] + other.stages_s[stage] for stage in self.stages_s},
            self.network_s + other.network_s,
            one_of_each_kind((*self.unexpected, *other.unexpected)),
            self.read_bytes + other.read_bytes,
        )

    @classmethod
    def of(
        cls, rows: pa.Table, unexpected: tuple[Unexpected, ...] = (), read_bytes: int = 0
    ) -> BatchResult:
        """Count the rows of a batch."""
        names = pc.unique(rows["method"]).to_pylist()
        methods = {name: rows.filter(pc.equal(rows["method"], name)) for name in names}
        return cls(
            {name: Tally.of(its) for name, its in methods.items()},
            {stage.removesuffix("_ms"): _seconds(rows, stage) for stage in STAGES},
            _seconds(methods["absgn"], "enhance_ms") if "absgn" in methods else 0.0,
            unexpected,
            read_bytes,
        )


def one_of_each_kind(unexpected: Iterable[Unexpected]) -> tuple[Unexpected, ...]:
    """The first exception of each kind."""
    return tuple({found.kind: found for found in unexpected}.values())


def _seconds(rows: pa.Table, stage: str) -> float:
    return (pc.sum(rows[stage]).as_py() or 0.0) / 1000
