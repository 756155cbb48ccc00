"""Bytes to pixels and back, and everything else that an image file contains.

The stages of an image: ``read_header`` (header.py), ``decode`` and ``encode`` (codec.py). What
differs between formats is in one file for each, which has its codec and its refusals; beside it,
``..._carry`` takes everything but the coded image out of a file and puts it into the output, and
``..._metadata`` converts it to the terms that all formats share (metadata.py), and back:

jpeg.py          jpeg_carry.py, jpeg_metadata.py; jpeg_previews.py, previews in segments; mpf.py,
                 files of several pictures
png.py           png_carry.py, png_metadata.py; png_text.py, texts in it
tiff.py          tiff_layout.py, refusals; tiff_pixels.py, tiff_file.py, decoding and writing;
                 tiff_metadata.py; tiff_texts.py, what descriptions say about the pixels
avif.py          heif_carry.py, heif_file.py and heif_header.py, for all files of items; av1.py
                 and av1_frame.py, its streams
heif.py          the same for the extra of that name; hevc.py, its streams
bmp.py           bmp_layout.py, its header; bmp_carry.py; bmp_runs.py, its run lengths
webp.py
image_format.py  what each of them provides
formats.py       all of them by name

codec.py         bytes to pixels and back
effort.py        images that take much longer than their size suggests
header.py        identifies an image before a pixel is decoded; refusals
foreign.py       names of formats that are not read
image.py         an image: its header and its pixels
pixels.py        arrays of pixels
names.py         which names count as images, and how outputs are named; loads no codec
container_names.py  which names count as containers of images

Structures, without any meaning:

segments.py      JPEG
chunks.py        PNG and RIFF
boxes.py         ISO base media; items.py, the items in them
ifd.py           TIFF's directories of tags, also in EXIF and MPF
holed.py         a file without its coded pixels

Their meaning:

metadata.py      what files contain besides their pixels
conversion.py    the parts that are kept in another format
exif.py, xmp.py, photoshop.py
colour.py        code points and profiles
thumbnails.py    small copies of a picture in its own file

opencv.py        OpenCV's decoders and encoders
pillow.py        Pillow's decoders
memory.py        memory for the codecs
measures.py      luminance, clipping
mixing.py        blending an image with its enhancement
kernels.py       how loops over pixels are compiled
"""
