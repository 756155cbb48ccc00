"""Files, wherever they are: the one place that knows local disks from object stores.

base.py      what both can do, and the value that describes one file
local.py     directories of this machine
folders.py   their folders, reached through no link
publishing.py   their files, which appear whole or not at all
streams.py   large files in pieces, here and there
objects.py   s3://, gs:// and az://, through obstore
connecting.py   their clients, made from the environment
listing.py   their listings, page by page, sorted on disk
trouble.py   what their exceptions mean
location.py  URIs, split literally: '#', '%', '?' and spaces are ordinary characters
"""

from __future__ import annotations

from batchlight.storage.base import FileInfo, Storage
from batchlight.storage.local import LocalStorage
from batchlight.storage.location import Location
from batchlight.storage.objects import ObjectStorage

__all__ = ["FileInfo", "Location", "Storage", "open_source", "open_storage"]


def open_storage(location: Location) -> Storage:
    """The storage rooted at ``location``, which may be a directory that does not exist yet.

    No link below a local directory is followed, so this is how outputs are opened.
    """
    return ObjectStorage(location) if location.remote else LocalStorage(location)


def open_source(location: Location) -> Storage:
    """The same for data that is only read: links to files are followed."""
    if location.remote:
        return ObjectStorage(location)
    return LocalStorage(location, follow_links=True)
