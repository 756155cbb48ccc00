"""Bytes to pixels and back, and all else that an image file holds.

The way of an image: ``read_header`` (header.py), ``decode`` and ``encode`` (codec.py). What differs
between formats is in one file for each:

jpeg.py, png.py, webp.py, tiff.py, bmp.py, avif.py
image_format.py  what each of them provides
formats.py       all of them by name

codec.py         bytes to pixels and back
effort.py        images that take much longer than their size tells
header.py        identifies an image before a pixel is decoded; refusals
image.py         an image: its header and its pixels
metadata.py      EXIF, XMP, ICC, and the orientation in them
pixels.py        arrays of pixels
names.py         which names are taken for images, and how outputs are named; loads no codec

opencv.py        OpenCV's decoders and encoders
pillow.py        Pillow's headers and decoders
memory.py        memory for the codecs
ifd.py           the directories of tags in TIFF and EXIF
av1.py           the size of the picture in an AV1 stream

measures.py      luminance, clipping
kernels.py       how loops over pixels are compiled
"""
