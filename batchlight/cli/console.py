"""What commands print: one fact per line, and problems, for people or programs."""

from __future__ import annotations

import itertools
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Column, Table

from batchlight.errors import counted, shown

if TYPE_CHECKING:
    from batchlight.driver.preview import Preview
    from batchlight.output.summary import Summary


def plain_console(*, stderr: bool = False, soft_wrap: bool = False) -> Console:
    """A console that neither highlights numbers in a text nor replaces emoji names."""
    return Console(stderr=stderr, soft_wrap=soft_wrap, highlight=False, emoji=False)


def print_summary(summary: Summary) -> None:
    """How a run ended."""
    colour = "green" if summary.exit_code == 0 else "yellow"
    print_facts("", summary.facts)
    console = plain_console(soft_wrap=True)
    reason = escape(shown(summary.reason))
    console.print(f"[bold {colour}]exit {summary.exit_code}[/]: {reason}")
    if summary.exit_code == 0:  # otherwise the reason says what to do
        console.print(f"next: {escape(shown(_next_command(summary)))}")


def _next_command(summary: Summary) -> str:
    """What most users do next."""
    output = shlex.quote(summary.output)
    if summary.failed:
        return f"batchlight failures {output}"
    return f"batchlight status {output}; or the same run again, for images that are new by then"


def print_comparison(found: Preview) -> None:
    """How the settings of a preview compare, and where it is."""
    for image in found.failed:
        print_trouble(image.name, image.code, image.reason)
    if found.shown:
        columns = [Column(name, justify="right") for name in ("luminance", "clipped", "ms/MP")]
        table = Table(Column("setting", overflow="fold"), *columns, box=None, pad_edge=False)
        for setting in found.settings:
            trouble = f" ({setting.failed} of {setting.images} failed)" if setting.failed else ""
            table.add_row(escape(shown(setting.title + trouble)), *setting.facts)
        plain_console(soft_wrap=not sys.stdout.isatty()).print(table)
    console = plain_console(soft_wrap=True)
    console.print(f"{counted(found.shown, 'image')} on the page {escape(shown(found.page))}")


@contextmanager
def telling() -> Iterator[Callable[[str], None]]:
    """Show on a terminal, in a transient line, what is being done."""
    console = plain_console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("") as status:
        yield lambda text: status.update(escape(shown(text)))


Counting = Callable[[str], Callable[[object, int], None]]
"""For a folder, a callback for each image that is done, with the total number."""


@contextmanager
def counting() -> Iterator[Counting]:
    """Show on a terminal, in a transient line, how many images of a folder are done."""
    with telling() as tell:

        def of(folder: str) -> Callable[[object, int], None]:
            done = itertools.count(1)
            return lambda _, total: tell(f"{folder}: {next(done):,} of {total:,} images")

        yield of


def print_trouble(path: str, *words: str) -> None:
    """What is wrong with an image: tab-separated for a program, two lines for a person."""
    path, *words = (shown(word) for word in (path, *words))  # type: ignore[assignment]
    if not sys.stdout.isatty():
        print("\t".join(word for word in (path, *words) if word), flush=True)
        return
    console = plain_console()
    # The path is on a line of its own, so that it can be copied even from a narrow terminal.
    console.print(escape(path), soft_wrap=True)
    console.print(Padding(f"[dim]{escape('  '.join(filter(None, words)))}[/]", (0, 0, 0, 4)))


def print_facts(title: str, facts: Mapping[str, str]) -> None:
    """One fact per line; on a terminal, long values wrap."""
    title, facts = shown(title), {shown(n): shown(value) for n, value in facts.items()}
    if not sys.stdout.isatty():
        width = max(map(len, facts))
        lines = [f"{name.ljust(width)}  {value}" for name, value in facts.items()]
        print("\n".join([title, *lines] if title else lines))
        return
    console = plain_console()
    if title:
        console.print(f"[bold]{escape(title)}[/]", soft_wrap=True)
    table = Table.grid(Column(no_wrap=True, style="dim"), Column(overflow="fold"), padding=(0, 2))
    for name, value in facts.items():
        table.add_row(escape(name), escape(value))
    console.print(table)
