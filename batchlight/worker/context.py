"""What all batches of a run share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batchlight.config import JobConfig, Method
from batchlight.storage import Location

if TYPE_CHECKING:
    from batchlight.absgn.start import ClassicalStart


@dataclass(frozen=True)
class BatchContext:
    """What all batches of a run share."""

    config: JobConfig
    input: Location
    output: Location
    run_id: str
    fingerprints: Mapping[Method, str]
    lock: int
    """The number of the lock under which everything is written."""
    follow_links: bool = False
    """Whether to follow links that leave the input."""
    container_fingerprints: Mapping[Method, str] = field(default_factory=dict)
    """For containers; these also cover what is selected from them."""
    pixels_at_once: int = 0
    """How many pixels of images of one shape go through the network together."""
    start: ClassicalStart | None = None
    """Processing before and after the network."""
