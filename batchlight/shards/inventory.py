"""The images of a container, for whoever reads them without a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice

from batchlight.errors import ErrorCode, ImageError, brief
from batchlight.images.container_names import kind_of, why_refused
from batchlight.output.inputs import Input
from batchlight.shards.selection import images
from batchlight.shards.source import opened_container
from batchlight.shards.tar import members
from batchlight.storage import FileInfo, Location, Storage, open_source
from batchlight.storage.patterns import Patterns


def first_images(
    container: Input,
    root: Storage,
    opened: Callable[[Location], Storage],
    patterns: Patterns,
    at_most: int,
) -> list[Input]:
    """So many of its images. Raises as ``opened_container``, also for a compressed one."""
    if container.defect is None and kind_of(container.path) != "tar":
        raise ImageError(ErrorCode.UNSUPPORTED, "images in a compressed container are not shown")
    with opened_container(container, root, opened) as reader:
        found = (item for _, item in images(container, members(reader), patterns) if item)
        return list(islice(found, at_most))


def images_in(storage: Storage, info: FileInfo) -> list[Input]:
    """All of them, each with its offset; the container itself, with the reason, if there is one."""
    defect = info.defect or why_refused(info.path)
    if defect is None and kind_of(info.path) != "tar":
        defect = "images in a compressed container are not compared"
    container = Input(info.path, defect=defect, container=True)
    if defect is not None:
        return [container]
    try:
        with opened_container(container, storage, open_source) as reader:
            found = images(container, members(reader), Patterns())
            return [item for _, item in found if item is not None]
    except (ImageError, OSError) as error:
        return [replace(container, defect=brief(error))]
