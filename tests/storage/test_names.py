"""Names as they are shown: only control characters, and what was no UTF-8, are escaped."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from batchlight.storage.base import escape_controls


def test_every_character_is_escaped_by_its_kind_alone() -> None:
    characters = list(map(chr, range(sys.maxunicode + 1)))
    escaped = {c for c in characters if escape_controls(c) != c}
    assert escaped == {c for c in characters if unicodedata.category(c) in ("Cc", "Cs")}


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a é/b 日.jpg", "a é/b 日.jpg"), ("a\x07\u200b.jpg", "a\\x07\u200b.jpg"), ("", "")],
)
def test_names_are_shown(name: str, shown: str) -> None:
    assert escape_controls(name) == shown
