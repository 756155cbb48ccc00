"""Explanations of the codes of failed images, and what to do about them."""

from __future__ import annotations

from collections.abc import Mapping

from batchlight.errors import ErrorCode, is_permanent

_MEANINGS: Mapping[str, str] = {
    ErrorCode.EMPTY: "The file has no bytes. Copy it again from its source.",
    ErrorCode.CORRUPT: "The file is damaged or cut short, or is not an image. Copy it again; "
    "if other programs open it all the same, they fill in the missing part.",
    ErrorCode.UNSUPPORTED: "The file is valid, but something in it could not be kept, such as "
    "several pages, CMYK, or transparency in a JPEG: convert it, or choose another --format. Or "
    "its name cannot be that of an output, or it is a link to a file outside the input: rename it, "
    "or put a copy in its place.",
    ErrorCode.TOO_LARGE: "It has more pixels than --max-pixels allows. Raise that if the "
    "image really is that large: it takes about 20 bytes of memory per pixel.",
    ErrorCode.SUSPICIOUS_OUTPUT: "The method made it darker or blank, so the result was not "
    "written. Try another method, or other settings with batchlight preview.",
    ErrorCode.CRASH: "It killed the process working on it each time it was tried alone. Please "
    "report it, with the image if you can.",
    ErrorCode.OUT_OF_MEMORY: "It needs more memory than a worker has. Use larger machines or fewer "
    "workers, then --retry-failed.",
    ErrorCode.TIMEOUT: "It did not finish within --timeout when tried alone. Raise that, then "
    "--retry-failed.",
    ErrorCode.MISSING: "There is no such file: it vanished after the listing, or a list or a link "
    "names one that does not exist.",
    ErrorCode.UNREADABLE: "The workers cannot read the file, or it changed during the run. Check "
    "its permissions.",
    ErrorCode.WRITE_FAILED: "The result could not be written under its name, or is larger than the "
    "output's file system allows. The error says which.",
    ErrorCode.ERROR: "Something unexpected: a bug, or a broken installation. The log of the run "
    "has the traceback; please report it.",
}


def meaning(code: str) -> str:
    """A code in words; codes of later versions have no explanation here."""
    return _MEANINGS.get(code, "")


def what_next(code: str) -> str:
    """When images with this code are tried again."""
    if is_permanent(code):
        return "Tried again once the file has changed, or with --retry-failed."
    return "Tried again by every run."
