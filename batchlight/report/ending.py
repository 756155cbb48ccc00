"""How a run ended, with which options and versions."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from batchlight.config import JobConfig
from batchlight.options import flag
from batchlight.output.summary import Summary


@dataclass(frozen=True)
class Ending:
    """The summary of a run in the terms of the user."""

    summary: Summary

    @property
    def well(self) -> bool:
        """Whether nothing needs attention."""
        return self.summary.exit_code == 0

    @property
    def when(self) -> str:
        """When it began, and how long it worked on images."""
        return f"began {_moment(self.summary.started_at)}, {self.summary.elapsed_s:,.1f} s of work"

    @property
    def options(self) -> Mapping[str, str]:
        """Options that were given, or that are needed to reproduce the result."""
        return {flag(name): _in_words(value) for name, value in self._given.items()}

    @property
    def defaults(self) -> Mapping[str, str]:
        """All other options."""
        return {
            flag(name): _in_words(value)
            for name, value in self.summary.config.items()
            if name not in self._given and value not in (None, [], False)
        }

    @property
    def command(self) -> str:
        """A shell command that does the same."""
        words = ["batchlight", "run"]
        for name, value in self._given.items():
            for one in value if isinstance(value, list) else [value]:
                words += [flag(name)] if one is True else [flag(name), str(one)]
        return shlex.join(words)

    @cached_property
    def _given(self) -> Mapping[str, Any]:
        """The values that differ from the defaults, by field."""
        defaults = JobConfig(input=".").model_dump(mode="json", exclude={"input"})
        return {
            name: value
            for name, value in self.summary.config.items()
            if name not in defaults or value != defaults[name]
        }

    @property
    def versions(self) -> str:
        """The versions that it was computed with."""
        return ", ".join(f"{name} {version}" for name, version in self.summary.versions.items())

    @property
    def network(self) -> str:
        """The network that ABSGN used."""
        return ", ".join(f"{name} {value}" for name, value in self.summary.network.items())


def _moment(text: str) -> str:
    try:
        return f"{datetime.fromisoformat(text):%d %b %Y, %H:%M:%S %Z}"
    except ValueError:  # from another version
        return text


def _in_words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is True else str(value)
