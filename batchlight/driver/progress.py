"""What a user or a scheduler sees while a job runs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from importlib import import_module
from typing import IO, Any, Literal, Protocol

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column
from rich.text import Text

from batchlight.errors import shown

LINE_EVERY_S = 30.0
JSON_EVERY_S = 1.0
NOTEBOOK_EVERY_S = 0.2


Unit = Literal["images", "files", "pairs"]


@dataclass(frozen=True)
class Progress:
    """How far a run is, in (input, method) pairs."""

    done: int
    """Pairs in batches that are committed or running."""
    total: int
    """With containers, an estimate until they are done."""
    failed: int
    elapsed_s: float
    skipped: int = 0
    unit: Unit = "images"
    """What to call the pairs: images, if there is one method and nothing else is copied."""
    more: bool = False
    """Whether the listing is unfinished, so that the total covers only what was planned so far."""

    @property
    def rate(self) -> float:
        """Pairs per second since the first batch was submitted."""
        return self.done / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds left at this rate; None while there is no rate or no known end."""
        return (self.total - self.done) / self.rate if self.rate and not self.more else None

    @property
    def of_how_many(self) -> str:
        """The total, marked if it will grow."""
        return f"{self.total:,}{'+' * self.more}"


OnProgress = Callable[[Progress], object]


class ProgressDisplay(Protocol):
    """Shows one run's progress."""

    def say(self, text: str) -> None:
        """Say what the run is about to do."""

    def update(self, state: Progress) -> None:
        """Show how far it is."""

    def close(self) -> None:
        """End the display; the run is over."""


class SilentDisplay:
    """``--progress off``."""

    def say(self, text: str) -> None:
        """Say nothing."""

    def update(self, state: Progress) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Leave nothing."""


class LineDisplay:
    """A line every 30 seconds, for logs."""

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._last = clock()

    def say(self, text: str) -> None:
        _print(shown(text), self._stream)

    def update(self, state: Progress) -> None:
        if self._clock() - self._last < LINE_EVERY_S:
            return
        self._last = self._clock()
        self.say(_in_words(state))

    def close(self) -> None:
        """The summary prints the rest."""


class JsonDisplay:
    """One JSON object per line, at most one per second, for programs."""

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._last = float("-inf")

    def say(self, text: str) -> None:
        self._print(event="message", text=text)

    def update(self, state: Progress) -> None:
        if self._clock() - self._last < JSON_EVERY_S and state.done < state.total:
            return
        self._last = self._clock()
        self._print(
            event="progress",
            done=state.done,
            total=state.total,
            more=state.more,
            skipped=state.skipped,
            failed=state.failed,
            elapsed_s=round(state.elapsed_s, 3),
            images_per_s=round(state.rate, 3),
            eta_s=None if state.eta_s is None else round(state.eta_s, 1),
        )

    def close(self) -> None:
        """The summary follows as an object of its own."""

    def _print(self, **event: object) -> None:
        _print(json.dumps(event), self._stream)


class BarDisplay:
    """A bar on a terminal, with as many details as fit its width, the most important first."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Bar(
            TextColumn("{task.fields[facts]}", table_column=Column(no_wrap=True)),
            BarColumn(),
            console=console,
        )
        self._task = self._progress.add_task("", total=None, facts="")
        self._started = False

    def say(self, text: str) -> None:
        self._console.print(shown(text), style="dim", highlight=False, markup=False)

    def update(self, state: Progress) -> None:
        if not self._started:
            self._progress.start()
            self._started = True
        self._progress.update(
            self._task, completed=state.done, total=state.total, facts=self._facts(state)
        )

    def close(self) -> None:
        if self._started:
            self._progress.stop()

    def _facts(self, state: Progress) -> str:
        facts = [f"{state.done:,}/{state.of_how_many}"]
        if state.failed:
            facts.append(f"[red]{state.failed:,} failed[/]")
        if state.eta_s is not None and state.done < state.total:
            facts.append(f"{duration(state.eta_s)} left")
        facts.append(f"{state.rate:.1f}/s")
        if state.skipped:
            facts.append(f"{state.skipped:,} skipped")
        while (
            len(facts) > 1
            and cell_len(Text.from_markup("  ".join(facts)).plain) >= self._console.width
        ):
            facts.pop()
        return "  ".join(facts)


class NotebookDisplay:
    """A bar in the output of a notebook cell; no widgets, so that a saved page shows it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        ipython: Any = import_module("IPython.display")  # always present in a notebook
        self._html = ipython.HTML
        self._clock = clock
        self._last = float("-inf")
        self._said = ""
        self._bar = ""
        self._handle = ipython.display(self._html(""), display_id=True)

    def say(self, text: str) -> None:
        self._said = f'<div style="opacity: 0.6">{escape(shown(text))}</div>'
        self._show()

    def update(self, state: Progress) -> None:
        if self._clock() - self._last < NOTEBOOK_EVERY_S and state.done < state.total:
            return
        self._last = self._clock()
        bar = f'<progress value="{state.done}" max="{state.total}"></progress>'
        self._bar = f"<div>{bar} {escape(_in_words(state))}</div>"
        self._show()

    def close(self) -> None:
        """The bar stays as it is."""

    def _show(self) -> None:
        self._handle.update(self._html(self._bar + self._said))


def duration(seconds: float) -> str:
    """A duration in its two largest units: ``5 d 3 h``, ``2 h 5 min``, ``40 s``."""
    rest = round(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, rest = divmod(rest, length)
        if number or (unit == "s" and not parts):
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2])


def _print(line: str, stream: IO[str]) -> None:
    """Print a line, ignoring write errors: a closed pipe or a full disk must not end a job."""
    with suppress(OSError):
        print(line, file=stream, flush=True)


def _is_notebook() -> bool:
    """Whether this process's output goes to a notebook; if so, IPython is already imported."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def _in_words(state: Progress) -> str:
    skipped = f", {state.skipped:,} skipped" if state.skipped else ""
    counts = f"{state.done:,}/{state.of_how_many} {state.unit}{skipped}, {state.failed:,} failed"
    return f"{counts}, {state.rate:.1f}/s{_left(state)}"


def _left(state: Progress) -> str:
    if state.eta_s is None or state.done >= state.total:
        return ""
    return f", {duration(state.eta_s)} left"


def make_display(mode: Literal["auto", "json", "off"]) -> ProgressDisplay:
    """The display that ``--progress`` asks for."""
    if mode == "off":
        return SilentDisplay()
    if mode == "json":
        return JsonDisplay(sys.stdout)
    if _is_notebook():
        return NotebookDisplay()
    console = Console(stderr=True, emoji=False)
    # Rich treats FORCE_COLOR, which CI logs set, as a terminal.
    drawable = sys.stderr.isatty() and not console.is_dumb_terminal
    return BarDisplay(console) if drawable else LineDisplay(sys.stderr)
