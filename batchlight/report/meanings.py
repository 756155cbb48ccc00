"""Explanations of the codes of failed images, and what to do about them."""

from __future__ import annotations

from collections.abc import Mapping

from batchlight.errors import ErrorCode, is_permanent

_MEANINGS: Mapping[str, str] = {
    ErrorCode.EMPTY: "The file has no bytes. Copy it again from where it came from.",
    ErrorCode.CORRUPT: "The file is damaged or cut short, or is no image. Copy it again; an image "
    "that other programs open all the same has a part that they make up.",
    ErrorCode.UNSUPPORTED: "The file is sound, but something in it could not be kept, such as "
    "several pages, CMYK, or transparency in a JPEG. Convert it, or choose another --format.",
    ErrorCode.TOO_LARGE: "It has more pixels than --max-pixels allows. Raise that if it is an "
    "honest image: it takes about 20 bytes of memory a pixel.",
    ErrorCode.SUSPICIOUS_OUTPUT: "The method made it darker, or a blank, so the result was not "
    "written. Try another method, or other settings with batchlight preview.",
    ErrorCode.CRASH: "It killed the process that worked on it each time it was tried alone. Please "
    "report it, with the image if you can.",
    ErrorCode.OUT_OF_MEMORY: "It needs more memory than a worker has. Use larger machines or fewer "
    "workers, then --retry-failed.",
    ErrorCode.TIMEOUT: "It did not end within --timeout when tried alone. Raise that, then "
    "--retry-failed.",
    ErrorCode.MISSING: "The file was listed, and gone when it was to be read.",
    ErrorCode.UNREADABLE: "The workers may not read the file, or it changed meanwhile. Check its "
    "permissions.",
    ErrorCode.WRITE_FAILED: "The result could not be written. Check the name and the permissions "
    "of the output folder.",
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
