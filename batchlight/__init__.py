"""batchlight: enhance whole data sets of dark images, with nothing lost and everything recorded.

>>> import batchlight
>>> summary = batchlight.run(batchlight.JobConfig(input="photos", workers=4))
>>> brighter = batchlight.enhance(image)

Each command is also a function, which returns what the command prints. Importing this package
imports neither Ray, nor PyTorch, nor OpenCV; using it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchlight._version import __version__

__all__ = [
    "BatchlightError",
    "ClusterError",
    "DryRun",
    "ErrorCode",
    "Estimate",
    "Evaluation",
    "ExitCode",
    "ImageError",
    "Interrupted",
    "JobConfig",
    "LockedError",
    "Preview",
    "Problem",
    "Progress",
    "RepairOptions",
    "Status",
    "StorageError",
    "Summary",
    "Survey",
    "TrainConfig",
    "UsageError",
    "Verification",
    "__version__",
    "enhance",
    "evaluate",
    "make_report",
    "plan",
    "preview",
    "repair",
    "run",
    "status",
    "survey",
    "train",
    "verify",
]

if TYPE_CHECKING:
    from batchlight.config import JobConfig
    from batchlight.driver.dry_run import DryRun
    from batchlight.driver.dry_run import dry_run as plan
    from batchlight.driver.estimates import Estimate
    from batchlight.driver.preview import Preview, preview
    from batchlight.driver.progress import Progress
    from batchlight.driver.repair import RepairOptions, repair
    from batchlight.driver.report import make_report
    from batchlight.driver.run import run
    from batchlight.driver.verify import Verification, verify
    from batchlight.errors import (
        BatchlightError,
        ClusterError,
        ErrorCode,
        ExitCode,
        ImageError,
        Interrupted,
        LockedError,
        StorageError,
        UsageError,
    )
    from batchlight.in_memory import enhance
    from batchlight.output.status import Status
    from batchlight.output.status import read_status as status
    from batchlight.output.summary import Summary
    from batchlight.training.config import TrainConfig
    from batchlight.training.evaluate import Evaluation, evaluate
    from batchlight.training.survey import Survey, survey
    from batchlight.training.train import train
    from batchlight.worker.comparing import Problem

_HOMES = {
    "config": ("JobConfig",),
    "driver.dry_run": ("DryRun", "dry_run"),
    "driver.estimates": ("Estimate",),
    "driver.preview": ("Preview", "preview"),
    "driver.progress": ("Progress",),
    "driver.repair": ("RepairOptions", "repair"),
    "driver.report": ("make_report",),
    "driver.run": ("run",),
    "worker.comparing": ("Problem",),
    "driver.verify": ("Verification", "verify"),
    "errors": (
        "BatchlightError",
        "ClusterError",
        "ErrorCode",
        "ExitCode",
        "ImageError",
        "Interrupted",
        "LockedError",
        "StorageError",
        "UsageError",
    ),
    "in_memory": ("enhance",),
    "output.status": ("Status", "read_status"),
    "output.summary": ("Summary",),
    "training.config": ("TrainConfig",),
    "training.evaluate": ("Evaluation", "evaluate"),
    "training.survey": ("Survey", "survey"),
    "training.train": ("train",),
}
_OTHERWISE_CALLED = {"plan": "dry_run", "status": "read_status"}


def __getattr__(name: str) -> Any:
    own_name = _OTHERWISE_CALLED.get(name, name)
    home = next((module for module, names in _HOMES.items() if own_name in names), None)
    if name not in __all__ or home is None:
        raise AttributeError(f"module 'batchlight' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"batchlight.{home}"), own_name)
