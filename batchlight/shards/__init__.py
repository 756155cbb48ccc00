"""Containers of images, given back with their images changed and nothing else.

contents.py             what can be done with an open container, whatever its kind
source.py               a container that is opened
groups.py               the images of a container, a batch at a time
selection.py            which members are wanted, and what their records call them
inventory.py            images of containers, for whoever reads them without a run
spool.py                new images that wait for their turn
sink.py                 bytes on their way into a container

tar.py                  the members of a tar
headers.py              the numbers in a tar header: read, and changed in the notation they have
tar_contents.py         the images of a tar, and the tar that is written
indices.py              indices beside a tar, which hold offsets into it

thrift.py               the notation of Parquet's metadata
footer.py               the columns of a Parquet file, and where their chunks are
columns.py              which columns hold images
levels.py               small numbers as Parquet packs them
pages.py                pages of a column of bytes, and their values
new_pages.py            pages with other values
parquet_contents.py     the images of a Parquet file
parquet_rewriting.py    the Parquet file that is written
new_columns.py          what its footer tells of columns that have changed
parquet_indices.py      what it has beside its columns: indices, filters
"""
