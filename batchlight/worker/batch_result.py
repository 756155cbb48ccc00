"""What the driver is told about batches: counts, never pixels or rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from batchlight.output.records import STAGES, Tally
from batchlight.worker.image import Unexpected


@dataclass(frozen=True)
class BatchResult:
    """Result of one committed batch, or of several together."""

    tallies: Mapping[str, Tally]
    """By method."""
    stages_s: Mapping[str, float]
    """Total time of all images by stage: read, decode, enhance, encode, write."""
    network_s: float
    """Computing time of the network."""
    unexpected: tuple[Unexpected, ...] = ()
    """Exceptions that are not the fault of an image, one of each kind."""
    read_bytes: int = 0
    """Bytes of images read, counting repeated reads."""

    @property
    def tally(self) -> Tally:
        """Total over all methods."""
        return sum(self.tallies.values(), Tally())

    def __add__(self, other: BatchResult) -> BatchResult:
        """The sum of both; still one unexpected exception of each kind."""
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
