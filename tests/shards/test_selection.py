"""Which containers ``--include`` may take something of, by their names alone."""

from __future__ import annotations

import pytest

from batchlight.shards.selection import takes_some_of
from batchlight.storage.patterns import Patterns


@pytest.mark.parametrize(
    ("glob", "taken", "left"),
    [
        ("b.jpg", ["a.tar", "x/a.tar", "x.tar/a.tar"], []),
        ("**/b.jpg", ["a.tar", "x/a.tar"], []),
        ("*.tar", ["a.tar", "x/a.tar", "x.tar/a.parquet"], ["a.parquet"]),
        ("a.tar/b.jpg", ["a.tar"], ["b.tar", "x/a.tar", "a.tar/c.tar"]),
        ("/a.tar/b.jpg", ["a.tar"], ["b.tar", "x/a.tar"]),
        ("**/a.tar/b.jpg", ["a.tar", "x/a.tar", "x/y/a.tar"], ["b.tar", "x/b.tar"]),
        ("x/**/a.tar/b.jpg", ["x/a.tar", "x/y/z/a.tar"], ["a.tar", "x/b.tar"]),
        ("[0-9]*.tar/b.jpg", ["00.tar"], ["a.tar"]),
        ("a.tar/c.tar/b.jpg", ["a.tar", "a.tar/c.tar"], ["a.tar/d.tar", "c.tar"]),
        ("x.parquet/1.parquet", ["x.parquet/1.parquet", "x.parquet"], ["x.parquet/0.parquet"]),
        ("x.parquet/1.parquet/**/image", ["x.parquet/1.parquet"], ["x.parquet/0.parquet"]),
        ("x.parquet", ["x.parquet/part-1.parquet", "y/x.parquet/a.tar"], ["y.parquet/a.parquet"]),
        ("x.parquet/", ["x.parquet/part-1.parquet"], ["y.parquet/part-1.parquet"]),
        ("x.parquet/**", ["x.parquet/part-1.parquet", "x.parquet"], ["y/x.parquet/part-1.parquet"]),
        ("x.parquet/*/*/image", ["x.parquet/part-1.parquet"], ["part-1.parquet"]),
        ("x/*", ["x/a.tar"], ["a.tar"]),
        ("x/*.jpg", [], ["x/a.tar"]),
    ],
)  # fmt: skip
def test_a_glob_of_members(glob: str, taken: list[str], left: list[str]) -> None:
    patterns = Patterns.of((glob,), ())
    assert [path for path in taken + left if takes_some_of(patterns, path)] == taken
