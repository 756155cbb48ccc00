"""A clean estimate of a noisy image: an affine function of its pixels, by cells.

A guided filter whose guide is the image itself (He, Sun and Tang, "Guided Image Filtering", TPAMI
2013): within a window of mean m and variance s2, noise of variance n2 is separated from signal by

    e = m + s2 / (s2 + n2) (v - m)

once for luminance and once for colour, which is smoothed more, since its noise is more visible than
a loss of detail. Statistics are taken from cells of 4 x 4 pixels and their eight neighbours, and
the coefficients are interpolated (He and Sun, "Fast Guided Filter", 2015). A neighbour counts less
the more its luminance differs, so that a star or a lamp does not pass for texture in the sky around
it. With the difference d of the cells' means:

    weight = (s^2 / (s^2 + d^2))^2

All arithmetic is float32 without fused operations, so that all CPUs give the same pixels. Loops are
written to be vectorized: no branches, few arrays each.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from batchlight.classical.planes import split
from batchlight.images.kernels import kernel
from batchlight.images.pixels import LUMINANCE, Pixels

CELL = 4
"""Side of a cell, in pixels. ``_spread`` is written for this size."""

LUMINANCE_NOISE = 1.5 / 255
"""n, standard deviation of the luminance noise, on 0..1."""

COLOUR_NOISE = 8 / 255
"""n for colour: for the length of (blue, green, red) - luminance, on 0..1."""

SIMILAR = 2 * LUMINANCE_NOISE
"""s: a neighbouring cell whose mean luminance differs by this much has a weight of 1/4."""

STATISTICS = 5
"""Per cell: means of blue, green, red, luminance squared, and colour's length squared."""

COEFFICIENTS = 5
"""Per cell, for e = colour * v + grey * luminance(v) + offset: colour, grey, three offsets."""

Float32 = npt.NDArray[np.float32]

BLUE, GREEN, RED = (np.float32(weight) for weight in LUMINANCE)
ZERO, ONE = np.float32(0), np.float32(1)
_NEAR, _FAR = np.float32(1 / 8), np.float32(3 / 8)
"""Weights of a neighbouring cell for the pixels of a cell, by distance from its centre."""
_OF_CELL = np.float32(1 / CELL**2)


