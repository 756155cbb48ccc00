"""The report: one self-contained HTML page about an output, made from its records.

bins.py      sums along an axis whose length nobody knows yet
digest.py    what the records say, in bounded memory
pictures.py  the images that are shown, read and made small
charts.py    the curves, as SVG
writing.py   all of it as one page
page/        its HTML, style and script
"""

from __future__ import annotations

from batchlight.report.writing import write_report

__all__ = ["write_report"]
