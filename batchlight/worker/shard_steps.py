"""The steps of the images in a container."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

from batchlight.config import Method
from batchlight.output.inputs import Input
from batchlight.output.layout import container_output
from batchlight.shards.contents import AnyContents
from batchlight.shards.source import opened_container
from batchlight.shards.spool import Spool
from batchlight.storage import EVERYONE
from batchlight.worker.context import BatchContext
from batchlight.worker.image import Image
from batchlight.worker.steps import Steps


class ShardSteps(Steps):
    """Reads images from the container; spools their outputs until it is their turn there."""

    def __init__(self, context: BatchContext, container: Input) -> None:
        super().__init__(replace(context, fingerprints=context.container_fingerprints))
        self.container = container
        self.spool: Spool | None = None
        self._contents: AnyContents | None = None
        self.read_bytes = 0
        """Bytes of images read, counting repeated reads."""
        self.permissions = EVERYONE
        """Who may read the container, as permission bits; set once it is opened."""

    def opened_container(self) -> AbstractContextManager[AnyContents]:
        """The contents of the container. Raises as the function of that name."""
        columns = self.config.image_column
        return opened_container(self.container, self.input, self.opened, columns)

    @contextmanager
    def reading(self, contents: AnyContents) -> Iterator[None]:
        """Read images from ``contents`` inside the block."""
        self._contents = contents
        self.permissions = super().permissions_of(self.container)
        try:
            yield
        finally:
            self._contents = None

    @property
    def reads_ahead(self) -> bool:
        assert self._contents is not None
        return self._contents.remote

    def bytes_of(self, item: Input) -> bytes:
        assert self._contents is not None
        return self._contents.bytes_of(item)

    def permissions_of(self, item: Input) -> int:
        return self.permissions

    def path_of(self, method: Method, item: Input) -> str:
        return container_output(method, self.container.path)

    def put(self, image: Image, method: Method, path: str, data: bytes) -> None:
        assert self.spool is not None
        if not image.skipped:  # otherwise the bytes stay where they are
            self.spool.put((image.input.path, method), data)
