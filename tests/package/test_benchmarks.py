"""The plot of the benchmarks, which takes too long to draw from real measurements."""

from __future__ import annotations

from pathlib import Path

from benchmarks import __main__ as plot
from benchmarks import core, job, scale
from benchmarks.measuring import Table


def test_the_plot_is_drawn_from_the_tables(tmp_path: Path) -> None:
    options = (core.CODEC_ALONE, core.ALL_DEFAULTS)
    speeds = ("1920x1080", 1, "42", "39", "39", "1.03", "1.02", "1.00", "1.00")
    assert len(speeds) == len(job.HEADER)
    tables = [
        Table(core.TITLE, (), [(core.KEPT, name, "11.5", "1") for name in options]),
        Table(job.TITLE, job.HEADER, [speeds]),
        Table(scale.TITLE, (), [("100,000", "1.0", "301"), ("1,000,000", "1.0", "302")]),
    ]
    plot.draw({table.title: table for table in tables}, tmp_path / "plot.svg")
    text = (tmp_path / "plot.svg").read_text()
    assert text.count("11.5 ms") == 2
    assert "23.8 ms" in text
    assert "25.6 ms" in text
