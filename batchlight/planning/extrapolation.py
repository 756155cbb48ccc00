"""Where to cut the rest of a listing so that its parts have about the same number of keys.

A store does not say which keys follow. But names mostly continue as they began: numbers count up,
and hashes are spread evenly. Where they do not, some parts are long and others empty, which costs
time but changes nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from string import ascii_lowercase, ascii_uppercase, digits

from batchlight.storage.ranges import shared_letters

_HEX = (digits + "abcdef", digits + "ABCDEF")
_CLASSES = (digits, ascii_uppercase, ascii_lowercase)
_LETTERS = frozenset("".join(_CLASSES))


def keys_ahead(first: str, last: str, times: float, number: int) -> list[str]:
    """Up to ``number`` keys after ``last``, ascending.

    ``first`` and ``last`` were listed; the keys are ``times`` as far apart as these. Fewer where
    such names run out, none where they give no clue.
    """
    same = shared_letters(first, last)
    if last[same : same + 1] not in _LETTERS:
        return []
    start = same
    while start and last[start - 1] in _LETTERS:
        start -= 1
    end = same
    while last[end : end + 1] in _LETTERS:
        end += 1
    alphabets = _alphabets(last[start:end])
    at = _number(last[start:end], alphabets)
    span = at - _number(first[start:end], alphabets)
    step = max(1, round(span * Fraction(times)))
    words = (_word(at + n * step, alphabets) for n in range(1, number + 1))
    return [last[:start] + word for word in words if word is not None] if span > 0 else []


def _alphabets(word: str) -> list[str]:
    """The characters possible at each position of words like this one."""
    for alphabet in (digits, *_HEX):
        if set(word) <= set(alphabet):
            return [alphabet] * len(word)
    return [alphabet for letter in word for alphabet in _CLASSES if letter in alphabet]


def _number(word: str, alphabets: Sequence[str]) -> int:
    """A word as a number; everything from the first missing or foreign letter on counts as zero."""
    found = 0
    is_known = True
    for place, alphabet in enumerate(alphabets):
        digit = alphabet.find(word[place : place + 1] or "?")
        is_known = is_known and digit >= 0
        found = found * len(alphabet) + (digit if is_known else 0)
    return found


def _word(number: int, alphabets: Sequence[str]) -> str | None:
    """The word for a number; None if it is too large."""
    letters: list[str] = []
    for alphabet in reversed(alphabets):
        number, digit = divmod(number, len(alphabet))
        letters.append(alphabet[digit])
    return "".join(reversed(letters)) if number == 0 else None
