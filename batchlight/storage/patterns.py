"""``--include`` and ``--exclude``: globs on relative paths, as in a ``.gitignore``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pathspec import PathSpec

from batchlight.errors import UsageError

logger = logging.getLogger(__name__)


@dataclass
class _Pattern:
    option: str
    glob: str
    spec: PathSpec[Any]
    used: bool = False

    def note(self, path: str) -> None:
        """Remember whether any path has matched."""
        self.used = self.used or self.spec.match_file(path)


@dataclass(frozen=True)
class Patterns:
    """Which paths are wanted."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    _each: list[_Pattern] = field(default_factory=list, compare=False)

    @classmethod
    def of(cls, include: tuple[str, ...], exclude: tuple[str, ...]) -> Patterns:
        """Raises ``UsageError`` for what is no glob."""
        given = [("--include", glob) for glob in include] + [("--exclude", g) for g in exclude]
        return cls(include, exclude, [_Pattern(o, g, spec_of(o, (g,))) for o, g in given])

    @cached_property
    def _included(self) -> PathSpec[Any] | None:
        return spec_of("--include", self.include) if self.include else None

    @cached_property
    def _excluded(self) -> PathSpec[Any] | None:
        return spec_of("--exclude", self.exclude) if self.exclude else None

    def match(self, path: str) -> bool:
        """Whether an image of this path is wanted."""
        self.note(path)
        if self._included is not None and not self._included.match_file(path):
            return False
        return not self.excludes(path)

    def excludes(self, path: str) -> bool:
        """Whether ``--exclude`` names it."""
        return self._excluded is not None and self._excluded.match_file(path)

    def note(self, path: str) -> None:
        """Remember which patterns a path matches, whether it is that of an image or not."""
        for pattern in self._each:
            pattern.note(path)

    def note_where(self, is_used: Callable[[str], bool]) -> None:
        """Remember globs as used that ``is_used`` says may be."""
        for pattern in self._each:
            pattern.used = pattern.used or is_used(pattern.glob)

    def warn_of_unused(self) -> None:
        """Say which patterns have matched nothing."""
        for pattern in self._each:
            if not pattern.used and not pattern.glob.startswith("!"):
                logger.warning(
                    "%s %r matches nothing%s", pattern.option, pattern.glob, hint(pattern.glob)
                )


def hint(glob: str) -> str:
    """What may be wrong with a glob that matches nothing."""
    if "{" in glob or "," in glob:
        return "; braces and commas have no special meaning: give the option once for each pattern"
    if glob.startswith(("/", "./")):
        return "; it is matched against paths relative to the input, without './' or its folder"
    return "; it is matched against paths relative to the input, and case matters"


def spec_of(option: str, globs: tuple[str, ...]) -> PathSpec[Any]:
    """What matches any of the globs. Raises ``UsageError``."""
    try:
        # Unlike in a file of patterns, '#' begins no comment.
        return PathSpec.from_lines(
            "gitignore", ["\\" + g if g.startswith("#") else g for g in globs]
        )
    except ValueError as error:
        raise UsageError(f"{option} is not a valid glob pattern: {error}") from error
