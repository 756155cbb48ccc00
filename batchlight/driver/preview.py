"""A few images enhanced with a few settings, on one page, before a run on all of them.

Bounded for any data set: only a limited number of files is listed, and of images decoded.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from batchlight.absgn.loading import weights_of
from batchlight.classical.light import batch_light
from batchlight.config import LIGHT_WINDOW, JobConfig
from batchlight.driver.emptiness import without_images
from batchlight.driver.network import model_of
from batchlight.driver.settings import IMAGES, IMAGES_AT_MOST, Setting, make_settings
from batchlight.engine import Engine
from batchlight.errors import UsageError, counted
from batchlight.host.process import one_opencv_thread
from batchlight.output.inputs import Input
from batchlight.planning.columns import refuse_unknown_columns
from batchlight.planning.listing import InputSet, open_inputs
from batchlight.report.contact_sheet import (
    Cell,
    Comparison,
    Row,
    Sheet,
    ThumbnailMaker,
    UnreadableImage,
)
from batchlight.report.sheet_drawing import as_png
from batchlight.shards.inventory import first_images
from batchlight.storage import Location, Storage, open_storage
from batchlight.storage.publishing import require_replaceable, write_file
from batchlight.worker.image import Failure, Image, of_one_input
from batchlight.worker.trial import TOO_LITTLE_MEMORY, Trial

FILES_AT_MOST = 10_000
"""How many files of the listing the images are chosen from."""
CONTAINERS_AT_MOST, IMAGES_OF_A_CONTAINER = 8, 64
"""Containers, and images of each, from which images are chosen too."""
LOOKED_AT = 4
"""Images decoded per image shown, to find the darkest and the brightest among them."""
SEED = 0

OnStep = Callable[[str], None]


@dataclass(frozen=True)
class Preview:
    """The result of a preview, and where its page is."""

    page: str
    shown: int
    failed: Sequence[UnreadableImage]
    settings: Sequence[Comparison]


@dataclass(frozen=True)
class _Looked:
    """A decoded image that may be shown."""

    item: Input
    width: int
    height: int
    luminance: float
    lights: Mapping[int, float]
    """Its own estimate of the atmospheric light, by the side of that estimate's window."""


def preview(
    config: JobConfig,
    settings: Sequence[str] = (),
    *,
    page: str | os.PathLike[str] | None = None,
    images: int = IMAGES,
    png: bool = False,
    on_step: OnStep = lambda _: None,
) -> Preview:
    """Enhance a few images of ``config.input`` with each setting; writes the page and nothing else.

    ``settings``: such as ``omega=0.8 t0=0.05``, each applied on top of the config; if none, a
    default set. ``page``: the file to write, by default ``preview.html`` (or ``.png``) in the
    current folder. ``on_step`` is called at each step. Raises ``UsageError`` and ``StorageError``.
    """
    target = _target(page, png)
    inputs = open_inputs(config.model_copy(update={"copy_others": False}))
    if inputs.data_set.is_folder and inputs.root.encloses(target):
        raise UsageError(
            f"{target} would be inside the input {inputs.root}; choose another --output"
        )
    refuse_unknown_columns(inputs)
    sheet = make_sheet(config, inputs, settings, images, on_step)
    drawn = as_png(sheet) if target.name.lower().endswith(".png") else sheet.as_html().encode()
    _write(target, drawn)
    return Preview(str(target), len(sheet.rows), sheet.failed, sheet.settings)


def make_sheet(
    config: JobConfig,
    inputs: InputSet,
    settings: Sequence[str] = (),
    images: int = IMAGES,
    on_step: OnStep = lambda _: None,
) -> Sheet:
    """What ``preview`` draws; writes nothing."""
    if not 1 <= images <= IMAGES_AT_MOST:
        raise UsageError(f"--images is {images}, but must be from 1 to {IMAGES_AT_MOST}")
    compared = make_settings(config, settings)
    with one_opencv_thread():
        return _Maker(inputs, compared, on_step).sheet(images)


