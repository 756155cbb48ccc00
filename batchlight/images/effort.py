"""Images crafted to take much longer than their size suggests: refused before decoding.

A progressive JPEG, also one inside a TIFF, is decoded as a whole once per scan, and a scan takes
only 36 bytes; cameras and encoders write about ten. Layout: ITU-T T.81, annex B.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from batchlight.errors import ImageError
from batchlight.images.segments import SOS, Segment

SCANS_AT_MOST = 100


def bounded_scans(later: Iterable[Segment]) -> Iterator[Segment]:
    """The segments after the first scan, unchanged.

    Raises ``ImageError`` for a JPEG with more scans than any encoder writes.
    """
    scans = 1
    for segment in later:
        scans += segment.marker == SOS
        if scans > SCANS_AT_MOST:
            raise ImageError.unsupported(
                f"a JPEG of more than {SCANS_AT_MOST} scans takes too long"
            )
        yield segment
