"""Runs in this process that end at a chosen write, as if the process had been killed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


class Died(BaseException):
    """Stands for the end of the process: nothing but the test catches it."""


def die_at(
    patch: pytest.MonkeyPatch, storage: type[Any], operation: int, writer: type[Any] | None = None
) -> Callable[[], int]:
    """Make every change to a kind of storage fail, from the given one on.

    ``writer``: its writer of files in pieces; nothing is cleaned up after one that has died.
    Returns a function that returns the number of changes.
    """
    seen = 0

    def counted(kind: type[Any], name: str) -> Callable[..., Any]:
        original = getattr(kind, name)

        def wrapper(self: Any, *arguments: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen >= operation:
                raise Died
            return original(self, *arguments)

        return wrapper

    for name in ("write", "create", "delete"):
        patch.setattr(storage, name, counted(storage, name))
    if writer is not None:
        for name in ("write", "commit"):
            patch.setattr(writer, name, counted(writer, name))
        patch.setattr(writer, "abort", lambda self: None)
    return lambda: seen
