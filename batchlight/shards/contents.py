"""The interface of an open container, whatever its kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

from batchlight.output.inputs import Input
from batchlight.shards.sink import Sink
from batchlight.storage.base import Writer
from batchlight.storage.patterns import Patterns


class Place(Protocol):
    """The position in a container of an image, or of something else that may be left out."""

    @property
    def data(self) -> int | None:
        """Offset of its bytes in the container; None if they are not stored verbatim."""

    @property
    def sample(self) -> bytes:
        """The key that it shares with everything else in its sample."""


PlaceT = TypeVar("PlaceT", bound=Place)
PlaceT_contra = TypeVar("PlaceT_contra", bound=Place, contravariant=True)


class Rewriter(Protocol[PlaceT_contra]):
    """Writes a container with changed images, in the order in which they are read."""

    sink: Sink

    def kept(self, place: PlaceT_contra) -> int | None:
        """Keep an image; returns where its bytes will be, if they will be stored verbatim."""

    def replace(self, place: PlaceT_contra, data: bytes) -> int | None:
        """Replace its bytes; returns where they are. Raises ``ValueError`` if there is no room."""

    def leave_out(self, place: PlaceT_contra) -> None:
        """Skip it. Raises ``ImageError`` if that is impossible."""

    def finish(self) -> None:
        """Write the rest; ``sink.commit`` makes the file appear."""

    def close(self) -> None:
        """Release resources; not the writer, which its opener aborts."""


class Contents(Protocol[PlaceT]):
    """A container opened for reading."""

    @property
    def remote(self) -> bool:
        """Whether it is worth reading ahead."""

    def images(self, patterns: Patterns) -> Iterator[tuple[PlaceT, Input | None]]:
        """Everything that may be left out, in order, with the input to process if it is an image.

        Raises ``ImageError`` for a damaged container.
        """

    def bytes_of(self, item: Input) -> bytes:
        """The bytes of one of these images; callable from any thread."""

    def rewriter(self, writer: Writer) -> Rewriter[PlaceT]:
        """A rewriter for such a container."""

    def require_unchanged(self) -> None:
        """Raise ``ChangedError`` if the file is known to have changed while it was open."""


AnyContents = Contents[Any]
