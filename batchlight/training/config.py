"""``TrainConfig``: every option of ``train``, validated, frozen."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from batchlight.config import Device, ModelName, Names
from batchlight.options import Options

_UNITS_S = {"s": 1, "m": 60, "h": 3600}


def _as_seconds(value: object) -> object:
    """A time such as ``90s``, ``9m`` or ``1.5h``; a bare number is seconds."""
    text = str(value)
    unit = _UNITS_S.get(text[-1:], 0)
    try:
        seconds = float(text[:-1] if unit else text) * (unit or 1)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ValueError("must be a time such as 90s, 9m or 1.5h")
    return seconds


class TrainConfig(Options):
    """Options of one training run. ``TrainConfig(data="pairs", out="mine.safetensors")``.

    Raises ``pydantic.ValidationError`` for a value out of range or an unknown name.
    """

    command: ClassVar[str] = "train"

    data: str = Field(
        min_length=1,
        description="Folder of image pairs: dark images in low/, their references in high/.",
    )
    clean: Names = Field(
        default=(),
        description="Folder of well-lit photographs from which dark ones are synthesized; "
        "repeatable.",
    )
    validation_data: str | None = Field(
        default=None,
        min_length=1,
        description="Pairs used only for validation, for example from another camera.",
    )
    out: str = Field(min_length=1, description="Local file to write the weights to.")
    model: ModelName = Field(
        default="absgn",
        description="Network to train: absgn (32 channels) or absgn-small (8).",
    )
    weights: str | None = Field(
        default=None,
        min_length=1,
        description="Weights to start from.",
        json_schema_extra={"default": "random initialization"},
    )
    epochs: int = Field(default=300, ge=1, description="Number of passes over the pairs.")
    time_limit: Annotated[float, BeforeValidator(_as_seconds)] | None = Field(
        default=None,
        description="Time to train for, such as 9m or 1.5h, instead of --epochs; "
        "the learning rate follows the time left.",
    )
    size: int = Field(default=256, ge=16, multiple_of=8, description="Side of a sample, in pixels.")
    batch_size: int = Field(default=5, ge=1, description="Samples per step and process.")
    learning_rate: float = Field(
        default=4e-4, gt=0, le=1, description="Peak learning rate, on a cosine schedule."
    )
    whole: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of samples that show whole images; in the last third, all do.",
    )
    validation: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Share of the pairs held out for validation, by whole scenes.",
    )
    seed: int = Field(default=0, ge=0, description="Random seed.")
    device: Device = Field(
        default="auto", description="Where to train; auto: GPUs if there are any."
    )
    gpu_workers: int | None = Field(
        default=None,
        ge=1,
        description="Processes that train together, each with one GPU.",
        json_schema_extra={"default": "one per GPU of this machine or cluster"},
    )
    address: str | None = Field(
        default=None,
        min_length=1,
        description="Address of a Ray cluster.",
        json_schema_extra={"default": "RAY_ADDRESS, otherwise this machine"},
    )
