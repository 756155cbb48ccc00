"""All measurements of speed and memory: prints the tables and draws ``benchmarks/speed.svg``.

python -m benchmarks [FOLDER]        (photographs to measure with; three quarters of an hour)
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
DRIVER_LIMIT_MB = 300


def main(folder: str | None) -> None:
    """Run one after another, printing each table as soon as it is complete."""
    found: dict[str, Table] = {}
    for module in (core, job, shards, s3, memory, startup):
        for table in module.tables(folder):
            found[table.title] = table
            print(f"### {table.title}\n\n{table}\n", flush=True)
    for table in scale.tables():
        found[table.title] = table
        print(f"### {table.title}\n\n{table}", flush=True)
    draw(found, PLOT)


def draw(found: Mapping[str, Table], path: Path) -> None:
    """Time per image on the left, the driver's memory on the right."""
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "batchlight", "font.size": 9})
    figure = Figure(figsize=(9, 3), layout="constrained")
    bars, line = figure.subplots(1, 2)
    core_ms = {line[:2]: float(str(line[2])) for line in found[core.TITLE].lines}
    large = found[job.TITLE].lines[0]
    values = {
        "decode + encode": core_ms[core.KEPT, core.CODEC_ALONE],
        "with the method": core_ms[core.KEPT, core.ALL_DEFAULTS],
        "bare process pool": 1000 / float(str(large[2])),
        "the whole job": 1000 / float(str(large[4])),
    }
    colours = ["#9aa5b1", "#2f6f9f"] * 2
    bars.barh(list(values), list(values.values()), color=colours)
    bars.bar_label(bars.containers[0], fmt="%.1f ms", padding=3)
    bars.invert_yaxis()
    bars.set_xlim(0, max(values.values()) * 1.25)
    bars.set_title("One image of 1920x1080, one core")
    inputs, peaks = columns(found[scale.TITLE].lines, 0, -1)
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
