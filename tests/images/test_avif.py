"""AVIF: the size of the pictures inside, and the orientation."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from batchlight.images import avif
from tests.images.test_carry_boxes import meta, with_items
from tests.images.test_carry_jpeg import brightened
from tests.support import image_parts as parts
from tests.support.image_checks import assert_looks_like
from tests.support.image_files import TARGETS, XMP, again, patches, saved


@pytest.mark.parametrize("options", [{}, {"subsampling": "4:4:4"}, {"speed": 10}, {"alpha": True}])
@pytest.mark.parametrize("size", [(1, 1), (64, 48), (333, 7), (2000, 1000)])
def test_the_size_of_pictures_inside_avif(size: tuple[int, int], options: dict[str, Any]) -> None:
    options = dict(options)
    image = Image.new("RGBA" if options.pop("alpha", False) else "RGB", size, (9, 20, 30))
    found = avif.claimed_sizes(saved(image, "AVIF", **options))
    assert set(found) == {size}
    by_opencv = cv2.imencode(".avif", np.zeros((size[1], size[0], 3), np.uint8))[1]
    assert set(avif.claimed_sizes(bytes(by_opencv))) == {size}


def test_avif_readers_ignore_the_exif_tag() -> None:
    # The encoder makes boxes of the tag that it is given, so that the tag is changed afterwards.
    upright, turned = (b"II*\0\x08\0\0\0\x01\0\x12\1\3\0\1\0\0\0" + n for n in (b"\1", b"\6"))
    block = np.frombuffer(upright + bytes(7), np.uint8)
    bgr = np.ascontiguousarray(np.asarray(patches())[:, :, ::-1])
    _, plain = cv2.imencodeWithMetadata(".avif", bgr, [cv2.IMAGE_METADATA_EXIF], [block])
    assert plain.tobytes().count(upright) == 1
    source = plain.tobytes().replace(upright, turned)
    for target in TARGETS:
        assert_looks_like(again(source, target), saved(patches(), "PNG"))


@pytest.mark.parametrize("encoding", [b"", b"\0", b"deflate\0"])
def test_compressed_xmp_is_named(encoding: bytes) -> None:
    kind = b"mime\0application/rdf+xml\0" + encoding
    source = with_items(parts.avif(), (b"cdsc", kind, XMP, b""))
    [item] = [item for item in meta(source).items.values() if item.kind == b"mime"]
    assert item.data == XMP
    out = brightened(source, "png")
    assert (out.lost, XMP in out.data) == (
        (("mime item",), False) if len(encoding) > 1 else ((), True)
    )
