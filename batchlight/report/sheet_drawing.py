"""A contact sheet as one PNG, drawn without a browser."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from importlib import resources

import cv2
from PIL import Image, ImageDraw, ImageFont

from batchlight.errors import shown
from batchlight.images.pixels import Pixels, in_colour
from batchlight.report.contact_sheet import Sheet, Shot
from batchlight.report.pictures import shrunk

CELL = 288
"""Pixels: the width of a column, and the maximum height of a whole picture."""
DETAIL = 120
"""Pixels: the height of a part shown at full resolution."""
GAP = 12
SMALL, TEXT, HEADING = 12, 14, 20
"""Font sizes, in pixels."""
LINE = 20
"""Line height, in pixels."""
FIRST_HEIGHT = 256
"""Of the canvas, which is enlarged when it is full."""
PAGE, INK, FAINT, EMPTY = "#fbfaf8", "#24211d", "#6d675e", "#111111"


def as_png(sheet: Sheet) -> bytes:
    """The sheet in light mode: names, options and facts above and below the same pictures."""
    columns = 1 + len(sheet.settings)
    canvas = _Canvas(GAP + columns * (CELL + GAP))
    canvas.text(GAP, sheet.input, INK, size=HEADING, width=canvas.width - 2 * GAP)
    for note in sheet.notes:
        canvas.text(GAP, note, FAINT, width=canvas.width - 2 * GAP)
    canvas.down(GAP)
    comparisons = [" · ".join(_facts(setting.facts)) for setting in sheet.settings]
    canvas.in_columns(["original", *(setting.title for setting in sheet.settings)], INK)
    canvas.in_columns(["", *comparisons], FAINT, SMALL)
    for row in sheet.rows:
        canvas.down(GAP)
        canvas.text(GAP, f"{row.name}   {row.facts}", INK, width=canvas.width - 2 * GAP)
        canvas.shots([row.original, *(cell.shot for cell in row.cells)])
        canvas.in_columns(["", *(cell.facts for cell in row.cells)], FAINT, SMALL)
    for image in sheet.failed:
        line = f"{image.name}   {image.code}: {image.reason}"
        canvas.text(GAP, line, FAINT, width=canvas.width - 2 * GAP)
    return canvas.png()


class _Canvas:
    """Drawn from top to bottom; its final height is that of its content."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._image = Image.new("RGB", (width, FIRST_HEIGHT), PAGE)
        self._y = GAP

    def down(self, pixels: int) -> None:
        """Move down, extending the canvas."""
        self._y += pixels

    def text(self, x: int, text: str, colour: str, *, width: int, size: int = TEXT) -> None:
        """A text, in as many lines as it needs."""
        for line in _wrapped(text, width, size):
            self._draw(size + GAP).text((x, self._y), line, colour, _font(size))
            self.down(LINE * size // TEXT)

    def in_columns(self, texts: Sequence[str], colour: str, size: int = TEXT) -> None:
        """Texts side by side."""
        top = bottom = self._y
        for number, text in enumerate(texts):
            self._y = top
            self.text(GAP + number * (CELL + GAP), text, colour, width=CELL, size=size)
            bottom = max(bottom, self._y)
        self._y = bottom

    def shots(self, shots: Sequence[Shot | None]) -> None:
        """Whole pictures side by side, with their details below."""
        wholes = [None if shot is None else shrunk(shot.whole, CELL) for shot in shots]
        details = [None if shot is None else shot.detail for shot in shots]
        height = max(whole.shape[0] for whole in wholes if whole is not None)
        for kind, row in ((height, wholes), (DETAIL, details)):
            for number, pixels in enumerate(row):
                self._paste(GAP + number * (CELL + GAP), pixels, kind)
            self.down(kind + GAP // 3)

    def png(self) -> bytes:
        """The drawing as a PNG."""
        buffer = io.BytesIO()
        self._image.crop((0, 0, self.width, self._y + GAP)).save(buffer, "PNG")
        return buffer.getvalue()

    def _paste(self, x: int, pixels: Pixels | None, height: int) -> None:
        """Pixels centred in a field of that height, cropped if they are larger."""
        draw = self._draw(height)
        draw.rectangle((x, self._y, x + CELL - 1, self._y + height - 1), EMPTY)
        if pixels is None:
            return
        top, left = (
            max(0, (n - m) // 2) for n, m in zip(pixels.shape, (height, CELL), strict=False)
        )
        part = in_colour(pixels)[top : top + height, left : left + CELL]
        rgb = Image.fromarray(cv2.cvtColor(part, cv2.COLOR_BGR2RGB))
        at = (x + (CELL - rgb.width) // 2, self._y + (height - rgb.height) // 2)
        self._image.paste(rgb, at)

    def _draw(self, room: int) -> ImageDraw.ImageDraw:
        needed = self._y + room + GAP
        if needed > self._image.height:
            higher = Image.new("RGB", (self.width, 2 * needed), PAGE)
            higher.paste(self._image)
            self._image = higher
        return ImageDraw.Draw(self._image)


def _facts(values: tuple[str, str, str]) -> list[str]:
    luminance, clipped, milliseconds = values
    if not luminance:
        return []
    return [f"luminance {luminance}", f"clipped {clipped}", f"{milliseconds} ms/MP"]


def _wrapped(text: str, width: int, size: int) -> list[str]:
    """Lines no wider than ``width``; long words are broken."""
    font = _font(size)
    lines = [""]
    for word in shown(text).split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which covers more scripts than Pillow's own font."""
    file = resources.files("batchlight.report") / "fonts" / "DejaVuSans.ttf"
    return ImageFont.truetype(io.BytesIO(file.read_bytes()), size)