class _Maker:
    """Chooses the images and tries the settings on them."""

    def __init__(self, inputs: InputSet, settings: Sequence[Setting], on_step: OnStep) -> None:
        self._inputs = inputs
        self._settings = settings
        self._on_step = on_step
        self._opened = inputs.opened
        self._trials = [_trial(setting, inputs.root, inputs.opened) for setting in settings]

    def sheet(self, images: int) -> Sheet:
        """The whole sheet. Raises ``UsageError`` if there are no images."""
        self._on_step("listing")
        given, is_all = self._inputs.first_images(FILES_AT_MOST)
        failed: list[UnreadableImage] = []
        containers = [item for item in given if item.container]
        listed = [item for item in given if not item.container]
        listed += self._inside(containers[:CONTAINERS_AT_MOST], failed)
        if not listed and containers:
            first = f"{containers[0].path}{f': {failed[0].reason}' if failed else ''}"
            raise UsageError(
                f"there are no images to show in the first containers, such as {first}; "
                "check --input, --include and --exclude"
            )
        if not listed:
            among = "" if is_all else f"of the first {FILES_AT_MOST:,} files: "
            raise UsageError(among + without_images(self._inputs))
        chance = random.Random(SEED).sample(range(len(listed)), len(listed))
        sample = [listed[i] for i in sorted(chance[: images * LOOKED_AT])]
        looked = self._look(sample, failed)
        lights = [self._light(setting, looked) for setting in self._settings]
        rows = self._rows(_spread(looked, images), lights, failed)
        outcomes = [[row.cells[i].outcome for row in rows] for i in range(len(self._settings))]
        return Sheet(
            str(self._inputs.given),
            self._notes(len(listed), is_all, len(sample), len(rows), len(containers)),
            [
                Comparison.of(setting.label, setting.method, its)
                for setting, its in zip(self._settings, outcomes, strict=True)
            ],
            rows,
            failed,
        )

    def _inside(self, containers: Sequence[Input], failed: list[UnreadableImage]) -> list[Input]:
        """The first images of some containers."""
        found: list[Input] = []
        opened, patterns = self._opened, self._inputs.patterns
        columns = self._inputs.image_columns
        root = opened(self._inputs.root)
        for number, item in enumerate(containers, 1):
            self._on_step(f"looking into container {number} of {len(containers)}")
            image = Image(item, ())

            def look(item: Input = item) -> list[Input]:
                with of_one_input():
                    return first_images(
                        item, root, opened, patterns, IMAGES_OF_A_CONTAINER, columns
                    )

            found += image.attempt(look) or []
            if image.failure is not None:
                failed.append(_failed(item, image.failure))
        return found

    def _look(self, sample: Sequence[Input], failed: list[UnreadableImage]) -> list[_Looked]:
        """Decode the sample, in listing order."""
        by_window = {
            _light_window(setting): trial
            for setting, trial in zip(self._settings, self._trials, strict=True)
        }
        found = []
        for number, item in enumerate(sample, 1):
            self._on_step(f"looking at image {number} of {len(sample)}")
            lights: dict[int, float] = {}
            image = Image(item, ())
            data = self._trials[0].read(image)
            for window, trial in by_window.items():
                if data is not None:
                    trial.look(image, data)
                lights[window] = image.light or 0.0
            if image.failure is not None:
                failed.append(_failed(item, image.failure))
                continue
            facts = image.facts
            found.append(
                _Looked(item, facts["width"], facts["height"], facts["luminance_before"], lights)
            )
        return found

    def _rows(
        self,
        chosen: Sequence[_Looked],
        lights: Sequence[float | None],
        failed: list[UnreadableImage],
    ) -> list[Row]:
        rows = []
        for trial in self._trials:
            trial.warm_up()
        for number, looked in enumerate(chosen, 1):
            self._on_step(f"enhancing image {number} of {len(chosen)}")
            image = Image(looked.item, ())
            data = self._trials[0].read(image)
            row = None if data is None else self._row(looked, data, lights, image)
            if row is not None:
                rows.append(row)
            else:
                assert image.failure is not None
                failed.append(_failed(looked.item, image.failure))
        return rows

    def _row(
        self, looked: _Looked, data: bytes, lights: Sequence[float | None], image: Image
    ) -> Row | None:
        """One image with all settings; None if the image itself can no longer be shown."""

        def make_thumbnails() -> ThumbnailMaker:
            return ThumbnailMaker(data, self._settings[0].config.max_pixels)

        try:
            thumbnails = image.attempt(make_thumbnails)
        except MemoryError:
            image.failure, thumbnails = TOO_LITTLE_MEMORY, None
        if thumbnails is None:
            return None
        self._trials[0].look(image, data)  # a warm-up, or the first setting would seem slower
        cells: list[Cell] = [
            thumbnails.cell(trial.enhance(looked.item, data, light))
            for trial, light in zip(self._trials, lights, strict=True)
        ]
        size = (looked.width, looked.height)
        return Row(looked.item.path, *size, looked.luminance, thumbnails.original, cells)

    def _light(self, setting: Setting, looked: Sequence[_Looked]) -> float | None:
        """The light of all images looked at, as if they were one batch of a run."""
        if setting.config.atmospheric_light != "batch":
            return None
        return batch_light(image.lights[_light_window(setting)] for image in looked)

    def _notes(
        self, listed: int, is_all: bool, looked_at: int, shown: int, containers: int
    ) -> list[str]:
        of_all = f"all {counted(listed, 'image')}"
        if listed > looked_at:
            of_all = f"a random {looked_at} of {listed:,} images"
        first = f" (of the first {FILES_AT_MOST:,} files)" if not is_all else ""
        notes = [f"{shown} shown, from the darkest to the brightest of {of_all}{first}."]
        if containers:
            some = min(containers, CONTAINERS_AT_MOST)
            which = "them" if containers == some else f"the first {some} of them"
            notes.append(
                f"There {'is' if containers == 1 else 'are'} {counted(containers, 'container')}; "
                f"of {which}, the first {IMAGES_OF_A_CONTAINER} images of each were looked at."
            )
        shares = [s.config.atmospheric_light == "batch" for s in self._settings]
        if any(s.method == "classical" and b for s, b in zip(self._settings, shares, strict=True)):
            notes.append(
                "The atmospheric light is the mean of all that were looked at, as if "
                "they were one batch; an image's own where that is larger, as in a run."
            )
        return notes


