"""Image files of every kind, for a comparison by other readers."""

from __future__ import annotations

import zlib
from functools import cache

import numpy as np
from PIL import Image

from batchlight.images.boxes import box
from batchlight.images.segments import segment
from tests.images import test_carry_boxes as with_boxes
from tests.images import test_carry_png as in_png
from tests.images import test_carry_tiff as in_tiff
from tests.support import image_parts as parts
from tests.support.image_files import ICC, UNSUPPORTED, saved, tiff
from tests.support.mutants import parents


@cache
def corpus() -> dict[str, bytes]:
    """By name; ordered so that every tenth gives a mix of kinds."""
    files = _plain() | _jpegs() | _pngs() | _tiffs() | _others()
    names = sorted(files, key=lambda name: (hash_of(name), name))
    return {name: files[name] for name in names}


def hash_of(name: str) -> int:
    """A hash that is the same in every process."""
    return zlib.crc32(name.encode())


def _plain() -> dict[str, bytes]:
    refused = {"cmyk.jpg", "pictures.jpg", "float.tif", "ten-bit.avif"}
    return {
        f"plain-{name}": data
        for files in parents().values()
        for name, data in files.items()
        if name not in refused and "animated" not in name and "pages" not in name
    } | {f"refused-{name}": data for name, data in UNSUPPORTED.items()}


def _jpegs() -> dict[str, bytes]:
    image, small = Image.fromarray(parts.DARK), parts.small_jpeg()
    exif = segment(0xE1, b"Exif\0\0" + parts.exif_with_thumbnail())
    blocks = parts.resource(0x0404, parts.IPTC) + parts.photoshop_thumbnail()
    photoshop = segment(0xED, parts.PHOTOSHOP + blocks)
    packet = segment(0xE1, parts.XMP_PREFIX + parts.xmp())
    gain = small[:2] + segment(0xE1, parts.XMP_PREFIX + parts.xmp(b'hdrgm:Version="1"')) + small[2:]
    own = {f"app{n}": [segment(0xE0 + n, b"Maker\0" + bytes(99))] for n in range(2, 14)}
    more = {
        **own,
        "exif": [exif],
        "photoshop": [photoshop],
        "xmp": [packet],
        "all": [exif, packet, photoshop, segment(0xFE, b"by night")],
        "c2pa": [parts.jumbf(b"c2pa manifest"), packet],
    }
    sampled = {
        f"jpeg-{name}-{quality}.jpg": saved(image, "JPEG", subsampling=name, quality=quality)
        for name in ("4:4:4", "4:2:2", "4:2:0")
        for quality in (60, 95)
    }
    return (
        sampled
        | {f"jpeg-{name}.jpg": parts.jpeg(*segments) for name, segments in more.items()}
        | {
            "jpeg-preview.jpg": parts.several_pictures(small, 0x010001),
            "jpeg-gain-map.jpg": parts.several_pictures(gain, 0),
            "jpeg-motion.jpg": parts.jpeg(trailer=b"\0\0\0\x18ftypmp42" + bytes(99)),
            "jpeg-two.jpg": parts.jpeg(trailer=small),
            "jpeg-dense.jpeg": saved(image, "JPEG", dpi=(300, 200), icc_profile=ICC),
            "jpeg-jfif.jfif": saved(image, "JPEG"),
            "jpeg-jpe.jpe": saved(image.convert("L"), "JPEG"),
        }
    )


def _pngs() -> dict[str, bytes]:
    plain = in_png.PLAIN
    each = {
        f"png-{kind.decode()}.png": in_png.with_chunks(plain, [(kind, payload)])
        for kind, payload in [*in_png.BEFORE, *in_png.AFTER]
    }
    palette = saved(Image.fromarray(parts.DARK).quantize(16), "PNG")
    return each | {
        "png-all.png": in_png.with_chunks(plain, in_png.BEFORE, in_png.AFTER, b"more"),
        "png-exif.png": in_png.with_chunks(plain, [], [(b"eXIf", parts.exif_with_thumbnail(">"))]),
        "png-c2pa.png": in_png.with_chunks(plain, [(b"caBX", b"manifest")]),
        "png-labels.png": in_png.with_chunks(palette, [(b"sBIT", b"\5\6\5")]),
    }


def _tiffs() -> dict[str, bytes]:
    made: dict[str, bytes] = {}
    for order in "<>":
        for big in (False, True):
            for compression in (None, "lzw", "zlib"):
                tags = [tag for tag in [*in_tiff.GEO, *in_tiff.SCAN] if big or tag[1] != 16]
                options = {"byteorder": order, "bigtiff": big, "compression": compression}
                name = f"tiff-{'mb'[order == '<']}-{big}-{compression}.tif"
                made[name] = parts.tiff_with(tags, resolution=(204, 98), **options)
    for orientation in range(2, 9):
        own = [(274, 3, 1, orientation)]
        made[f"tiff-turned-{orientation}.tif"] = parts.tiff_with(own)
    white = parts.DARK[:, :, 0].copy()
    return made | {
        "tiff-overview.tif": parts.with_overview(),
        "tiff-mask.tif": parts.with_overview(mask=True),
        "tiff-white.tif": tiff(white, photometric="miniswhite"),
        "tiff-fax.tif": saved(
            Image.fromarray(white).convert("1"), "TIFF", compression="group4", dpi=(204, 98)
        ),
        "tiff-ome.ome.tif": parts.tiff_with(
            [(270, 2, 30, b"<?xml version='1.0'?><OME></OME>\0"[:30])]
        ),
    }


def _others() -> dict[str, bytes]:
    avifs = {
        f"avif-{a}-{b}-{c}-{kind}.avif": parts.avif(kind, (a, b, c))
        for a, b, c in with_boxes.POINTS
        if c not in (2, 5)
        for kind in ("yuv420", "yuv422", "yuv444")
    }
    picture = Image.fromarray(parts.DARK)
    return avifs | {
        "avif-lossless.avif": parts.avif("yuv444", (1, 13, 0), lossless=True),
        "avif-aspect.avif": parts.avif("yuv420", (1, 13, 6), parts.PASP),
        "avif-turned.avif": parts.avif("yuv420", (1, 13, 6), box(b"irot", b"\1")),
        "heic-plain.heic": with_boxes.heic(),
        "heic-444.heif": with_boxes.heic(chroma=444),
        "heic-clear.heic": with_boxes.heic("RGBA"),
        "webp-chunks.webp": with_boxes.webp(
            (b"ICCP", ICC),
            (b"EXIF", parts.exif_with_thumbnail()),
            (b"XMP ", parts.xmp()),
            flags=0x2C,
        ),
        "webp-lossy.webp": saved(picture, "WEBP", quality=90, icc_profile=ICC, xmp=parts.xmp()),
        "bmp-profile.bmp": with_boxes.bmp_v5(),
        "bmp-bare.dib": saved(picture, "BMP")[14:],
        "bmp-dense.bmp": saved(picture, "BMP", dpi=(72, 144)),
        "bmp-palette.bmp": saved(picture.quantize(16), "BMP"),
        "bmp-gray.bmp": saved(Image.fromarray(np.ascontiguousarray(parts.DARK[:, :, 1])), "BMP"),
    }
