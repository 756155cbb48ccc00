"""Taking turns on a shared device: one call computes while the others transfer data."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from inspect import isgeneratorfunction
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")

Turns: TypeAlias = Generator[None, None, T]
"""Yields alternately when it needs a turn and when it no longer does; returns the result."""


def in_turns(
    function: Callable[..., Any],
    arguments: Sequence[object],
    turn: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Any:
    """Call a function; what it does in its turns runs inside ``turn()``.

    A function that is not a generator is all one turn. Raises what it raises.
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
