"""What the driver is told about batches: counts, never pixels or rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from batchlight.output.records import SHARED_STAGES, STAGES, Tally
from batchlight.worker.image import Unexpected


@dataclass(frozen=True)
class BatchResult:
    """Result of one committed batch, or of several together."""

    tallies: Mapping[str, Tally]
    """By method."""
    stages_s: Mapping[str, float]
    """Time by stage: read and decode once per image, enhance, encode and write per method."""
    network_s: float
    """Computing time of the network."""
    unexpected: tuple[Unexpected, ...] = ()
    """Exceptions that are not the fault of an image, one of each kind."""
    read_bytes: int = 0
    """Bytes of images read; repeated reads count again, if they are known."""
    whole: int = 0
    """Rows of containers as a whole: those that failed, or of which no image is selected."""

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
            self.whole + other.whole,
        )

    @classmethod
    def of(
        cls, rows: pa.Table, unexpected: tuple[Unexpected, ...] = (), read_bytes: int | None = None
    ) -> BatchResult:
        """Count the rows of a batch.

        Without ``read_bytes``, each image that was read counts as read once.
        """
        names = pc.unique(rows["method"]).to_pylist()
        methods = {name: rows.filter(pc.equal(rows["method"], name)) for name in names}
        one_method = next(iter(methods.values()), rows)
        if read_bytes is None:
            was_read = one_method.filter(pc.is_valid(one_method["read_ms"]))
            read_bytes = pc.sum(was_read["input_bytes"]).as_py() or 0
        return cls(
            {name: Tally.of(its) for name, its in methods.items()},
            {
                stage.removesuffix("_ms"): _seconds(
                    one_method if stage in SHARED_STAGES else rows, stage
                )
                for stage in STAGES
            },
            _seconds(rows, "network_ms"),
            unexpected,
            read_bytes,
            pc.sum(pc.equal(rows["input"], rows["container"])).as_py() or 0,
        )


def one_of_each_kind(unexpected: Iterable[Unexpected]) -> tuple[Unexpected, ...]:
    """The first exception of each kind."""
    return tuple({found.kind: found for found in unexpected}.values())


def _seconds(rows: pa.Table, stage: str) -> float:
    return (pc.sum(rows[stage]).as_py() or 0.0) / 1000
