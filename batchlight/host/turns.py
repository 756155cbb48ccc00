"""Work on a processor that several calls share: one has its turn, the others go on beside it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from inspect import isgeneratorfunction
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")

Turns: TypeAlias = Generator[None, None, T]
"""Yields where it needs a turn and where it no longer needs it, alternately; returns the result."""


def in_turns(
    function: Callable[..., Any],
    arguments: Sequence[object],
    turn: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Any:
    """Call a function, what it does in its turns within ``turn()``.

    A function that is no generator has one turn, all of it. Raises what it raises.
    """
    if not isgeneratorfunction(function):
        with turn():
            return function(*arguments)
    work = function(*arguments)
    try:
        while True:
            next(work)
            with turn():
                next(work)
    except StopIteration as end:
        return end.value
