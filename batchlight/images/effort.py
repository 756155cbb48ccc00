"""Images that are made to take much longer than their size tells: refused before they are decoded.

A progressive JPEG, also one inside of a TIFF, is decoded as a whole once for each of its scans, and
36 bytes make one; cameras and encoders write about ten. Layout: ITU-T T.81, annex B.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from batchlight.errors import ErrorCode, ImageError
from batchlight.images.segments import SOS, Segment

SCANS_AT_MOST = 100


def bounded_scans(later: Iterable[Segment]) -> Iterator[Segment]:
    """The segments behind the first scan, as they are.

    Raises ``ImageError`` for a JPEG of more scans than any encoder writes.
    """
    scans = 1
    for segment in later:
        scans += segment.marker == SOS
        if scans > SCANS_AT_MOST:
            raise ImageError(
                ErrorCode.UNSUPPORTED, f"a JPEG of more than {SCANS_AT_MOST} scans takes too long"
            )
        yield segment
