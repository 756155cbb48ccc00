"""Runs in this process that end at a chosen write, as if the process had been killed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


class Died(BaseException):
    """Stands for the end of the process: nothing but the test catches it."""


def die_at(patch: pytest.MonkeyPatch, storage: type[Any], operation: int) -> Callable[[], int]:
    """Let every change to a kind of storage from the given one on fail.

    Returns what tells how many there were.
    """
    seen = 0

    def counted(name: str) -> Callable[..., Any]:
        original = getattr(storage, name)

        def wrapper(self: Any, *arguments: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen >= operation:
                raise Died
            return original(self, *arguments)

        return wrapper

    for name in ("write", "create", "delete"):
        patch.setattr(storage, name, counted(name))
    return lambda: seen
