"""Files, wherever they are: the one place that knows local disks from object stores.

base.py      what both can do, and the value that describes one file
local.py     directories of this machine
objects.py   s3://, gs:// and az://, through obstore
location.py  URIs, split literally: '#', '%', '?' and spaces are ordinary characters
"""

from __future__ import annotations

from batchlight.storage.base import FileInfo, Storage
from batchlight.storage.local import LocalStorage
from batchlight.storage.location import Location
from batchlight.storage.objects import ObjectStorage

__all__ = ["FileInfo", "Location", "Storage", "open_storage"]


def open_storage(location: Location) -> Storage:
    """The storage rooted at ``location``, which may be a directory that does not exist yet."""
    return ObjectStorage(location) if location.remote else LocalStorage(location)
