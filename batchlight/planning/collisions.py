"""Images whose outputs would overwrite one another, or that have names of members in containers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from batchlight.config import JobConfig
from batchlight.errors import UsageError
from batchlight.images.container_names import is_parquet_name
from batchlight.images.names import output_path
from batchlight.planning.merging import Entry, NewImages
from batchlight.storage import Location
from batchlight.storage.base import folder_of

NO_STEM = "\n"
"""No path starts with this, since control characters are escaped."""


@dataclass
class Edges:
    """The ends of a part of a listing, as far as collisions with adjacent parts are concerned."""

    first_path: str | None = None
    """First path of an image or of records; None if there are neither."""
    last_stem: str = NO_STEM
    """Prefix of all paths whose outputs might collide with those of the last ones."""

    def noted(self, entries: Iterable[Entry | NewImages]) -> Iterator[Entry | NewImages]:
        """Pass the entries on, noting the ends."""
        for some in entries:
            images = some.images if isinstance(some, NewImages) else (some,)
            if self.first_path is None:
                self.first_path = images[0].path
            for image in images:
                if not image.path.startswith(self.last_stem):
                    self.last_stem = _stem(image.path)
            yield some

    def include(self, following: Edges) -> bool:
        """Append the next part. Returns False if their outputs might collide."""
        if following.first_path is None:
            return True
        apart = not following.first_path.startswith(self.last_stem)
        self.last_stem = following.last_stem
        return apart


def outside(entries: Iterable[Entry | NewImages], config: JobConfig) -> Iterator[Entry | NewImages]:
    """Pass the entries on. Raises ``UsageError`` for what cannot be done with containers.

    An object store may hold both ``a.tar`` and ``a.tar/b.jpg``; these are adjacent.
    """
    container: str | None = None
    for entry in entries:
        image = entry.images[0] if isinstance(entry, NewImages) else entry.image
        if image is not None and image.container:
            container = image.path
            if config.format != "same":
                raise UsageError(
                    f"{container} is a container, whose images keep their formats; use --format "
                    f"same, or --exclude {container}"
                )
            if is_parquet_name(container):
                _refuse_losing_rows(container, config)
        elif image is not None and container and image.path.startswith(f"{container}/"):
            raise UsageError(
                f"{container} is a container, and {image.path} is named like a member of it; "
                "rename or exclude one of them"
            )
        yield entry


def _refuse_losing_rows(container: str, config: JobConfig) -> None:
    """No row can be left out, since the other columns are copied as they are."""
    for option, value, kept in (
        ("failed-images", config.failed_images, "keep"),
        ("not-dark", config.not_dark, "copy"),
    ):
        if value in ("drop", "drop-sample", "leave-out"):
            raise UsageError(
                f"{container} is a Parquet file, which keeps all its rows; use --{option} {kept} "
                f"and filter by the records, or --exclude {container}"
            )


def apart(entries: Iterable[Entry | NewImages], config: JobConfig) -> Iterator[Entry | NewImages]:
    """Pass the entries on, but let none overwrite the output of another."""
    for found in _neighbours(entries):
        if isinstance(found, NewImages):
            yield found
        else:
            yield from _without_collisions(found, config)


def _neighbours(entries: Iterable[Entry | NewImages]) -> Iterator[list[Entry] | NewImages]:
    """Groups of entries whose outputs may collide; images that cannot collide are left together.

    Paths whose outputs collide share all but the suffix, and in sorted order everything between
    them starts with the same ``stem.``, so only adjacent entries need to be compared.
    """
    neighbours: list[Entry] = []
    stem = NO_STEM
    for some in entries:
        if isinstance(some, NewImages) and _stand_apart(some, stem):
            yield neighbours
            if before := some.images[:-1]:
                yield NewImages(before)
            neighbours, stem, some = [], NO_STEM, NewImages(some.images[-1:])
        for entry in some.entries():
            if entry.path.startswith(stem):
                neighbours.append(entry)
                continue
            yield neighbours
            neighbours, stem = [entry], _stem(entry.path)
    yield neighbours


def _stand_apart(new: NewImages, stem: str) -> bool:
    """Whether no path starts with the stem of the previous one; ``stem`` comes before the first."""
    paths = [image.path for image in new.images]
    return not any(map(str.startswith, paths, [stem, *map(_stem, paths)]))


def _stem(path: str) -> str:
    return path.rpartition(".")[0] + "."


def _without_collisions(entries: Sequence[Entry], config: JobConfig) -> Iterator[Entry]:
    """Raise ``UsageError`` if two images would be written to the same output.

    An image that is not listed keeps its row and its output, so one that would overwrite it fails.
    """
    if len(entries) < 2:
        yield from entries
        return
    kept = _outputs_of(entry for entry in entries if entry.image is None)
    done = _outputs_of(entry for entry in entries if entry.image is not None)
    writers: dict[str, str] = {}
    for entry in entries:
        if entry.image is None:
            yield entry
            continue
        outputs = [output_path(method, entry.path, config.format) for method in config.method]
        own = {row.output for row in entry.rows.values()}
        defect = None
        for output in outputs:
            if output in writers:
                raise _collision(writers[output], entry.path, output, done.get(output))
            writers[output] = entry.path
            above = next((folder for folder in _folders_of(output) if folder in writers), None)
            if above is not None and not Location.parse(config.output or config.input).remote:
                defect = (
                    f"its output would lie in the folder {above}, which is the output of "
                    f"{writers[above]}; rename one of them"
                )
            if output in kept and output not in own:
                defect = (
                    f"{output} is the output of {kept[output]}, which this run does not list; "
                    "rename this one, or choose another --output"
                )
        yield entry._replace(image=replace(entry.image, defect=defect)) if defect else entry


def _outputs_of(entries: Iterable[Entry]) -> dict[str | None, str]:
    """The outputs that earlier runs recorded, and the images that they are of."""
    return {row.output: row.path for entry in entries for row in entry.rows.values()}


def _collision(one: str, other: str, output: str, done: str | None) -> UsageError:
    """``done``: which of the two has the output already, if one has."""
    if done not in (one, other):
        return UsageError(
            f"{one} and {other} would both be written to {output}; rename or --exclude one of "
            "them, or give --format same, with another --output if this one is in use"
        )
    new = other if done == one else one
    return UsageError(
        f"{output} is the output of {done}, and {new} would be written to it as well; rename or "
        f"--exclude {new}, or choose another --output with --format same"
    )


def _folders_of(path: str) -> Iterator[str]:
    """All folders above a path; each could be an image's output, as a key may extend another."""
    while path := folder_of(path):
        yield path
