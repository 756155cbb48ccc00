"""The report, one self-contained HTML page about an output, and the contact sheet of a preview.

bins.py        sums along an axis of unknown length
folders.py     outcomes of images by folder
selections.py  which images are shown
digest.py      what the records say, in bounded memory
pictures.py    the images that are shown, read and shrunk
refused.py     pictures of images that a run refuses
cards.py       the images that are shown, before and after
meanings.py    explanations of the codes of failed images
failures.py    the failed images, by code
ending.py      how a run ended, with which options
axes.py        axes and what is drawn between them, as SVG
charts.py      the curves
writing.py     all of it as one page

contact_sheet.py   images enhanced with several settings side by side, as one page
sheet_drawing.py   the same as a PNG
detail.py          the part of an image that is shown at full resolution

rendering.py  rendering pages from templates
page/         their HTML, styles and scripts
fonts/        the font of the PNG
"""

from __future__ import annotations

from batchlight.report.writing import write_report

__all__ = ["write_report"]
