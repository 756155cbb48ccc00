"""``--include`` and ``--exclude``: globs on relative paths, as in a ``.gitignore``."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
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
        """Mark the pattern as used if the path matches."""
        self.used = self.used or self.spec.match_file(path)


@dataclass(frozen=True)
class Patterns:
    """Selects paths."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    _each: list[_Pattern] = field(default_factory=list, compare=False)

    @classmethod
    def of(cls, include: tuple[str, ...], exclude: tuple[str, ...]) -> Patterns:
        """Raises ``UsageError`` for an invalid glob."""
        given = [("--include", glob) for glob in include] + [("--exclude", g) for g in exclude]
        return cls(include, exclude, [_Pattern(o, g, spec_of(o, (g,))) for o, g in given])

    @cached_property
    def _included(self) -> PathSpec[Any] | None:
        return spec_of("--include", self.include) if self.include else None

    @cached_property
    def _excluded(self) -> PathSpec[Any] | None:
        return spec_of("--exclude", self.exclude) if self.exclude else None

    def match(self, path: str) -> bool:
        """Whether an image with this path is selected."""
        self.note(path)
        if self._included is not None and not self._included.match_file(path):
            return False
        return not self.excludes(path)

    def excludes(self, path: str) -> bool:
        """Whether ``--exclude`` matches it."""
        return self._excluded is not None and self._excluded.match_file(path)

    def note(self, path: str) -> None:
        """Mark the patterns that match a path as used, whether or not it is an image."""
        for pattern in self._each:
            pattern.note(path)

    def note_where(self, is_used: Callable[[str], bool]) -> None:
        """Mark as used the globs for which ``is_used`` returns true."""
        for pattern in self._each:
            pattern.used = pattern.used or is_used(pattern.glob)

    @property
    def used(self) -> tuple[bool, ...]:
        """For each pattern, whether it has matched anything."""
        return tuple(pattern.used for pattern in self._each)

    def note_used(self, used: Sequence[bool]) -> None:
        """Remember what these same patterns have matched elsewhere."""
        for pattern, elsewhere in zip(self._each, used, strict=True):
            pattern.used = pattern.used or elsewhere

    def warn_of_unused(self) -> None:
        """Warn about patterns that have matched nothing."""
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
        return "; patterns match paths relative to the input, without './' or its folder"
    return "; patterns match paths relative to the input, and case matters"


def spec_of(option: str, globs: tuple[str, ...]) -> PathSpec[Any]:
    """A matcher of any of the globs. Raises ``UsageError``."""
    try:
        # Unlike in a pattern file, '#' does not start a comment.
        return PathSpec.from_lines(
            "gitignore", ["\\" + g if g.startswith("#") else g for g in globs]
        )
    except (ValueError, re.error) as error:
        raise UsageError(f"{option} is not a valid glob pattern: {error}") from error