def estimate_by_cells(rows: Pixels, width: int, rgb: bool) -> Float32:
    """The coefficients of all cells.

    ``rows``: (height, width * channels), uint8 or uint16. ``rgb``: red comes first. Returns
    (cells down, ``COEFFICIENTS``, cells across + 2), the cells at both ends twice.
    """
    top = np.iinfo(rows.dtype).max
    cells = (-(-rows.shape[0] // CELL), STATISTICS, -(-width // CELL) + 2)
    statistics, coefficients = np.empty(cells, np.float32), np.empty(cells, np.float32)
    _describe(rows, width, rgb, statistics)
    noise, colour_noise, similar = (
        np.float32((deviation * top) ** 2) for deviation in (LUMINANCE_NOISE, COLOUR_NOISE, SIMILAR)
    )
    _fit(statistics, noise, colour_noise, similar, coefficients)
    return coefficients


@kernel
def interpolate(coefficients: Float32, y: int, between: Float32, out: Float32) -> None:
    """The coefficients of the pixels of row ``y``.

    ``out``: (``COEFFICIENTS``, ``CELL`` * cells across). ``between``: buffer, (``COEFFICIENTS``,
    cells across + 2).
    """
    last = coefficients.shape[0] - 1
    cell, at = y // CELL, y % CELL
    other = max(cell - 1, 0) if at < CELL // 2 else min(cell + 1, last)
    share = _FAR if at in (0, CELL - 1) else _NEAR
    for k in range(COEFFICIENTS):
        _mix(coefficients[cell, k], coefficients[other, k], share, between[k])
        _spread(between[k], out[k])


@kernel
def _mix(one: Float32, other: Float32, share: np.float32, out: Float32) -> None:
    rest = ONE - share
    for x in range(out.size):
        out[x] = rest * one[x] + share * other[x]


@kernel
def _spread(cells: Float32, out: Float32) -> None:
    """From one value per cell to one per pixel."""
    one, two, three, four = np.uintp(1), np.uintp(2), np.uintp(3), np.uintp(4)
    of_far, of_near = ONE - _FAR, ONE - _NEAR
    for cell in range(cells.size - 2):
        at = four * np.uintp(cell)
        left, here = cells[np.uintp(cell)], cells[np.uintp(cell) + one]
        right = cells[np.uintp(cell) + two]
        out[at] = _FAR * left + of_far * here
        out[at + one] = _NEAR * left + of_near * here
        out[at + two] = _NEAR * right + of_near * here
        out[at + three] = _FAR * right + of_far * here


@kernel
def _describe(rows: Pixels, width: int, rgb: bool, statistics: Float32) -> None:
    """Fill in the statistics of all cells.

    ``rows``: (height, width * channels). ``statistics``: (cells down, ``STATISTICS``, cells across
    + 2), the cells at both ends twice. Cells that the border cuts repeat its pixels.
    """
    whole = CELL * (statistics.shape[2] - 2)
    blue = np.empty((CELL, whole), rows.dtype)
    green, red = np.empty_like(blue), np.empty_like(blue)
    columns = np.empty((STATISTICS, whole), np.float32)
    for cell in range(statistics.shape[0]):
        for i in range(CELL):
            row = rows[min(CELL * cell + i, rows.shape[0] - 1)]
            split(row, (blue[i, :width], green[i, :width], red[i, :width]), rgb)
            for plane in (blue, green, red):
                plane[i, width:] = plane[i, width - 1]
        _describe_columns(blue, green, red, columns)
        for k in range(STATISTICS):
            _mean_of_cells(columns[k], statistics[cell, k])


@kernel
def _describe_columns(blue: Pixels, green: Pixels, red: Pixels, columns: Float32) -> None:
    """The sums of the statistics over the rows of a cell, for each column of pixels.

    ``blue``, ``green``, ``red``: (``CELL``, width).
    """
    rows = (
        (blue[0], green[0], red[0]),
        (blue[1], green[1], red[1]),
        (blue[2], green[2], red[2]),
        (blue[3], green[3], red[3]),
    )
    blues, greens, reds, greys, colours = columns[0], columns[1], columns[2], columns[3], columns[4]
    for x in range(blues.size):
        sum_blue, sum_green, sum_red, sum_grey, sum_colour = ZERO, ZERO, ZERO, ZERO, ZERO
        for one, two, three in rows:
            b, g, r = np.float32(one[x]), np.float32(two[x]), np.float32(three[x])
            y = BLUE * b + GREEN * g + RED * r
            sum_blue += b
            sum_green += g
            sum_red += r
            sum_grey += y * y
            b -= y
            g -= y
            r -= y
            sum_colour += b * b + g * g + r * r
        blues[x], greens[x], reds[x] = sum_blue, sum_green, sum_red
        greys[x], colours[x] = sum_grey, sum_colour


@kernel
def _mean_of_cells(columns: Float32, means: Float32) -> None:
    """Means over four columns each, both ends twice."""
    one, two, three, four = np.uintp(1), np.uintp(2), np.uintp(3), np.uintp(4)
    last = means.size - 2
    for cell in range(last):
        at = four * np.uintp(cell)
        left, right = columns[at] + columns[at + one], columns[at + two] + columns[at + three]
        means[np.uintp(cell) + one] = (left + right) * _OF_CELL
    means[0], means[last + 1] = means[1], means[last]


@kernel
def _fit(
    statistics: Float32,
    noise: np.float32,
    colour_noise: np.float32,
    similar: np.float32,
    coefficients: Float32,
) -> None:
    """Fill in the coefficients of all cells; both noises are variances, ``similar`` is s^2."""
    cells, _, wide = statistics.shape
    means = np.empty((STATISTICS, wide - 2), np.float32)
    total = np.empty(wide - 2, np.float32)
    for cell in range(cells):
        means[:] = ZERO
        total[:] = ZERO
        for other in (max(cell - 1, 0), cell, min(cell + 1, cells - 1)):
            for column in range(3):
                _add_neighbours(statistics[cell], statistics[other], column, similar, means, total)
        for k in range(STATISTICS):
            _divide(means[k], total)
        _fit_row(means, noise, colour_noise, coefficients[cell])
        for k in range(COEFFICIENTS):
            row = coefficients[cell, k]
            row[0], row[-1] = row[1], row[-2]


@kernel
def _add_neighbours(
    own: Float32,
    other: Float32,
    column: int,
    similar: np.float32,
    sums: Float32,
    total: Float32,
) -> None:
    """Add the statistics of one neighbour of each cell of a row, with their weights.

    ``own``, ``other``: two rows of cells. ``column``: 0 for the cells to the left, 2 to the right.
    """
    one, aside = np.uintp(1), np.uintp(column)
    squared = similar * similar
    for x in range(total.size):
        here, there = np.uintp(x) + one, np.uintp(x) + aside
        b, g, r = other[0, there], other[1, there], other[2, there]
        d = BLUE * (b - own[0, here]) + GREEN * (g - own[1, here]) + RED * (r - own[2, here])
        apart = similar + d * d
        weight = squared / (apart * apart)
        total[x] += weight
        sums[0, x] += weight * b
        sums[1, x] += weight * g
        sums[2, x] += weight * r
        sums[3, x] += weight * other[3, there]
        sums[4, x] += weight * other[4, there]


@kernel
def _divide(sums: Float32, total: Float32) -> None:
    for x in range(total.size):
        sums[x] /= total[x]


@kernel
def _fit_row(
    means: Float32, noise: np.float32, colour_noise: np.float32, coefficients: Float32
) -> None:
    blues, greens, reds, greys, colours = means[0], means[1], means[2], means[3], means[4]
    colour, grey = coefficients[0], coefficients[1]
    add_blue, add_green, add_red = coefficients[2], coefficients[3], coefficients[4]
    one = np.uintp(1)
    for x in range(blues.size):
        b, g, r = blues[x], greens[x], reds[x]
        y = BLUE * b + GREEN * g + RED * r
        b -= y
        g -= y
        r -= y
        of_grey = greys[x] - y * y
        of_colour = colours[x] - (b * b + g * g + r * r)
        of_grey = of_grey if of_grey > ZERO else ZERO  # rounding may have made it negative
        of_colour = of_colour if of_colour > ZERO else ZERO
        keep_grey, keep_colour = of_grey / (of_grey + noise), of_colour / (of_colour + colour_noise)
        offset, rest = (ONE - keep_grey) * y, ONE - keep_colour
        at = np.uintp(x) + one
        colour[at], grey[at] = keep_colour, keep_grey - keep_colour
        add_blue[at], add_green[at] = offset + rest * b, offset + rest * g
        add_red[at] = offset + rest * r
