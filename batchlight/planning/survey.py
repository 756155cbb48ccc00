"""One part of a listing, compared with the earlier records on a worker or in the driver."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchlight.config import JobConfig, Method
from batchlight.errors import UsageError
from batchlight.fingerprint import Fingerprint
from batchlight.output.chunks import BatchKind, as_rows
from batchlight.output.earlier import Streams, rows_within
from batchlight.output.inputs import DataSet
from batchlight.planning.collisions import Edges
from batchlight.planning.comparison import Comparison, Findings
from batchlight.planning.cutting import Stretch
from batchlight.planning.listing import InputSet
from batchlight.planning.passed_over import PassedOver
from batchlight.storage import KeyRange, ListsParts, Location, open_storage
from batchlight.storage.base import OutOfOrderError
from batchlight.storage.patterns import Patterns
from batchlight.worker.places import refuse_unshared

_KIND = "kind"


@dataclass(frozen=True)
class Found:
    """What was found in one part of a listing."""

    rows: bytes
    """What there is to do: rows of a plan with the index of their kind, as Parquet."""
    kinds: tuple[BatchKind, ...]
    findings: Findings
    passed_over: PassedOver
    patterns_used: tuple[bool, ...]
    first_key: str
    """The first key listed; empty if there is none."""
    last_key: str
    keys: int
    """Number of keys listed."""
    rest: KeyRange | None
    """What is left of the requested range."""
    edges: Edges
    error: str | None = None
    """The message that the job must end with, after the rows."""

    def stretches(self) -> Iterator[Stretch]:
        """What there is to do, in order."""
        table = pq.ParquetFile(pa.BufferReader(self.rows)).read(use_threads=False)
        kinds = table[_KIND].to_numpy()
        rows = table.drop_columns([_KIND])
        changes = np.flatnonzero(np.diff(kinds, prepend=-1, append=-1))
        for begin, end in pairwise(changes.tolist()):
            yield Stretch(self.kinds[kinds[begin]], rows.slice(begin, end - begin))


@dataclass(frozen=True)
class PartSurvey:
    """What is needed to survey any part of a listing."""

    config: JobConfig
    fingerprints: Mapping[Method, Fingerprint]
    data_set: DataSet
    output: Location
    since: float
    """``since`` and ``after``: see ``Comparison``."""
    after: str

    def look(self, within: KeyRange, at_most: int, earlier: Streams) -> Found | None:
        """List a range of keys, or its first ones, and compare them with their records.

        ``earlier``: the files with these. None if the listing has to be made as a whole: it has
        containers, or ``part`` refuses it. Raises ``ClusterError`` on a node that does not see the
        output.
        """
        refuse_unshared(self.data_set.root, self.output, "")
        patterns = Patterns.of(self.config.include, self.config.exclude)
        inputs = InputSet(self.data_set, patterns, None, self.config.image_column)
        source, storage = inputs.opened(inputs.root), open_storage(self.output)
        assert isinstance(source, ListsParts)
        try:
            part = source.part(within, at_most)
        except OutOfOrderError:
            return None
        images = list(inputs.images_among(part.files))
        if any(image.container for image in images):
            return None
        comparison = Comparison(self.config, self.fingerprints, self.since, self.after)
        stretches, edges, error = list[Stretch](), Edges(), None
        try:
            stretches += comparison.stretches(
                images, rows_within(storage, earlier, part.listed), edges
            )
        except UsageError as found:
            error = str(found)
        rows, kinds = _packed(stretches)
        return Found(
            *(rows, kinds, comparison.findings, inputs.passed_over, patterns.used),
            first_key=part.first,
            last_key=part.last,
            keys=part.keys,
            rest=part.rest,
            edges=edges,
            error=error,
        )


def _packed(stretches: Sequence[Stretch]) -> tuple[bytes, tuple[BatchKind, ...]]:
    """The rows of all stretches with the indexes of their kinds, as Parquet; and the kinds."""
    kinds = list(dict.fromkeys(stretch.kind for stretch in stretches))
    places = np.repeat(
        np.array([kinds.index(stretch.kind) for stretch in stretches], np.int16),
        [stretch.rows.num_rows for stretch in stretches],
    )
    rows = pa.concat_tables([as_rows((), ()), *(stretch.rows for stretch in stretches)])
    buffer = pa.BufferOutputStream()
    pq.write_table(rows.append_column(_KIND, pa.array(places)), buffer, compression="zstd")
    return buffer.getvalue().to_pybytes(), tuple(kinds)
