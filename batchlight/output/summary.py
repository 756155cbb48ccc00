"""``summary.json``: how a run ended, for readers without access to its log."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from batchlight._version import __version__
from batchlight.config import JobConfig, Method
from batchlight.errors import ExitCode, StorageError, UsageError, counted, in_bytes, shown
from batchlight.images.names import passed_over_in_words
from batchlight.output.documents import Document, parse, serialise
from batchlight.output.layout import REPORT, SUMMARY, state_trouble
from batchlight.output.records import Tally
from batchlight.storage import Location, Storage

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


class Summary(Document):
    """How a run ended: the fields of ``summary.json``.

    Counts are in (image, method) pairs unless stated otherwise.
    """

    run_id: str
    exit_code: int
    reason: str
    """One sentence."""
    input: str
    output: str
    started_at: str
    finished_at: str
    inputs: int = 0
    """Images of the listing, and those in containers as far as these have records."""
    containers: int = 0
    """Of the listing. One that is damaged, not done, or without images counts as one image."""
    beside: int = 0
    """Files beside containers, which are copied with them; in none of the other counts."""
    others: int = 0
    """Files of the listing that are not images but are copied."""
    pairs: int = 0
    """Images, and others, x methods; equal to their number if there is one method."""
    counted: bool = True
    """False if a run that ended early had no time left to count the rows in its output: then
    ``ok``, ``skipped``, ``failed``, ``missing``, ``done_before`` and the bytes are zero."""
    ok: int = 0
    skipped: int = 0
    """Pairs whose image was not dark, and so was copied or left out; containers without images."""
    copied: int = 0
    """Pairs of other files."""
    failed: int = 0
    failed_by_code: Mapping[str, int] = {}
    lost_by_name: Mapping[str, int] = {}
    """How many outputs lack what their input had, by name: the column ``lost``."""
    missing: int = 0
    """Pairs without a record: pairs - ok - skipped - copied - failed."""
    gone: int = 0
    """Records whose input no longer exists; in none of the counts above."""
    not_selected: int = 0
    """Records whose input the options do not select; in none of the counts above."""
    passed_over: Mapping[str, int] = {}
    """Files of the listing that are not images, by suffix."""
    pairs_now: int = 0
    """Pairs in the plans of this run, including those done before it resumed a plan."""
    failed_now: int = 0
    """Those of them that failed; they determine the exit code."""
    done_now: int = 0
    """Pairs done by this run, whether they failed or not."""
    done_before: int = 0
    """Pairs of the listing that this run did not have to process."""
    input_bytes: int = 0
    """Of all recorded pairs: with two methods, an image counts twice."""
    output_bytes: int = 0
    read_bytes: int = 0
    """Of images that this run has read; an image that had to be read again counts again."""
    written_bytes: int = 0
    """Bytes of the outputs of this run."""
    elapsed_s: float = 0.0
    """From the first batch submitted to the last committed."""
    images_per_s: float = 0.0
    report_s: float = 0.0
    """Time to make the report; zero if that of an earlier run is still up to date."""
    config: Mapping[str, Any] = {}
    fingerprints: Mapping[str, str] = {}
    network: Mapping[str, str] = {}
    """What ABSGN ran with: name, sha256 of the weights, device, precision."""
    versions: Mapping[str, str] = {}

    def judged(self, config: JobConfig, stopped_after: int | None) -> Summary:
        """The same summary, with the exit code and the reason that follow from its counts.

        ``stopped_after``: the failures after which ``--fail-fast`` stopped the run.
        """
        code = ExitCode.OK
        if stopped_after is not None:
            code = ExitCode.FAILURES
        elif self.missing:
            code = ExitCode.FATAL
        elif not config.allows_failures(self.failed_now, self.pairs_now):
            code = ExitCode.FAILURES
        reason = self._reason(code, f"--max-failures {config.max_failures} allows", stopped_after)
        return self.model_copy(update={"exit_code": int(code), "reason": reason})

    def in_pairs(self, number: int) -> str:
        """A number of pairs in words; with one method, a number of images."""
        thing = "file" if self.others else "image"
        if self.pairs == self.inputs + self.others:
            return counted(number, thing)
        return counted(number, f"({thing}, method) pair")

    @property
    def facts(self) -> dict[str, str]:
        """What the user is told about a run, by line; empty values are left out."""
        unit = "" if self.pairs == self.inputs + self.others else " pairs"

        def some(number: int, of: str = unit) -> str:
            return f"{number:,}{of}" if number else ""

        read, written = in_bytes(self.read_bytes), in_bytes(self.written_bytes)
        rate = f"{self.images_per_s:.1f}{unit or ' images'}/s"
        facts = {
            "images": f"{self.inputs:,}",
            "in containers": some(self.containers, ""),
            "beside containers": some(self.beside, ""),
            "other files": some(self.others, ""),
            "(image, method)": some(self.pairs if unit else 0),
            "ok": f"{self.ok:,}{unit}",
            self._skipped_as: some(self.skipped),
            "copied": some(self.copied),
            "failed": some(self.failed),
            **{f"  {code}": some(number) for code, number in self.failed_by_code.items()},
            **{
                f"without {name}": some(number, " outputs" if unit else "")
                for name, number in sorted(self.lost_by_name.items())
            },
            "done by this run": f"{self.done_now:,}{unit}",
            "done before": some(self.done_before),
            "gone since": some(self.gone),
            "not selected": some(self.not_selected),
            "passed over": passed_over_in_words(self.passed_over.items()),
            "read, written": f"{read}, {written}",
            "time": f"{self.elapsed_s:.1f} s, {rate}" if self.done_now else "",
            **self._places,
        }
        return {name: value for name, value in facts.items() if value}

    @property
    def _skipped_as(self) -> str:
        if self.containers:  # one without images has a row of this status
            return "skipped: not dark, or no images in it"
        return "skipped, not dark"

    @property
    def _places(self) -> dict[str, str]:
        output = Location.parse(self.output)
        methods = self.config.get("method", [])
        return {
            "enhanced images": ", ".join(str(output.joined(method)) for method in methods),
            "report": str(output.joined(REPORT)),
        }

    def _repr_html_(self) -> str:
        """The rich representation in a notebook."""
        rows = "".join(
            f'<tr><td style="text-align: left">{escape(shown(name))}</td>'
            f'<td style="text-align: left">{escape(shown(value))}</td></tr>'
            for name, value in self.facts.items()
        )
        return f"<table>{rows}</table><p>exit {self.exit_code}: {escape(shown(self.reason))}</p>"

    def _reason(self, code: int, allowed: str, stopped_after: int | None) -> str:
        """One sentence."""
        see = f"see: batchlight failures {shlex.quote(self.output)}"
        if stopped_after is not None:
            return (
                f"stopped early: {self.in_pairs(stopped_after)} failed in this run, more than "
                f"{allowed}; run the same command again to continue"
            )
        if self.missing:
            return (
                f"{self.missing} of {self.in_pairs(self.pairs)} have no record; "
                "run the same command again, and report this if it persists"
            )
        if not self.inputs:
            return f"no images were found in {self.input}"
        if self.failed_now:
            failed = f"{self.failed_now} of {self.in_pairs(self.pairs_now)} failed in this run"
            more = f"more than {allowed}; {see}"
            return f"{failed}, {more if code else 'which --max-failures allows'}"
        if self.failed:
            done = "everything new is done" if self.pairs_now else "nothing to do"
            failed = f"{self.in_pairs(self.failed)} failed in earlier runs"
            return f"{done}; {failed} ({see}), and --retry-failed tries again"
        done = f"all {'files' if self.others else 'images'} are done"
        return done if self.pairs_now else f"nothing to do, {done}"

    def write(self, storage: Storage) -> None:
        """Store it, replacing that of the previous run."""
        storage.write(SUMMARY, serialise(self))

    def to_json(self) -> str:
        """The summary as a JSON object on one line."""
        return self.model_dump_json()


def counts_of(rows: Tally) -> dict[str, Any]:
    """The fields of a summary that cover all recorded rows."""
    return {
        "ok": rows.ok,
        "skipped": rows.skipped,
        "copied": rows.copied,
        "failed": rows.failed,
        "failed_by_code": dict(rows.failed_by_code),
        "lost_by_name": dict(rows.lost_by_name),
        "input_bytes": rows.input_bytes,
        "output_bytes": rows.output_bytes,
    }


def read_summary(storage: Storage) -> Summary | None:
    """The summary of the last run that ended properly; None if none did."""
    try:
        with state_trouble(SUMMARY):
            data = storage.read(SUMMARY)
    except FileNotFoundError:
        return None
    return parse(Summary, data, SUMMARY, advice="the next run writes it anew")


def require_own(storage: Storage, output: Location, methods: Sequence[Method]) -> None:
    """Raise ``UsageError`` if a first run would replace files that no run has made.

    Those of an output whose plans were removed are its own, which its summary shows.
    """
    finished = False
    for path, is_own in ((SUMMARY, _is_summary), (REPORT, _is_report)):
        try:
            with state_trouble(path):
                data = storage.read(path)
        except FileNotFoundError:
            continue
        if not is_own(data):
            raise _foreign(output, f"a {path}")
        finished = True
    for method in () if finished else methods:
        if storage.names(method) or storage.folders(method):
            raise _foreign(output, f"a folder {method}")


def _foreign(output: Location, what: str) -> UsageError:
    return UsageError(
        f"{output} contains {what}, which batchlight did not create and would overwrite; "
        "move it, choose another --output, or replace it with --overwrite"
    )


def _is_summary(data: bytes) -> bool:
    try:
        parse(Summary, data, SUMMARY)
    except StorageError:
        return False
    return True


def _is_report(data: bytes) -> bool:
    return b"batchlight" in data


def package_versions() -> dict[str, str]:
    """The versions that this run computes with."""
    found = {"batchlight": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
