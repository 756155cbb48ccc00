"""An image in tiles, with the result of the whole image.

The network pools over whole images, so a tile by itself would be another picture: made brighter, if
it happens to be a dark corner. Therefore all tiles are run up to the first pool whose result for
the whole image is not yet known; their shares give that result; they are run again, up to the next
pool, and once more to the end when all are known. This costs about 2.5 times the arithmetic of the
whole image, but never more memory than one tile.

Each tile is run with a margin as wide as the network's reach, of which nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from batchlight.absgn.network import ABSGN, MULTIPLE, REACH

MARGIN = -(-REACH // MULTIPLE) * MULTIPLE
"""Pixels around a tile."""


@dataclass(frozen=True)
class Span:
    """A range of rows or columns, and the wider range that it is computed from."""

    start: int
    stop: int
    wide_start: int
    wide_stop: int

    def within(self, wide_length: int, length: int) -> slice:
        """Its place in a plane that shows the wide range, reduced to ``length`` rows."""
        scale = wide_length // length
        first = self.start - self.wide_start
        # The last span also owns the padding behind the image's edge.
        last = wide_length if self.stop == self.wide_stop else self.stop - self.wide_start
        return slice(first // scale, last // scale)


@dataclass(frozen=True)
class Tile:
    """A part of an image, in pixels."""

    rows: Span
    columns: Span


def cut(height: int, width: int, side: int) -> Iterator[Tile]:
    """Cut an image into tiles of at most ``side`` pixels, rounded up to a multiple of 8."""
    for rows in _spans(height, side):
        for columns in _spans(width, side):
            yield Tile(rows, columns)


def run_in_tiles(
    network: ABSGN,
    tiles: Sequence[Tile],
    load: Callable[[Tile], Tensor],
    store: Callable[[Tile, Tensor], None],
) -> None:
    """Run the network on a whole image, tile by tile; the result is not yet clipped.

    ``load`` returns a tile with its margin as the network's input, (1, 3, H, W), padded at the
    image's edges only; ``store`` gets the result of the same shape. ``load`` is called several
    times per tile, ``store`` once.
    """
    answers: list[Tensor] = []
    while True:
        shares = []
        for tile in tiles:
            x = load(tile)
            try:
                store(tile, network.restore(x, _Replay(answers, tile, x)))
            except _UnknownError as question:
                shares.append(question.share)
        if not shares:
            return
        answers.append(_merge(shares))


@dataclass(frozen=True)
class _Share:
    """What one tile contributes to a pool's result."""

    how: Literal["mean", "max"]
    value: Tensor
    pixels: int


class _UnknownError(Exception):
    """The network needs a pool's result that is not yet known."""

    def __init__(self, share: _Share) -> None:
        super().__init__()
        self.share = share


class _Replay:
    """The `Pool` of a tile: returns known results in call order, then raises ``_UnknownError``."""

    def __init__(self, answers: Sequence[Tensor], tile: Tile, wide: Tensor) -> None:
        self._answers = iter(answers)
        self._tile = tile
        self._height, self._width = wide.shape[2:]

    def __call__(self, features: Tensor, how: Literal["mean", "max"]) -> Tensor:
        answer = next(self._answers, None)
        if answer is not None:
            return answer.to(features)
        rows = self._tile.rows.within(self._height, features.shape[2])
        columns = self._tile.columns.within(self._width, features.shape[3])
        own = features[:, :, rows, columns]
        value = own.amax((2, 3), keepdim=True) if how == "max" else own.mean((2, 3), keepdim=True)
        raise _UnknownError(_Share(how, value.double().cpu(), own.shape[2] * own.shape[3]))


def _merge(shares: Sequence[_Share]) -> Tensor:
    values = torch.stack([share.value for share in shares])
    if shares[0].how == "max":
        return values.amax(0)
    pixels = torch.tensor([share.pixels for share in shares], dtype=values.dtype)
    return (values * pixels.view(-1, 1, 1, 1, 1)).sum(0) / pixels.sum()


def _spans(length: int, side: int) -> Iterator[Span]:
    side = max(MULTIPLE, -(-side // MULTIPLE) * MULTIPLE)
    for start in range(0, length, side):
        stop = min(start + side, length)
        yield Span(start, stop, max(0, start - MARGIN), min(length, stop + MARGIN))
