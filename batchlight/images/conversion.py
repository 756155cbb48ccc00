"""The parts that are kept in another format: metadata that fit the new pixels and file."""

from __future__ import annotations

from dataclasses import replace

from batchlight.images import colour, exif, xmp
from batchlight.images.image import Decoded
from batchlight.images.image_format import ImageFormat
from batchlight.images.metadata import Metadata
from batchlight.images.thumbnails import Picture


def converted(decoded: Decoded, target: ImageFormat) -> tuple[Decoded, tuple[str, ...]]:
    """The image with metadata that are valid in a file of another format; and what is lost of them.

    Raises ``ValueError`` if the target cannot express what the pixels mean.
    """
    gray = decoded.pixels.ndim == 2 and not target.always_colour
    gray &= decoded.alpha is None or target.keeps_gray_alpha
    metadata = _with_colours(decoded.header.metadata, target, gray)
    if metadata.inexpressible is not None:
        raise ValueError(metadata.inexpressible)
    if metadata.aspect is not None and not target.holds_aspect:
        raise ValueError("its pixels are not square")
    metadata, lost = _with_thumbnails(metadata, Picture(decoded.pixels))
    packet = metadata.xmp
    if packet is not None:
        packet = xmp.of_a_single_picture(packet)
    header = replace(decoded.header, metadata=replace(metadata, xmp=packet), carried=None)
    return replace(decoded, header=header), lost


def _with_colours(metadata: Metadata, target: ImageFormat, gray: bool) -> Metadata:
    """With a colour description that the target can hold, for as many channels as it has."""
    icc, cicp = metadata.icc, metadata.cicp
    if cicp is not None and not target.holds_cicp:
        colours = colour.Colours.of(cicp)
        if colours is None:
            raise ValueError(f"colours of the transfer function {cicp.transfer}")
        icc = colour.gray_profile(colours.curve) if gray else colour.profile(colours)
        cicp = None
    if icc is not None and not colour.is_usable(icc):
        others = (*metadata.others, "damaged colour profile")
        return replace(metadata, icc=None, cicp=cicp, others=others)
    if icc is not None and colour.is_gray(icc) != gray:
        icc = colour.gray_profile_of_colours(icc) if gray else colour.colour_profile_of_gray(icc)
        if icc is None:
            names = ("colour", "gray") if gray else ("gray", "colour")
            raise ValueError("its {} profile, in a {} picture".format(*names))
    return replace(metadata, icc=icc, cicp=cicp)


def _with_thumbnails(metadata: Metadata, picture: Picture) -> tuple[Metadata, tuple[str, ...]]:
    """With thumbnails made from the new pixels."""
    lost: list[str] = []
    block, packet = metadata.exif, metadata.xmp
    if block is not None:
        block, kept = exif.with_thumbnail(block, picture)
        lost += [] if kept else ["EXIF thumbnail"]
    if packet is not None:
        packet, kept = xmp.with_thumbnails(packet, picture)
        lost += [] if kept else ["XMP thumbnail"]
    return replace(metadata, exif=block, xmp=packet), tuple(lost)
