"""What can be done with an open container, whatever its kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

from batchlight.output.inputs import Input
from batchlight.shards.sink import Sink
from batchlight.storage.base import Writer
from batchlight.storage.patterns import Patterns


class Place(Protocol):
    """Where an image, or something else that may be left out, is in its container."""

    @property
    def data(self) -> int | None:
        """Offset of its bytes in the container; None if they are not there as they are."""

    @property
    def sample(self) -> bytes:
        """What it has in common with all else of its sample."""


PlaceT = TypeVar("PlaceT", bound=Place)
PlaceT_contra = TypeVar("PlaceT_contra", bound=Place, contravariant=True)


class Rewriter(Protocol[PlaceT_contra]):
    """Writes a container in which images are changed, in the order in which they are found."""

    sink: Sink

    def kept(self, place: PlaceT_contra) -> int | None:
        """Leave an image as it is; where its bytes will be, if they will be there as they are."""

    def replace(self, place: PlaceT_contra, data: bytes) -> int | None:
        """Give it other bytes; where they are. Raises ``ValueError`` if there is no room."""

    def leave_out(self, place: PlaceT_contra) -> None:
        """Go on without it. Raises ``ImageError`` if that cannot be."""

    def finish(self) -> None:
        """Write the rest; ``sink.commit`` lets it appear."""

    def close(self) -> None:
        """Give up what is held; not the writer, which is aborted by who opened it."""


class Contents(Protocol[PlaceT]):
    """A container that is open for reading."""

    def images(self, patterns: Patterns) -> Iterator[tuple[PlaceT, Input | None]]:
        """All that may be left out, in order, with what is to be worked on if it is an image.

        Raises ``ImageError`` for a container that is damaged.
        """

    def bytes_of(self, item: Input) -> bytes:
        """One of these images, from any thread."""

    def rewriter(self, writer: Writer) -> Rewriter[PlaceT]:
        """Writes such a container."""

    def require_unchanged(self) -> None:
        """Raise ``ChangedError`` if it is known that the file changed while it was open."""


AnyContents = Contents[Any]
