"""Containers of images, given back with their images changed and nothing else.

headers.py     the numbers in a tar header: read, and changed in the notation that they have
tar.py         the members of a tar
selection.py   which members are images, and what their records call them
groups.py      the images of a container, a batch at a time
source.py      a container that is open for reading
indices.py     indices beside a container, which hold offsets into it
inventory.py   the images of a container, for whoever reads them without a run
rewriting.py   the container that is written: raw bytes, and images in their places
"""
