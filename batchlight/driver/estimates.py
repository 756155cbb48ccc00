"""What a run will take: time, bytes, requests and their price.

Derived from this output's records with the same parameters; if there are none, from trying a few of
the images to do, in this process and without writing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from batchlight.absgn import networks_on
from batchlight.absgn.loading import Model
from batchlight.config import JobConfig, Method
from batchlight.driver.census import Census
from batchlight.driver.network import advice
from batchlight.driver.requests import Traffic
from batchlight.engine import ray_address
from batchlight.host.resources import local_gpus, usable_cpus
from batchlight.output.inputs import Input
from batchlight.output.plan import PlanCounts
from batchlight.output.recordfiles import read_records
from batchlight.output.records import SHARED_STAGES, STAGES
from batchlight.output.state import OutputState
from batchlight.planning.listing import InputSet
from batchlight.storage import Location, Storage

if TYPE_CHECKING:
    from batchlight.worker.trial import Trial

PRICES_AS_OF = "2026-11"

RECORD_FILES = 3
"""How many files of records to read, newest first."""
IMAGES_TRIED, TRY_FOR_S = 6, 5.0
SEED = 0


class RandomSample:
    """A random sample of the images to do, the same on every call."""

    def __init__(self) -> None:
        self.images: list[Input] = []
        self._seen = 0
        self._chance = random.Random(SEED)

    def add(self, item: Input) -> None:
        """Every image is equally likely to be drawn, unless its name makes it unreadable."""
        if item.defect is not None:
            return
        self._seen += 1
        if len(self.images) < IMAGES_TRIED:
            self.images.append(item)
        elif (place := self._chance.randrange(self._seen)) < IMAGES_TRIED:
            self.images[place] = item


@dataclass
class _Sample:
    """Sizes and times of some images, summed."""

    images: int = 0
    megapixels: float = 0.0
    input_bytes: int = 0
    shared_ms: float = 0.0
    """Reading and decoding, done once for all methods."""
    own_ms: dict[Method, float] = field(default_factory=dict)
    """The rest, on a CPU, without the network."""
    network_ms: float | None = 0.0
    """None if it cannot be determined."""
    output_bytes: float = 0
    """Total over all methods."""


@dataclass(frozen=True)
class Estimate:
    """What a run will take, approximately. Requests are those to object stores."""

    based_on: str
    megapixels: float
    ms_per_megapixel: float
    """On one CPU, for all methods together, without the network."""
    network_ms_per_megapixel: float | None
    """None if no method needs it, or nothing is known about the GPUs."""
    output_bytes: int
    cpu_hours: float
    gpu_hours: float | None
    seconds: float | None
    """None if it is not known how many CPUs or GPUs there will be."""
    workers: int | None
    requests: Mapping[str, int]
    price_usd: float | None
    """At S3 list prices; None for other stores."""
    prices_as_of: str = PRICES_AS_OF
    warning: str | None = None
    """A note on how slow the network is, if it runs on CPUs."""


@dataclass(frozen=True)
class Workload:
    """What there is to do, and where."""

    config: JobConfig
    model: Model | None
    inputs: InputSet
    output: Location
    counts: PlanCounts
    pairs: int
    """Pairs whose image is a file of its own."""
    sample: Sequence[Input]
    """Some of the images to do."""
    containers: Sequence[Input] = ()
    """Containers to do."""
    container_pairs: int = 0
    inside: Census = field(default_factory=Census)
    """Contents of those containers."""

    def estimate(
        self, storage: Storage, state: OutputState, digests: Mapping[Method, Collection[str]]
    ) -> Estimate | None:
        """The estimate; None if nothing is known, for example if all images fail.

        ``digests``: those of each method's parameters, for images and for containers.
        """
        based_on = "the records of this output"
        found = _recorded(storage, state, digests)
        if found is None:
            found = self._tried()
            based_on = f"{found.images} images, tried here"
        scale = self._bytes_of_images / max(1, found.input_bytes)
        if not found.megapixels or not scale:
            return None
        cpu_s = scale * (found.shared_ms + sum(found.own_ms.values())) / 1000
        network_s = None if found.network_ms is None else scale * found.network_ms / 1000
        on_gpus = self.model is not None and self.model.device == "cuda"
        seconds = self._seconds(cpu_s, network_s)
        traffic = self._traffic
        requests = traffic.requests(cpu_s, seconds)
        per_megapixel = 1000 / (scale * found.megapixels)
        network = None if network_s is None or self.model is None else network_s * per_megapixel
        return Estimate(
            based_on=based_on,
            megapixels=scale * found.megapixels,
            ms_per_megapixel=cpu_s * per_megapixel,
            network_ms_per_megapixel=network,
            output_bytes=round(scale * found.output_bytes) + self._bytes_of_others,
            cpu_hours=(cpu_s + (0 if on_gpus else network_s or 0)) / 3600,
            gpu_hours=None if network_s is None else network_s / 3600 if on_gpus else 0.0,
            seconds=seconds,
            workers=self._workers,
            requests=requests,
            price_usd=traffic.price(requests),
            warning=self._warning(network),
        )

    @property
    def _bytes_of_containers(self) -> int:
        return sum(container.size or 0 for container in self.containers)

    @property
    def _bytes_of_images(self) -> int:
        """Total size of the images to do, in containers or not."""
        files = self.counts.todo_bytes - self._bytes_of_containers
        return files + self.inside.image_bytes

    @property
    def _bytes_of_others(self) -> int:
        """Bytes to be written that are not images, in containers or not."""
        counts = self.counts
        others = max(0, self._bytes_of_containers - self.inside.image_bytes)
        if counts.todo_others:
            others += round(counts.others_bytes * counts.todo_others / counts.others)
        return others * len(self.config.method)

    @property
    def _traffic(self) -> Traffic:
        counts = self.counts
        return Traffic(
            inputs=self.inputs,
            output=self.output,
            counts=counts,
            methods=self.config.method,
            images=counts.todo - counts.todo_containers + self.inside.images,
            pairs=self.pairs,
            containers=self.containers,
            container_pairs=self.container_pairs,
        )

    @property
    def _workers(self) -> int | None:
        """CPUs working at once; None for a cluster that was not asked."""
        if self.config.workers is not None:
            return max(1, self.config.workers)
        return usable_cpus() if ray_address(self.config.address) == "local" else None

    def _seconds(self, cpu_s: float, network_s: float | None) -> float | None:
        workers = self._workers
        if workers is None or network_s is None:
            return None
        if self.model is None:
            return cpu_s / workers
        if self.model.device == "cpu":
            actors = self.config.gpu_workers or networks_on(workers)
            return cpu_s / workers + network_s / actors
        actors = self.config.gpu_workers or local_gpus()
        return max(cpu_s / workers, network_s / actors) if actors else None

    def _warning(self, network_ms_per_megapixel: float | None) -> str | None:
        if self.model is None or self.model.device != "cpu" or network_ms_per_megapixel is None:
            return None
        return (
            f"ABSGN runs on CPUs here: {self.model.name} takes about "
            f"{network_ms_per_megapixel / 1000:.1f} s per megapixel; {advice(self.model)}"
        )

    def _tried(self) -> _Sample:
        """Measurements of some images, processed here."""
        from batchlight.host.process import one_opencv_thread
        from batchlight.worker.trial import Trial  # loads codecs and the compiler

        classical = self.config.model_copy(update={"method": ("classical",)})
        trial = Trial(classical, self.inputs.root, self.inputs.opened)
        found = _Sample(own_ms=dict.fromkeys(self.config.method, 0.0))
        network_s_per_megapixel = self._network_speed()
        deadline = time.monotonic() + TRY_FOR_S
        with one_opencv_thread():
            trial.warm_up()
            for item in self.sample:
                self._try(trial, item, found, network_s_per_megapixel)
                if time.monotonic() > deadline:
                    break
        return found

    def _try(
        self, trial: Trial, item: Input, found: _Sample, network_s_per_megapixel: float | None
    ) -> None:
        """Process one image and add its measurements, unless it fails."""
        from batchlight.worker.image import Failure, Image

        image = Image(item, ())
        began = time.perf_counter()
        data = trial.read(image)
        if data is None:
            return
        trial.look(image, data)
        looked = time.perf_counter()
        tried = trial.enhance(item, data, None)  # decodes and analyses it again
        ended = time.perf_counter()
        facts = image.facts
        if isinstance(tried, Failure) or image.failure is not None:
            return
        megapixels = facts["width"] * facts["height"] / 1e6
        enhance_ms = tried.measured.ms_per_megapixel * megapixels
        encode_ms = max(0.0, (ended - looked) * 1000 - enhance_ms - facts["decode_ms"])
        found.images += 1
        found.megapixels += megapixels
        found.input_bytes += len(data)
        found.output_bytes += len(tried.encoded) * len(found.own_ms)
        found.shared_ms += (looked - began) * 1000
        for method in found.own_ms:
            own = enhance_ms - facts["enhance_ms"] if method == "classical" else 0.0
            found.own_ms[method] += max(0.0, own) + encode_ms
        if network_s_per_megapixel is None or found.network_ms is None:
            found.network_ms = None
        elif self.config.is_dark(facts["luminance_before"]):
            found.network_ms += network_s_per_megapixel * 1000 * megapixels

    def _network_speed(self) -> float | None:
        """Seconds per megapixel; None on GPUs, for which a small image says nothing."""
        if self.model is None:
            return 0.0
        return self.model.enhancer().seconds_per_megapixel() if self.model.device == "cpu" else None


def _recorded(
    storage: Storage, state: OutputState, digests: Mapping[Method, Collection[str]]
) -> _Sample | None:
    """Totals of the newest records with these parameters; None unless every method has some."""
    found: dict[Method, list[pa.Table]] = {method: [] for method in digests}
    columns = ("input", "method", "status", "fingerprint", "width", "height")
    sizes = ("input_bytes", "output_bytes")
    for path in reversed(state.record_files[-RECORD_FILES:]):
        table = read_records(storage, path, (*columns, *sizes, *STAGES, "network_ms"))
        done = pc.is_in(table["status"], pa.array(["ok", "skipped"]))
        for method, of_method in digests.items():
            same = pc.and_(
                pc.equal(table["method"], method),
                pc.is_in(table["fingerprint"], pa.array(of_method, pa.string())),
            )
            rows = table.filter(pc.fill_null(pc.and_(done, same), False))
            found[method] += [rows] if rows.num_rows else []
    if not all(found.values()):
        return None
    return _sample_of({method: pa.concat_tables(rows) for method, rows in found.items()})


def _sample_of(rows: Mapping[Method, pa.Table]) -> _Sample:
    """The images of the first method, with what the others take for as many bytes of their own."""
    first = next(iter(rows.values()))
    pixels = pc.multiply(first["width"].cast(pa.int64()), first["height"].cast(pa.int64()))
    found = _Sample(
        images=first.num_rows,
        megapixels=(pc.sum(pixels).as_py() or 0) / 1e6,
        input_bytes=_sum(first, "input_bytes"),
        shared_ms=_sum(first, *SHARED_STAGES),
    )
    network_ms = 0.0
    for method, own in rows.items():
        share = found.input_bytes / max(1, _sum(own, "input_bytes"))
        of_network = _sum(own, "network_ms")
        rest = _sum(own, "enhance_ms", "encode_ms", "write_ms") - of_network
        found.own_ms[method] = share * rest
        network_ms += share * of_network
        found.output_bytes += share * _sum(own, "output_bytes")
    found.network_ms = network_ms
    return found


def _sum(rows: pa.Table, *columns: str) -> Any:
    return sum(pc.sum(rows[column]).as_py() or 0 for column in columns)
