"""Bytes to pixels and back, and all else that an image file holds.

pixels.py      what an array of pixels is
names.py       by which names files are taken for images, and how outputs are named
header.py      what an image is, before a pixel is decoded; refusals
codec.py       bytes to pixels and back
containers.py  metadata inside image files, taken out and put in, bytes to bytes
av1.py         how large the pictures inside an AVIF file really are
measures.py    luminance, clipping
kernels.py     how loops over pixels are compiled
"""
