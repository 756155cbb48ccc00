"""A listing without images: an error, unless ``allow_empty`` says otherwise."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from difflib import get_close_matches

from batchlight.driver.stats import RunStats
from batchlight.errors import BatchlightError, UsageError, counted
from batchlight.output.plan import PlanCounts
from batchlight.planning.listing import InputSet
from batchlight.storage import Location, open_source
from batchlight.storage.lists import LIST_SUFFIXES
from batchlight.storage.patterns import Patterns, hint

NAMES_AT_MOST = 3
SIMILAR = 0.4
"""How alike a name must be to be suggested, from 0 to 1; low, since the others are all wrong."""

logger = logging.getLogger(__name__)


def refuse_nothing(inputs: InputSet, counts: PlanCounts) -> None:
    """Raise if a listing found no images: ``UsageError`` if there never were any.

    ``BatchlightError`` if earlier runs found some, since the place may be unreachable. Both name
    the closest thing that does exist.
    """
    if counts.inputs or counts.containers:
        return
    before = counts.gone_tally + counts.not_selected_tally
    images = before.rows - before.copied
    if images and not inputs.passed_over.not_matching:
        raise BatchlightError(
            f"{inputs.given} no longer holds any of the {images} images that earlier runs "
            "recorded; check that it is mounted and that the path is right, or give --allow-empty "
            "if they are gone for good"
        )
    raise UsageError(f"{without_images(inputs, counts.others)}, or give --allow-empty")


def warn_of_untouched(patterns: Patterns, done: RunStats) -> None:
    """Warn if ``--include`` has selected nothing inside all containers that a run has done.

    They are copied as they are, and only their rows tell.
    """
    tally = done.tally
    is_one_copied = tally.in_containers and tally.skipped
    if patterns.include and is_one_copied and tally.in_containers == done.containers_without_images:
        logger.warning(
            "--include %s selects no image in any of the tar and Parquet files of this run, which "
            "are now copies%s",
            ", ".join(map(repr, patterns.include)),
            hint(patterns.include[0]),
        )


def without_images(inputs: InputSet, others: int = 0) -> str:
    """Why a listing found no images, what there is instead, and what to check.

    ``others``: the number of files listed that are not images but are copied.
    """
    if inputs.passed_over.not_matching:
        globs = [*inputs.patterns.include, *inputs.patterns.exclude]
        return (
            "--include and --exclude leave none of "
            f"{counted(inputs.passed_over.not_matching, 'image')} in {inputs.given}"
            f"{hint(globs[0])}; check them"
        )
    nearest = "; ".join(_nearest(inputs, others))
    return f"there are no images in {inputs.given}: {nearest}; check --input"


def _nearest(inputs: InputSet, others: int) -> Iterator[str]:
    met, given = inputs.passed_over, inputs.given
    if inputs.data_set.is_list:
        yield "the list is empty"
        return
    if met.linked_folders:
        first = met.linked_folders[0]
        yield f"the link {first} points to a folder and is not followed: pass its target instead"
    if met.outputs:
        yield f"its folder {met.outputs[0]} is the output of a run and cannot be an input"
    if others:
        yield f"it contains only {counted(others, 'file')} that --copy-others copies"
        return
    if met.suffixes:
        kinds = ", ".join(
            f"{number} {suffix or 'without a suffix'}"
            for suffix, number in met.suffixes.most_common(NAMES_AT_MOST)
        )
        which = (
            "part files of a list: give one of them, or join them"
            if (
                given.name.lower().endswith(LIST_SUFFIXES)
                and met.suffixes["." + given.name.rpartition(".")[2].lower()]
            )
            else "none of them an image"
        )
        yield f"it holds {kinds}, {which}"
    if not (met.linked_folders or met.outputs or met.suffixes):
        yield from _beside(given)


def _beside(given: Location) -> Iterator[str]:
    """What exists in place of an empty folder or a missing prefix."""
    yield "it is empty" if not given.remote else "no object's key begins with it"
    place = given
    while place.path and place.path != "/":
        name, place = place.name, place.parent
        names: list[str] = []
        with suppress(BatchlightError, OSError):
            storage = open_source(place)
            names = [f"{n}/" for n in storage.folders("")] + storage.names("")
        if names:
            near = get_close_matches(name, names, NAMES_AT_MOST, SIMILAR) or names[:NAMES_AT_MOST]
            yield f"in {place} there is {', '.join(near)}"
            return
