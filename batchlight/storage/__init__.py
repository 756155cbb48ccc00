"""File access: the one package that distinguishes local disks from object stores.

base.py      the common interface, and the value that describes one file
local.py     directories of this machine
local_trouble.py  the meaning of their exceptions
walking.py   their listings
folders.py   their folders, reached without following links
permissions.py  who may read them
publishing.py   their files, which appear whole or not at all
streams.py   large files in pieces, local or remote
objects.py   s3://, gs:// and az://, through obstore
connecting.py   their clients, made from the environment
listing.py   their listings, page by page, sorted on disk
ranges.py    parts of their listings, each made on its own
pacing.py    the rate of requests to them
trouble.py   the meaning of their exceptions
lists.py     lists of paths: .txt, .csv, .parquet
patterns.py  globs on paths
location.py  URIs, split literally: '#', '%', '?' and spaces are ordinary characters
"""

from __future__ import annotations

from batchlight.storage.base import FileInfo, Storage
from batchlight.storage.folders import LinkPolicy
from batchlight.storage.local import LocalStorage
from batchlight.storage.location import Location
from batchlight.storage.objects import ObjectStorage
from batchlight.storage.permissions import EVERYONE
from batchlight.storage.ranges import KeyRange, ListsParts

__all__ = [
    "EVERYONE",
    "FileInfo",
    "KeyRange",
    "ListsParts",
    "Location",
    "Storage",
    "open_source",
    "open_storage",
]


def open_storage(location: Location, permissions: int = EVERYONE) -> Storage:
    """The storage rooted at ``location``, which may be a directory that does not exist yet.

    No link below a local directory is followed, so outputs are opened with this. ``permissions``:
    the permission bits of the directory if it has to be created.
    """
    if location.remote:
        return ObjectStorage(location)
    return LocalStorage(location, permissions=permissions)


def open_source(location: Location, follow_links: bool = False) -> Storage:
    """The same for data that is only read: links to files are followed.

    Links that leave the directory are followed only with ``follow_links``.
    """
    if location.remote:
        return ObjectStorage(location)
    return LocalStorage(location, LinkPolicy.FOLLOWED if follow_links else LinkPolicy.INSIDE)
