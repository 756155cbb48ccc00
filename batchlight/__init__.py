"""batchlight: enhance whole data sets of dark images, with nothing lost and everything recorded.

>>> import batchlight
>>> summary = batchlight.run(batchlight.JobConfig(input="photos", workers=4))
>>> brighter = batchlight.enhance(image)

Importing this imports neither Ray, nor PyTorch, nor OpenCV; using it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchlight._version import __version__

__all__ = [
    "BatchlightError",
    "JobConfig",
    "Preview",
    "Progress",
    "Summary",
    "__version__",
    "enhance",
    "preview",
    "run",
]

if TYPE_CHECKING:
    from batchlight.config import JobConfig
    from batchlight.driver.preview import Preview, preview
    from batchlight.driver.progress import Progress
    from batchlight.driver.run import run
    from batchlight.errors import BatchlightError
    from batchlight.in_memory import enhance
    from batchlight.output.summary import Summary

_HOMES = {
    "BatchlightError": "errors",
    "JobConfig": "config",
    "Preview": "driver.preview",
    "Progress": "driver.progress",
    "Summary": "output.summary",
    "enhance": "in_memory",
    "preview": "driver.preview",
    "run": "driver.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'batchlight' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"batchlight.{_HOMES[name]}"), name)
