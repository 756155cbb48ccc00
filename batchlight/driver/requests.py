"""How many requests a run will send to object stores, and what they cost at list prices.

Deletes are left out: they cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batchlight.config import Method
from batchlight.images.container_names import is_parquet_name
from batchlight.output.fence import FRESH_FOR_S
from batchlight.output.inputs import Input
from batchlight.output.lock import TELL_EVERY
from batchlight.output.plan import PlanCounts
from batchlight.planning.listing import InputSet
from batchlight.storage import Location
from batchlight.storage.listing import KEYS_PER_PAGE
from batchlight.storage.streams import BLOCK_BYTES, PART_BYTES

DOLLARS_PER_WRITE, DOLLARS_PER_READ = 0.005 / 1000, 0.0004 / 1000
"""S3 Standard list prices in us-east-1: for PUT, POST and LIST, and for GET and HEAD."""

REQUESTS_OF_A_RUN = 36
"""Plan, locks, records and summary; roughly a third each of LIST, GET and PUT."""
IMAGES_OF_A_REPORT = 36
"""``report.selections.IMAGES_AT_MOST``, whose package loads codecs."""
LISTS_PER_BATCH = 2
"""Lock checks: one when it is committed, one when its part is deleted."""
POSTS_PER_UPLOAD = 2
"""Each multipart upload is begun and completed."""
LISTS_PER_UPLOAD = 2
"""One lock check at each of these."""

_KINDS = ("LIST", "HEAD", "GET", "PUT", "POST")


@dataclass(frozen=True)
class Traffic:
    """What a run will read and write."""

    inputs: InputSet
    output: Location
    counts: PlanCounts
    methods: Sequence[Method]
    images: int
    """Images to do, in containers or not."""
    pairs: int
    """Pairs whose image is a file of its own."""
    containers: Sequence[Input]
    """Containers to do."""
    container_pairs: int

    def requests(self, cpu_s: float, seconds: float | None) -> dict[str, int]:
        """Approximate requests by kind. ``seconds``: the duration of the run, if known."""
        found = dict.fromkeys(_KINDS, 0)
        if self.inputs.root.remote:
            self._add_reading(found)
        if self.output.remote:
            self._add_writing(found, cpu_s, seconds or 0)
        return {kind: number for kind, number in found.items() if number}

    def price(self, requests: Mapping[str, int]) -> float | None:
        """In dollars; None for stores other than S3."""
        places = (self.inputs.root, self.output)
        if any(place.remote and place.scheme != "s3" for place in places):
            return None
        prices = dict.fromkeys(("LIST", "PUT", "POST"), DOLLARS_PER_WRITE)
        return sum(n * prices.get(kind, DOLLARS_PER_READ) for kind, n in requests.items())

    def _add_reading(self, found: dict[str, int]) -> None:
        counts, data_set = self.counts, self.inputs.data_set
        passed_over = sum(number for _, number in counts.passed_over)
        given = counts.inputs + counts.containers
        if data_set.is_list:
            found["HEAD"] += sum(entry.etag is None for entry in data_set.entries()[0])
        else:
            listed = given + counts.others + counts.beside + passed_over
            # Listed again for the folders of containers and the files beside them.
            times = 1 + data_set.copies_others + bool(counts.containers)
            found["LIST"] += times * math.ceil(listed / KEYS_PER_PAGE)
        found["HEAD"] += len(self.containers) + self._beside
        found["GET"] += sum(is_parquet_name(c.path) for c in self.containers)  # their footers
        found["GET"] += counts.todo - counts.todo_containers + counts.todo_others + self._beside
        found["GET"] += sum(math.ceil((c.size or 0) / BLOCK_BYTES) for c in self.containers)
        found["GET"] += min(self.images, IMAGES_OF_A_REPORT)

    def _add_writing(self, found: dict[str, int], cpu_s: float, seconds: float) -> None:
        counts = self.counts
        beats = round(seconds / TELL_EVERY.total_seconds())
        some = REQUESTS_OF_A_RUN // 3
        uploads = self.container_pairs + self._beside * len(self.methods)
        found["PUT"] += self.pairs + counts.todo_others * len(self.methods) + self._parts
        found["PUT"] += self._beside * len(self.methods) + counts.batches + beats + some
        found["POST"] += POSTS_PER_UPLOAD * uploads
        found["GET"] += (
            counts.batches + min(self.images, IMAGES_OF_A_REPORT) * len(self.methods) + some
        )
        found["LIST"] += round(cpu_s / FRESH_FOR_S) + beats + some
        found["LIST"] += LISTS_PER_BATCH * counts.batches + LISTS_PER_UPLOAD * uploads

    @property
    def _parts(self) -> int:
        """Number of upload parts of the containers written."""
        if not self.containers:
            return 0
        parts = sum(max(1, math.ceil((c.size or 0) / PART_BYTES)) for c in self.containers)
        return round(parts * self.container_pairs / len(self.containers))

    @property
    def _beside(self) -> int:
        """Approximate number of files copied with the containers to do."""
        counts = self.counts
        if not counts.containers or not self.inputs.data_set.is_folder:
            return 0
        return round(counts.beside * counts.todo_containers / counts.containers)
