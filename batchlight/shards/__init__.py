"""Containers of images, rewritten with their images changed and nothing else.

contents.py             the interface of an open container, whatever its kind
source.py               opening a container
groups.py               the images of a container, a batch at a time
selection.py            which members are selected, and their names in records
inventory.py            images of containers, for use outside of a run
spool.py                new images that wait for their turn
scratch.py              temporary files
sink.py                 bytes on their way into a container

tar.py                  the members of a tar
headers.py              the numbers in a tar header: read, and rewritten in the same notation
tar_contents.py         the images of a tar, and the tar that is written
hard_links.py           members that stay because hard links need them
indices.py              files beside containers that hold offsets into them, or hashes

thrift.py               the encoding of Parquet's metadata
footer.py               the columns of a Parquet file, and where their chunks are
columns.py              which columns hold images
levels.py               small numbers in Parquet's packed encodings
pages.py                pages of a column of bytes, and their values
new_pages.py            pages with other values
parquet_contents.py     the images of a Parquet file
parquet_rewriting.py    the Parquet file that is written
new_columns.py          the footer's entries for changed columns
parquet_indices.py      structures beside the columns: indices, filters
"""
