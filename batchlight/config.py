"""``JobConfig``: every option of ``run``, validated, frozen.

The command line, YAML files and the Python API all fill it, so each option is described here only.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field

from batchlight.fingerprint import OMITTED_DEFAULTS, Fingerprint
from batchlight.options import Options, number_or

Method = Literal["classical", "absgn"]
ModelName = Literal["absgn", "absgn-small"]
Device = Literal["auto", "cpu", "cuda"]
Format = Literal["jpeg", "png", "webp", "tiff", "bmp", "avif", "heif"]

METHODS: tuple[Method, ...] = get_args(Method)

LARGEST_IMAGE = 200_000_000
"""In pixels; default of ``--max-pixels``."""

TIMEOUT_S = 600
"""Time limit for a call to a worker; default of ``--timeout``."""
LONGEST_TIMEOUT_S = 7 * 24 * 3600

BATCH_SIZE, SMALLEST_BATCH, BATCHES_OF_A_SMALL_PLAN = 64, 2, 32
"""``--batch-size auto``: how many batches a plan has before any exceeds the smallest size: two for
each of 16 workers. Depends only on the data; otherwise, light would depend on the machine."""

# Incremented whenever a change alters the pixels for unchanged parameters.
ALGORITHM_VERSIONS: Mapping[Method, int] = {"classical": 3, "absgn": 2}

LARGEST_BATCH = 65_536

LIGHT_WINDOW = 20
"""Pixels: minimum side of the window for the atmospheric light; the map's window may be smaller. In
a window of one pixel, a single dark pixel would count as the haziest."""


def _as_tuple(value: object) -> object:
    """Accept ``method: classical`` in a config file where a list is meant."""
    return (value,) if isinstance(value, str) else value


def _as_batch_size(value: object) -> object:
    """``auto``, or a number, possibly as text from the command line."""
    text = str(value)
    if text == "auto":
        return text
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= LARGEST_BATCH):
        raise ValueError(f"must be 'auto' or a number from 1 to {LARGEST_BATCH}")
    return int(text)


def _as_max_failures(value: object) -> object:
    """A number, or a percentage such as ``5%`` or ``0.1%``."""
    text = str(value)
    try:
        number = float(text.removesuffix("%")) if text.endswith("%") else int(text)
    except ValueError:
        number = -1
    if not 0 <= number <= (100 if text.endswith("%") else math.inf):
        raise ValueError("must be a number of images such as 10, or a percentage such as 5%")
    return text


def _as_methods(value: object) -> object:
    value = _as_tuple(value)
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        if not value:
            raise ValueError("must name at least one method")
        return tuple(sorted(set(value), key=lambda name: (name not in METHODS, name)))
    return value


Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_as_tuple)]
Place = Annotated[str, BeforeValidator(lambda v: str(v) if isinstance(v, os.PathLike) else v)]


class JobConfig(Options):
    """One job. ``JobConfig(input="photos", workers=4)``.

    Raises ``pydantic.ValidationError`` for a value out of range or an unknown name.
    """

    command: ClassVar[str] = "run"

    input: Place = Field(
        min_length=1,
        description="Directory, image, s3://, gs:// or az:// prefix, or .txt, .csv, .parquet list.",
    )
    output: Place | None = Field(
        default=None,
        min_length=1,
        description="Where to write.",
        json_schema_extra={"default": "INPUT-enhanced; required for a list"},
    )
    include: Names = Field(
        default=(), description="Process only relative paths that match this glob; repeatable."
    )
    exclude: Names = Field(
        default=(), description="Skip relative paths that match this glob; repeatable."
    )
    follow_links: bool = Field(
        default=False,
        description="Also follow symbolic links to files outside the input, but never to folders.",
    )
    limit: int | None = Field(
        default=None,
        ge=1,
        description="Process only the first N images listed; a tar or Parquet file counts as one.",
    )
    copy_others: bool = Field(
        default=False, description="Also copy files that are not images, such as labels."
    )
    method: Annotated[tuple[Method, ...], BeforeValidator(_as_methods)] = Field(
        default=("classical",), description="Enhancement method; repeatable."
    )
    target_luminance: float = Field(
        default=0.45, gt=0, lt=1, description="Target mean luminance of dark images, 0 to 1."
    )
    not_dark: Literal["copy", "leave-out", "enhance"] = Field(
        default="copy",
        description="For images that are not dark: copy the file, write nothing, or enhance them.",
    )
    strength: float = Field(
        default=1, ge=0, le=1, description="Strength: 0 is the input, 1 is the method's result."
    )
    workers: int | None = Field(
        default=None,
        ge=0,
        description="Batches processed at once; 0: in this process, without Ray.",
        json_schema_extra={"default": "all CPUs of the cluster"},
    )
    gpu_workers: int | None = Field(
        default=None,
        ge=1,
        description="Number of ABSGN actors, each with a GPU of its own, or on CPUs.",
        json_schema_extra={"default": "one per GPU of the cluster, or per 8 CPUs"},
    )
    address: str | None = Field(
        default=None,
        min_length=1,
        description="Address of a Ray cluster.",
        json_schema_extra={"default": "RAY_ADDRESS, otherwise a Ray of its own"},
    )
    requests_per_second: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Maximum requests per second to object stores, over all workers.",
        json_schema_extra={"default": "as fast as the store accepts"},
    )
    batch_size: Annotated[Literal["auto"] | int, BeforeValidator(_as_batch_size)] = Field(
        default="auto",
        description="Images per batch; auto: 64, fewer if there are under 2048 images to process.",
    )
    atmospheric_light: Annotated[
        Literal["batch", "image"] | float, number_or(("batch", "image"), least=1, most=255)
    ] = Field(
        default="batch",
        description="'batch' (the mean), 'image' (each image's own), or a number from 1 to 255.",
    )
    omega: Annotated[Literal["auto"] | float, number_or(("auto",), least=0, most=1)] = Field(
        default="auto",
        description="Share of the haze to remove; auto: per image, to reach --target-luminance.",
    )
    t0: float = Field(default=0.05, gt=0, le=1, description="Lower bound of the transmission.")
    window: int = Field(
        default=1, ge=1, le=255, description="Side of the dark channel's window, in pixels."
    )
    denoise: Literal["none", "guided"] = Field(
        default="guided", description="How to reduce the noise that the gain amplifies."
    )
    model: ModelName | None = Field(
        default=None,
        description="Network to use; absgn-small has a quarter of the channels of absgn.",
        json_schema_extra={"default": "absgn on GPUs, absgn-small on CPUs"},
    )
    weights: Place | None = Field(
        default=None,
        min_length=1,
        description="A safetensors file of ABSGN weights.",
        json_schema_extra={"default": "the packaged weights"},
    )
    device: Device = Field(
        default="auto", description="Where to run ABSGN; auto: GPUs if the cluster has any."
    )
    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field(
        default="auto", description="Numeric precision of ABSGN; auto: fp16 on GPUs, fp32 on CPUs."
    )
    tile: int | None = Field(
        default=None,
        ge=64,
        description="Side of ABSGN's tiles, in pixels.",
        json_schema_extra={"default": "whole images, unless they need too much memory"},
    )
    format: Literal["same", "jpeg", "png", "webp", "tiff", "avif"] = Field(
        default="same", description="Output format; same: that of the input."
    )
    quality: int = Field(default=95, ge=1, le=100, description="Quality of lossy formats.")
    metadata: Literal["keep", "strict"] = Field(
        default="keep",
        description="keep: record what cannot be carried over; strict: fail such images.",
    )
    failed_images: Literal["keep", "drop", "drop-sample"] = Field(
        default="keep",
        description="Failed images in containers: keep the original, drop it, or drop its sample.",
    )
    image_column: Names = Field(
        default=(), description="In Parquet files, use images only of this column; repeatable."
    )
    max_pixels: int = Field(
        default=LARGEST_IMAGE,
        ge=1,
        le=2**30,
        description="Refuse larger images before decoding them.",
    )
    timeout: float = Field(
        default=TIMEOUT_S,
        gt=0,
        le=LONGEST_TIMEOUT_S,
        description="Seconds after which a batch is considered hung (at most a week).",
    )
    max_failures: Annotated[str, BeforeValidator(_as_max_failures)] = Field(
        default="0",
        description="Failed images tolerated before the exit code is 3: a number or P%.",
    )
    fail_fast: bool = Field(
        default=False,
        description="Stop as soon as more than --max-failures images have failed in this run.",
    )
    allow_empty: bool = Field(
        default=False, description="Accept an input that has no images, or no longer has any."
    )
    retry_failed: bool = Field(
        default=False, description="Also retry images that failed permanently."
    )
    overwrite: bool = Field(
        default=False, description="Redo everything, replacing what the output holds."
    )
    # A bare ``off`` is false in YAML.
    progress: Annotated[
        Literal["auto", "json", "off"], BeforeValidator(lambda v: "off" if v is False else v)
    ] = Field(
        default="auto",
        description="auto: a bar on a terminal, else a line every 30 s; json: one object a second.",
    )

    def allows_failures(self, failed: int, total: int) -> bool:
        """Whether a run with ``failed`` of ``total`` (input, method) pairs still succeeds."""
        if self.max_failures.endswith("%"):
            return failed <= total * float(self.max_failures.removesuffix("%")) / 100
        return failed <= int(self.max_failures)

    def images_per_batch(self, images: int) -> int:
        """The batch size of a plan with this many images."""
        if self.batch_size != "auto":
            return self.batch_size
        share = math.ceil(images / BATCHES_OF_A_SMALL_PLAN)
        return min(BATCH_SIZE, max(SMALLEST_BATCH, share))

    @property
    def images_per_group(self) -> int:
        """Images of a container that share a light; it does not depend on other containers."""
        return BATCH_SIZE if self.batch_size == "auto" else self.batch_size

    def is_dark(self, luminance: float) -> bool:
        """Whether an image of this mean luminance, 0..1, is enhanced."""
        return self.not_dark == "enhance" or luminance < self.target_luminance

    def fingerprint(self, method: Method, network: Mapping[str, Any] | None = None) -> Fingerprint:
        """What determines this method's pixels; ``network``: what only ABSGN depends on."""
        parameters: dict[str, Any] = {
            "method": method,
            "algorithm": self._algorithm(method),
            "max-pixels": self.max_pixels,
            "format": self.format,
            "quality": self.quality,
        }
        if self.metadata == "strict":  # outputs from before the option existed stay valid
            parameters["metadata"] = self.metadata
        if self.strength != OMITTED_DEFAULTS["strength"]:
            parameters["strength"] = self.strength
        if self.not_dark != OMITTED_DEFAULTS["not-dark"]:
            parameters |= {"not-dark": self.not_dark, "target-luminance": self.target_luminance}
        if method == "absgn":
            return Fingerprint({**parameters, **(network or {})})
        parameters |= {
            "atmospheric-light": self.atmospheric_light,
            "omega": self.omega,
            "t0": self.t0,
            "window": self.window,
            "denoise": self.denoise,
        }
        if self.omega == "auto":
            parameters["target-luminance"] = self.target_luminance
        if self.atmospheric_light == "batch":
            parameters["batch-size"] = self.batch_size
        return Fingerprint(parameters)

    def _algorithm(self, method: Method) -> int:
        """The version that last changed the pixels of opaque images for these parameters.

        Version 2 changed what is smoothed, and introduced ``LIGHT_WINDOW``; version 3 changed the
        smoothing and ``--omega auto``.
        """
        if method == "classical" and self.denoise == "none" and self.omega != "auto":
            return 1 if self.window >= LIGHT_WINDOW else 2
        return ALGORITHM_VERSIONS[method]

    @property
    def member_rules(self) -> dict[str, Any]:
        """What determines which members of a container are changed or left out, by option name."""
        return {
            name: value
            for name in ("include", "exclude", "failed_images", "image_column")
            if (value := getattr(self, name)) != type(self).model_fields[name].default
        }

    def container_digest(self, fingerprint: Fingerprint) -> str:
        """What determines a whole container, hashed as ``Fingerprint.digest`` is for an image."""
        rules = self.member_rules
        if not rules:
            return fingerprint.digest
        return Fingerprint({**fingerprint.parameters, **rules}).digest
