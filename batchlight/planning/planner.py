"""What there is to do, in batches, and counts of what was found on the way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

from batchlight.config import JobConfig, Method
from batchlight.fingerprint import Fingerprint
from batchlight.output.chunks import PlannedBatch
from batchlight.output.earlier import Earlier
from batchlight.output.inputs import Input
from batchlight.output.plan import Plan, PlanCounts
from batchlight.planning.comparison import Comparison
from batchlight.planning.cutting import Stretch, cut, first_of
from batchlight.planning.passed_over import PassedOver


class Planner:
    """Cuts what there is to do into batches; counts as it goes. Read ``counts`` at the end."""

    def __init__(
        self,
        config: JobConfig,
        fingerprints: Mapping[Method, Fingerprint],
        passed_over: PassedOver | None = None,
        since: float = math.inf,
        rest_of: Plan | None = None,
    ) -> None:
        """``passed_over``: what the listing finds besides the images.

        ``since``: see ``Comparison``. ``rest_of``: a plan of part of this listing, to continue
        after; inputs up to there are left for later.
        """
        self.config = config
        self.fingerprints = fingerprints
        self.batch_size = (rest_of and rest_of.batch_size) or 0
        """Images per batch; known once the first batch is."""
        self._passed_over = passed_over or PassedOver()
        self.since = since
        self.after = (rest_of and rest_of.continues_after) or ""
        self._comparison = Comparison(config, fingerprints, since, self.after)
        self.findings = self._comparison.findings
        self._batches = 0

    @property
    def counts_so_far(self) -> PlanCounts:
        """What was found so far, without what was passed over."""
        found: dict[str, Any] = dict(self.findings.seen)
        return PlanCounts(
            **found,
            batches=self._batches,
            gone_tally=self.findings.gone,
            not_selected_tally=self.findings.not_selected,
        )

    @property
    def counts(self) -> PlanCounts:
        """What was found; complete once the listing has ended."""
        met = self._passed_over
        beside = max(0, met.beside - self.findings.beside)  # less with a limit
        return replace(self.counts_so_far, passed_over=met.counts, beside=beside)

    def stretches(self, images: Iterable[Input], earlier: Iterable[Earlier]) -> Iterator[Stretch]:
        """Compare a whole listing with all earlier records, as ``Comparison.stretches`` does."""
        return self._comparison.stretches(images, earlier)

    def chunks(self, stretches: Iterator[Stretch], first: int) -> Iterator[list[PlannedBatch]]:
        """Cut what there is to do into batches numbered from ``first``, grouped into chunks."""
        ahead, number = first_of(stretches)
        self.batch_size = self.batch_size or self.config.images_per_batch(number)
        for chunk in cut(chain(ahead, stretches), first, self.batch_size):
            self._batches += len(chunk)
            yield chunk
            del chunk  # only one is in memory at a time
