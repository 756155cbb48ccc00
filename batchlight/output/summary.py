"""``summary.json``: how a run ended, for whoever cannot read its log."""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from batchlight._version import __version__
from batchlight.config import JobConfig
from batchlight.errors import ExitCode, counted
from batchlight.storage import Storage
from batchlight.storage.base import parse_json

SUMMARY = "summary.json"
_PACKAGES = (
    "ray",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "pyarrow",
    "obstore",
    "numba",
    "torch",
)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How a run ended. Counts are of (input, method) pairs unless they say otherwise."""

    run_id: str
    exit_code: int
    reason: str
    """One sentence."""
    input: str
    output: str
    started_at: str
    finished_at: str
    inputs: int = 0
    """Images of the listing."""
    ok: int = 0
    failed: int = 0
    failed_by_code: Mapping[str, int] = field(default_factory=dict)
    missing: int = 0
    """Pairs without a record: inputs x methods - ok - failed."""
    gone: int = 0
    """Records whose input is no longer there; in none of the counts above."""
    done_now: int = 0
    """Pairs done by this run, well or not."""
    done_before: int = 0
    """Pairs of the listing that this run did not have to touch."""
    input_bytes: int = 0
    output_bytes: int = 0
    elapsed_s: float = 0.0
    """From the first batch submitted to the last committed."""
    images_per_s: float = 0.0
    report_s: float = 0.0
    """What making the report took; zero if the one of an earlier run still holds."""
    config: Mapping[str, Any] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    network: Mapping[str, str] = field(default_factory=dict)
    """What ABSGN ran with: name, sha256 of the weights, device, precision."""
    versions: Mapping[str, str] = field(default_factory=dict)

    def judged(self, config: JobConfig, stopped_after: int | None) -> Summary:
        """The same, with the exit code and the reason that follow from its counts.

        ``stopped_after``: failures after which ``--fail-fast`` has stopped the run.
        """
        total = self.inputs * len(config.method)
        allowed = f"--max-failures {config.max_failures} allows"
        code, reason = ExitCode.OK, "all images are done"
        if stopped_after is not None:
            code, reason = (
                ExitCode.FAILURES,
                f"stopped early: {counted(stopped_after, 'image')} failed in this run, more than "
                f"{allowed}; run the same command again to go on",
            )
        elif self.missing:
            code, reason = (
                ExitCode.FATAL,
                f"{self.missing} of {total} images have no record; "
                "run the same command again, and report this if it stays so",
            )
        elif not config.allows_failures(self.failed, total):
            code, reason = (
                ExitCode.FAILURES,
                f"{self.failed} of {total} images failed, more than {allowed}; "
                f"see: batchlight failures {shlex.quote(self.output)}",
            )
        elif not self.inputs:
            reason = f"no images were found in {self.input}"
        elif self.failed:
            reason = f"{self.failed} of {total} images failed, which --max-failures allows"
        return replace(self, exit_code=code, reason=reason)

    def write(self, storage: Storage) -> None:
        """Store it, replacing that of the run before."""
        storage.write(SUMMARY, (self.to_json(indent=2) + "\n").encode())

    def to_json(self, indent: int | None = None) -> str:
        """The summary as a JSON object."""
        return json.dumps(asdict(self), indent=indent, ensure_ascii=False)


def read_summary(storage: Storage) -> Summary | None:
    """The summary of the last run that came to an end; None if none did."""
    try:
        return Summary(**parse_json(storage.read(SUMMARY), SUMMARY))
    except FileNotFoundError:
        return None


def package_versions() -> dict[str, str]:
    """What this run computes with."""
    found = {"batchlight": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