def _trial(setting: Setting, root: Location, opened: Callable[[Location], Storage]) -> Trial:
    here = setting.config.model_copy(update={"workers": 0})

    def no_engine() -> Engine:
        raise AssertionError("nothing of a preview runs elsewhere")

    model = model_of(here, weights_of(here), no_engine)
    return Trial(setting.config, root, opened, model.enhancer() if model else None)


def _light_window(setting: Setting) -> int:
    return max(setting.config.window, LIGHT_WINDOW)


def _spread(looked: Sequence[_Looked], images: int) -> list[_Looked]:
    """Choose this many: the darkest, the brightest, and others evenly in between."""
    ordered = sorted(looked, key=lambda image: image.luminance)
    if len(ordered) <= images:
        return ordered
    if images == 1:
        return [ordered[len(ordered) // 2]]
    return [ordered[round(i * (len(ordered) - 1) / (images - 1))] for i in range(images)]


def _failed(item: Input, failure: Failure) -> UnreadableImage:
    return UnreadableImage(item.path, failure.code, failure.message)


def _target(page: str | os.PathLike[str] | None, png: bool) -> Location:
    """Where the page goes, checked to be writable. Raises ``UsageError``."""
    suffixes = (".png",) if png else (".html", ".png")
    target = Location.parse(page or f"preview{suffixes[0]}")
    if target.remote:
        open_storage(target.parent).check(writable=True)
    elif os.path.isdir(target.path):
        raise UsageError(f"{target} is a folder; name a file in it as --output")
    elif not os.path.isdir(target.parent.path):
        raise UsageError(
            f"there is no folder {target.parent}; create it, or choose another --output"
        )
    elif not os.access(target.parent.path, os.W_OK):
        raise UsageError(f"no permission to write to {target.parent}; choose another --output")
    else:
        require_replaceable(target.path)
    if not target.name.lower().endswith(suffixes):
        given = "with --png, " if png else ""
        raise UsageError(f"{given}--output must end in {' or '.join(suffixes)}, but is {target}")
    return target


def _write(target: Location, data: bytes) -> None:
    if target.remote:
        open_storage(target.parent).write(target.name, data)
    else:
        write_file(target.path, data)
