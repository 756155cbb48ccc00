"""Images to the network and back: each once, in groups and calls that their order decides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchlight.absgn.result import Restored
from batchlight.images.pixels import Pixels
from batchlight.worker import network_client as feeding
from batchlight.worker.network_client import (
    CALLS_AT_LEAST,
    CALLS_UNDER_WAY,
    PIXELS_UNDER_WAY,
    PIXELS_WAITING,
    Feeder,
)


@dataclass
class Network:
    """A service in this process: adds 1000, late, and remembers what it was asked."""

    calls: list[list[list[Pixels]]] = field(default_factory=list)
    quick: bool = False
    """Whether a call is done as soon as it is asked."""
    answered: int = 0
    unanswered: list[int] = field(default_factory=list)
    """For each call, how many there were when it had been sent."""

    def submit(self, method: str, *arguments: object) -> Reply:
        assert method == "restore_groups"
        (groups,) = arguments
        assert isinstance(groups, list)
        self.calls.append([list(group) for group in groups])
        self.unanswered.append(len(self.calls) - self.answered)
        return Reply(self, len(self.calls) - 1)

    @property
    def groups(self) -> list[list[Pixels]]:
        return [group for call in self.calls for group in call]

    @property
    def numbers(self) -> list[list[list[int]]]:
        """The calls and their groups, by what is in the images."""
        return [[[int(i.flat[0]) for i in group] for group in call] for call in self.calls]


@dataclass
class Reply:
    network: Network
    number: int

    def done(self) -> bool:
        return self.network.quick

    def result(self) -> list[list[Restored]]:
        assert self.number == self.network.answered, "asked in another order than sent"
        self.network.answered += 1
        groups = self.network.calls[self.number]
        return [[Restored(image + 1000, None, 1.0) for image in group] for group in groups]


@dataclass
class Course:
    """What came back, and when."""

    network: Network
    returned: list[int] = field(default_factory=list)
    sent_after: list[int] = field(default_factory=list)
    """Calls that were sent when each item had been put."""


def image_of(number: int, kind: tuple[int, int, bool, bool]) -> Pixels:
    height, width, colour, wide = kind
    shape = (height, width, 3) if colour else (height, width)
    return np.full(shape, number, np.uint32 if wide else np.uint16)


@contextmanager
def at_most(waiting: int, under_way: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feeding, "PIXELS_WAITING", waiting)
        patch.setattr(feeding, "PIXELS_UNDER_WAY", under_way)
        yield


def feed(
    images: list[Pixels],
    at_once: int,
    waiting: int = PIXELS_WAITING,
    under_way: int = PIXELS_UNDER_WAY,
    quick: bool = False,
) -> Course:
    """Put them all; each must come back as itself, plus 1000."""
    course = Course(Network(quick=quick))
    feeder = Feeder[int](course.network, at_once)

    def take(done: Iterator[tuple[int, Restored]]) -> None:
        for number, restored in done:
            image = images[number]
            result = restored.get()
            assert (result.shape, result.dtype) == (image.shape, image.dtype)
            assert np.array_equal(result, image + 1000)
            course.returned.append(number)

    with at_most(waiting, under_way):
        for number, image in enumerate(images):
            take(feeder.put(number, image))
            course.sent_after.append(len(course.network.calls))
        take(feeder.rest())
    return course


def pixels_of(image: Pixels) -> int:
    return int(image.shape[0] * image.shape[1])


def total(group: list[Pixels]) -> int:
    return sum(map(pixels_of, group))


KINDS = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.booleans(), st.booleans()),
    max_size=40,
)
IMAGES = KINDS.map(lambda kinds: [image_of(number, kind) for number, kind in enumerate(kinds)])
AT_ONCE = st.integers(0, 40)
WAITING = st.integers(0, 60)


@settings(max_examples=200)
@given(IMAGES, AT_ONCE, WAITING)
def test_everything_comes_back_once(images: list[Pixels], at_once: int, waiting: int) -> None:
    course = feed(images, at_once, waiting)
    assert sorted(course.returned) == list(range(len(images)))
    sent = [number for call in course.network.numbers for group in call for number in group]
    assert course.returned == sent
    assert course.network.answered == len(course.network.calls)


@settings(max_examples=200)
@given(IMAGES, AT_ONCE, WAITING)
def test_groups_are_of_one_kind_and_not_too_large(
    images: list[Pixels], at_once: int, waiting: int
) -> None:
    for call in feed(images, at_once, waiting).network.calls:
        assert call
        assert sum(map(len, call)) == 1 or sum(map(total, call)) <= at_once
        for group in call:
            assert group
            assert len({(image.shape, image.dtype) for image in group}) == 1


@settings(max_examples=200)
@given(IMAGES, AT_ONCE, WAITING)
def test_calls_carry_as_many_groups_as_fit(
    images: list[Pixels], at_once: int, waiting: int
) -> None:
    """Of groups that were all there when the first was sent, as at the end."""
    course = feed(images, at_once, waiting)
    last = course.network.calls[course.sent_after[-1] :] if images else []
    for call, following in pairwise(last):
        assert sum(map(total, call)) + total(following[0]) > at_once


@settings(max_examples=200)
@given(IMAGES, AT_ONCE)
def test_groups_are_as_large_as_they_may_be(images: list[Pixels], at_once: int) -> None:
    """With room to wait, a group that is not the last of its kind has no room for one more."""
    groups = feed(images, at_once).network.groups
    for number, group in enumerate(groups):
        kind = (group[0].shape, group[0].dtype)
        if any((later[0].shape, later[0].dtype) == kind for later in groups[number + 1 :]):
            assert total(group) + pixels_of(group[0]) > at_once


@settings(max_examples=200)
@given(IMAGES, AT_ONCE, WAITING)
def test_the_order_within_a_kind_is_kept(images: list[Pixels], at_once: int, waiting: int) -> None:
    last: dict[object, int] = {}
    course = feed(images, at_once, waiting)
    for number in course.returned:
        kind = (images[number].shape, images[number].dtype)
        assert last.get(kind, -1) < number
        last[kind] = number


@settings(max_examples=200)
@given(IMAGES, AT_ONCE, WAITING, st.integers(0, 100))
def test_few_calls_and_pixels_are_under_way(
    images: list[Pixels], at_once: int, waiting: int, under_way: int
) -> None:
    network = feed(images, at_once, waiting, under_way).network
    sizes = [sum(map(total, call)) for call in network.calls]
    for number, unanswered in enumerate(network.unanswered):
        assert unanswered <= min(CALLS_UNDER_WAY, number + 1)
        held = sizes[number + 1 - unanswered : number + 1]
        assert unanswered <= CALLS_AT_LEAST or sum(held) <= under_way
        # One more would have been too many, if there was one.
        if unanswered < min(CALLS_UNDER_WAY, number + 1):
            assert unanswered >= CALLS_AT_LEAST
            assert sum(held) + sizes[number - unanswered] > under_way


@settings(max_examples=200)
@given(IMAGES, AT_ONCE, WAITING, st.integers(0, 40))
def test_calls_follow_from_the_images_so_far_and_not_from_when_they_are_answered(
    images: list[Pixels], at_once: int, waiting: int, length: int
) -> None:
    course = feed(images, at_once, waiting)
    again = feed(images, at_once, waiting, quick=True)
    assert again.network.numbers == course.network.numbers
    start = feed(images[:length], at_once, waiting)
    assert start.sent_after == course.sent_after[:length]
    sent = start.sent_after[-1] if start.sent_after else 0
    assert start.network.numbers[:sent] == course.network.numbers[:sent]


@settings(max_examples=200)
@given(IMAGES, AT_ONCE, WAITING)
def test_no_more_pixels_wait_than_may(images: list[Pixels], at_once: int, waiting: int) -> None:
    course = feed(images, at_once, waiting)
    for put, sent in enumerate(course.sent_after, 1):
        gone = {n for call in course.network.numbers[:sent] for group in call for n in group}
        held = [image for number, image in enumerate(images[:put]) if number not in gone]
        assert sum(map(pixels_of, held)) <= waiting


def test_the_oldest_groups_share_a_call_when_too_many_pixels_wait() -> None:
    kinds = [(1, 2), (1, 3), (1, 2), (1, 4), (1, 1)]
    images = [image_of(number, (*kind, False, False)) for number, kind in enumerate(kinds)]
    course = feed(images, at_once=10, waiting=10)
    assert course.sent_after == [0, 0, 0, 1, 1]
    assert course.network.numbers == [[[0, 2], [1]], [[3], [4]]]


def test_on_a_cpu_images_go_one_by_one() -> None:
    images = [image_of(number, (3, 3, True, False)) for number in range(4)]
    course = feed(images, at_once=0)
    assert course.sent_after == [1, 2, 3, 4]
    assert course.network.numbers == [[[0]], [[1]], [[2]], [[3]]]


def test_answers_are_awaited_only_when_they_must_be() -> None:
    network = Network()
    feeder = Feeder[int](network, 0)
    image = image_of(0, (2, 2, False, False))
    for number in range(CALLS_UNDER_WAY):
        assert list(feeder.put(number, image)) == []
        assert network.answered == 0
    assert [number for number, _ in feeder.put(CALLS_UNDER_WAY, image)] == [0]
    assert network.answered == 1


def test_what_is_done_is_given_back_at_once() -> None:
    feeder = Feeder[int](Network(quick=True), 0)
    for number in range(3):
        image = image_of(number, (2, 2, False, False))
        assert [done for done, _ in feeder.put(number, image)] == [number]


def test_nothing_makes_nothing() -> None:
    network = Network()
    feeder = Feeder[int](network, 10)
    assert list(feeder.rest()) == []
    assert network.groups == []


def test_the_rest_is_given_once() -> None:
    feeder = Feeder[int](Network(), 100)
    image = image_of(0, (2, 2, False, False))
    assert list(feeder.put(1, image)) == []
    assert [number for number, _ in feeder.rest()] == [1]
    assert list(feeder.rest()) == []
    assert list(feeder.put(2, image)) == []
    assert [number for number, _ in feeder.rest()] == [2]


class Broken:
    """A service whose answers are not what was asked for."""

    def __init__(self, answer: list[list[Restored]] | Exception) -> None:
        self.answer = answer

    def done(self) -> bool:
        return False

    def submit(self, method: str, *arguments: object) -> Broken:
        return self

    def result(self) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(("groups", "count"), [(1, 0), (1, 1), (1, 3), (0, 2), (2, 2)])
def test_an_answer_of_another_length_is_refused(groups: int, count: int) -> None:
    image = image_of(0, (2, 2, False, False))
    feeder = Feeder[int](Broken([[Restored(image, None, 1.0)] * count] * groups), 100)
    for number in range(2):
        assert list(feeder.put(number, image)) == []
    with pytest.raises(ValueError):
        list(feeder.rest())


def test_an_error_of_the_service_comes_out() -> None:
    feeder = Feeder[int](Broken(OSError("gone")), 100)
    assert list(feeder.put(1, image_of(0, (2, 2, False, False)))) == []
    with pytest.raises(OSError, match="gone"):
        list(feeder.rest())
