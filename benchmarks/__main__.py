"""All measurements of speed and memory: prints the tables and draws ``benchmarks/speed.svg``.

python -m benchmarks [FOLDER]        (photographs to measure with; half an hour)
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks import core, job, memory, s3, scale, shards, startup
from benchmarks.measuring import Table

PLOT = Path(__file__).with_name("speed.svg")
DRIVER_LIMIT_MB = 500


def main(folder: str | None) -> None:
    """Run one after another, printing each table as soon as it is complete."""
    found: dict[str, Table] = {}
    for module in (core, job, shards, s3, memory, startup):
        for table in module.tables(folder):
            found[table.title] = table
            print(f"### {table.title}\n\n{table}\n", flush=True)
    [found["The driver"]] = scale.tables()
    print(f"### The driver\n\n{found['The driver']}")
    draw(found, PLOT)


def draw(found: Mapping[str, Table], path: Path) -> None:
    """Time per image on the left, the driver's memory on the right."""
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "batchlight", "font.size": 9})
    figure = Figure(figsize=(9, 3), layout="constrained")
    bars, line = figure.subplots(1, 2)
    beside_codec = found["One core, JPEGs of 1920x1080"].lines[2:]
    large = found["The job beside a bare process pool"].lines[0]
    names = ["decode + encode", "with the method", "bare process pool", "the whole job"]
    rates = [float(str(rate)) for rate in (large[2], large[4])]
    values = [float(str(row[2])) for row in beside_codec] + [1000 / rate for rate in rates]
    bars.barh(names, values, color=["#9aa5b1", "#2f6f9f", "#9aa5b1", "#2f6f9f"])
    bars.bar_label(bars.containers[0], fmt="%.1f ms", padding=3)
    bars.invert_yaxis()
    bars.set_xlim(0, max(values) * 1.25)
    bars.set_title("One image of 1920x1080, one core")
    inputs, peaks = columns(found["The driver"].lines, 0, -1)
    line.semilogx(inputs, peaks, marker="o", color="#2f6f9f")
    line.axhline(DRIVER_LIMIT_MB, color="#9aa5b1", linestyle="--")
    line.set_ylim(0, DRIVER_LIMIT_MB * 1.2)
    line.set_xlabel("images of the data set")
    line.set_title("Peak memory of the driver, MB")
    for axes in (bars, line):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def columns(lines: Sequence[Sequence[object]], *which: int) -> list[list[float]]:
    """Some columns of a table as numbers."""
    return [[float(str(row[at]).replace(",", "")) for row in lines] for at in which]


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(__doc__)
    main(sys.argv[1] if len(sys.argv) == 2 else None)
