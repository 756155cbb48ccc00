"""Who may read a local file, as permission bits for a file that must not have more readers.

A class of users (the group, all others) counts as readers if it may read the file and search all
folders above it. Folders above the new file too need not be checked, as they protect that one just
the same.
"""

from __future__ import annotations

import os
from functools import lru_cache

EVERYONE = 0o777
OWNER = 0o700
_GROUP, _OTHERS = 0o070, 0o007
_READ, _SEARCH = 0o4, 0o1


def permissions_of(path: str, beside: str) -> int:
    """The bits for a file below the folder ``beside`` made from ``path``. Raises ``OSError``.

    Both are resolved: links do not protect their targets.
    """
    real = os.path.realpath(path)
    found = os.stat(real)
    above = _permissions_of_folders(os.path.dirname(real), os.path.realpath(beside))
    need = _SEARCH if os.path.isdir(real) else _READ
    return above & _bits(found, need)


@lru_cache(maxsize=4096)
def _permissions_of_folders(folder: str, beside: str) -> int:
    if os.path.commonpath([folder, beside]) == folder:
        return EVERYONE
    above = _permissions_of_folders(os.path.dirname(folder), beside)
    return above & _bits(os.stat(folder), _SEARCH)


def _bits(found: os.stat_result, need: int) -> int:
    others = bool(found.st_mode & need)
    # A new file gets its process's group; members of any other group are among the others.
    same_group = found.st_gid == os.getegid()
    group = bool(found.st_mode & need << 3) if same_group else others
    return OWNER | _GROUP * group | _OTHERS * others
