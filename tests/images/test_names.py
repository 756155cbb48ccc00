"""Which names are taken for images, and how outputs are named."""

from __future__ import annotations

from typing import Any

import pytest

from batchlight.images import names


@pytest.mark.parametrize(
    ("path", "format", "expected"),
    [
        ("a/b.JPG", "same", "a/b.JPG"),
        ("a/b.JPG", "jpeg", "a/b.JPG"),
        ("a/b.jpeg", "jpeg", "a/b.jpeg"),
        ("a/b.tif", "tiff", "a/b.tif"),
        ("a/b.png", "jpeg", "a/b.jpg"),
        ("a.b/c.d.tif", "png", "a.b/c.d.png"),
        ("a b#%é.bmp", "webp", "a b#%é.webp"),
    ],
)
def test_output_names(path: str, format: Any, expected: str) -> None:
    assert names.output_name(path, format) == expected


@pytest.mark.parametrize("name", ["a.jpg", "x/A.JPEG", "a.b.Png", "é.webp", "a.tif", "a.avif"])
def test_image_names(name: str) -> None:
    assert names.is_image_name(name)


@pytest.mark.parametrize("name", ["jpg", "x.jpg/a", "x.jpg/png", "a.gif", "a.jpg.txt", "a.", ""])
def test_other_names(name: str) -> None:
    assert not names.is_image_name(name)
