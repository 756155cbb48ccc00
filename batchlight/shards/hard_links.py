"""Hard links in a tar that is written with members left out: none may lose its data."""

from __future__ import annotations

from batchlight.shards.contents import Place
from batchlight.shards.tar import Member


class HardLinks:
    """What is written and left out, and which members have to stay for hard links that do.

    A link follows its target, so a target may turn out to be needed when it has been left out; the
    tar is then written again. Other containers have no links.
    """

    def __init__(self) -> None:
        self._needed: set[bytes] = set()
        self._left_out: set[bytes] = set()

    def need(self, place: Place) -> bool:
        """Whether a link that stays has been found to need this member."""
        return isinstance(place, Member) and _plain(place.name) in self._needed

    def leave_out(self, place: Place) -> None:
        """Note a member that is left out."""
        if isinstance(place, Member):
            self._left_out.add(_plain(place.name))

    def keep(self, place: Place) -> bool:
        """Note a member that stays; returns whether it is a link without its target."""
        if not isinstance(place, Member):
            return False
        self._left_out.discard(_plain(place.name))
        if place.target is None or _plain(place.target) not in self._left_out:
            return False
        self._needed.add(_plain(place.target))
        return True

    def start_again(self) -> None:
        """Forget everything except which members links need."""
        self._left_out.clear()


def _plain(name: bytes) -> bytes:
    """A name as writers give it for a member and for links to it, which may differ in ``./``."""
    while name.startswith((b"./", b"/")):
        name = name.partition(b"/")[2]
    return name
