"""In a notebook: a bar in the cell, a summary that shows itself, and a loop that runs already."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import batchlight
from batchlight.config import JobConfig
from batchlight.errors import Interrupted
from batchlight.output.summary import Summary
from tests.support.helpers import has_parts, write_images

RUN = """
import batchlight
summary = batchlight.run(batchlight.JobConfig(input="in<b>", workers={workers}, batch_size=2))
summary
"""


def executed(folder: Path, source: str) -> list[Any]:
    """The outputs of a cell in a kernel of its own."""
    v4: Any = nbformat.v4
    notebook = v4.new_notebook(cells=[v4.new_code_cell(source)])
    client = NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    outputs: list[Any] = notebook.cells[0].outputs
    return outputs


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.nightly)])
def test_a_cell_shows_a_bar_and_the_summary(
    tmp_path: Path, workers: int, request: pytest.FixtureRequest
) -> None:
    if workers:
        request.getfixturevalue("shared_ray")
    write_images(tmp_path / "in<b>", 5)
    outputs = executed(tmp_path, RUN.format(workers=workers))
    # And nothing else, but for Ray, which misses its widgets when it is imported.
    streams = [output.text for output in outputs if output.output_type == "stream"]
    assert all("ipywidgets" in text for text in streams)
    bar, summary = (output.data["text/html"] for output in outputs if "data" in output)
    assert '<progress value="5" max="5">' in bar
    assert "5/5 images, 0 failed" in bar
    assert "<td style=" in summary
    assert "exit 0: all images are done" in summary
    assert "in&lt;b&gt;-enhanced" in summary
    assert "<b>" not in bar + summary


def test_a_summary_is_escaped() -> None:
    summary = Summary(
        run_id="1",
        exit_code=1,
        reason="<script>x</script>",
        input="in",
        output="<img src=x>\x1b[31m",
        started_at="",
        finished_at="",
        passed_over={".<b>": 1},
    )
    page = summary._repr_html_()
    assert not any(word in page for word in ("<script", "<img", "<b>", "\x1b"))
    assert "&lt;script&gt;" in page


def run(folder: Path, **options: Any) -> batchlight.Summary:
    return batchlight.run(JobConfig(input=str(folder), workers=0, progress="off", **options))


def test_a_run_inside_a_running_loop_returns_and_leaves_the_loop_alone(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 3)

    async def cell() -> tuple[batchlight.Summary, str]:
        other = asyncio.create_task(asyncio.sleep(0, "still there"))
        return run(tmp_path / "in"), await other

    summary, other = asyncio.run(cell())
    assert (summary.ok, other) == (3, "still there")


def test_a_run_inside_a_running_loop_can_be_interrupted(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 60, height=240, width=320)
    before = signal.getsignal(signal.SIGINT)

    async def cell() -> None:
        run(tmp_path / "in", batch_size=1)

    def strike() -> None:
        while not has_parts(tmp_path / "in-enhanced", 2):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=strike, daemon=True)
    thread.start()
    with pytest.raises(Interrupted, match="interrupted by SIGINT; run the same command again"):
        asyncio.run(cell())
    thread.join()
    assert signal.getsignal(signal.SIGINT) == before
    assert run(tmp_path / "in", batch_size=1).ok == 60
