"""Where things are: URIs are split literally, and secrets in them are not repeated."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from batchlight.errors import UsageError
from batchlight.storage import Location


@pytest.mark.parametrize(
    ("text", "expected", "shown"),
    [
        ("s3://b", ("s3", "b", ""), "s3://b/"),
        ("s3://b/", ("s3", "b", ""), "s3://b/"),
        ("gs://b/a/", ("gs", "b", "a"), "gs://b/a"),
        ("az://b.c-d/a b/c", ("az", "b.c-d", "a b/c"), "az://b.c-d/a b/c"),
        ("s3://b/a%20b#c?d+e", ("s3", "b", "a%20b#c?d+e"), "s3://b/a%20b#c?d+e"),
        ("s3://b/x://y", ("s3", "b", "x://y"), "s3://b/x://y"),
        ("/a b/#%20?/", ("", "", "/a b/#%20?"), "/a b/#%20?"),
        ("/a/../b//c", ("", "", "/b/c"), "/b/c"),
        ("file:///a b/%20#?", ("", "", "/a b/%20#?"), "/a b/%20#?"),
        ("/", ("", "", "/"), "/"),
    ],
)
def test_parse(text: str, expected: tuple[str, str, str], shown: str) -> None:
    location = Location.parse(text)
    assert (location.scheme, location.bucket, location.path) == expected
    assert str(location) == shown
    assert Location.parse(shown) == location


def test_parse_relative_paths() -> None:
    assert Location.parse("a/b").path == os.path.abspath("a/b")
    assert Location.parse("~/a").path == os.path.expanduser("~/a")
    assert Location.parse("dir/s3://b").path == os.path.abspath("dir/s3:/b")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ftp://host/a", "cannot use ftp:// locations; .* s3://, gs://, az://"),
        ("https://me:SECRET@host/a", "cannot use https://"),
        ("s3://me:SECRET@bucket/a", "must not contain credentials"),
        ("az://SECRET@account/a", "must not contain credentials"),
        ("az://container/a?sv=2020&sig=SECRET", "must not contain credentials"),
        ("s3://bucket/a?X-Amz-Signature=SECRET", "must not contain credentials"),
        ("s3://bucket?x-amz-credential=SECRET/a", "must not contain credentials"),
        ("gs://bucket/a?GoogleAccessId=me&Signature=SECRET", "must not contain credentials"),
        ("s3:/me:SECRET@b/a", "s3: needs two slashes: write s3://bucket/prefix"),
        ("gs:b", "gs: needs two slashes"),
        ("s3://arn:aws:s3:eu-west-1:1:accesspoint/a", "access points .* not supported"),
        ("s3://", "names no bucket"),
        ("s3:///key", "names no bucket"),
        ("s3://b#SECRET/a", "is not a valid bucket name"),
        ("s3://b?c/a", "is not a valid bucket name"),
        ("s3://my bucket/a", "is not a valid bucket name"),
        ("s3://../a", "is not a valid bucket name"),
        ("file://", "not an absolute path"),
        ("file://host/a", "not an absolute path"),
        ("/data/\udcff", r"\\xff is not UTF-8"),
        ("/data/\0a", r"/data/\\x00a contains a NUL character"),
        ("s3://b/\0a", "contains a NUL character"),
    ],
)
def test_parse_refuses(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        Location.parse(text)
    text = str(caught.value)
    assert text.isprintable()
    assert "SECRET" not in text or "is not a valid bucket name" in text


@pytest.mark.parametrize(
    ("text", "parent", "name", "joined"),
    [
        ("s3://b/a?sig/c=1", "s3://b/a?sig", "c=1", "s3://b/a?sig/c=1/x #%"),
        ("s3://b/a#/c%?d", "s3://b/a#", "c%?d", "s3://b/a#/c%?d/x #%"),
        ("s3://b/a", "s3://b", "a", "s3://b/a/x #%"),
        ("s3://b", "s3://b", "", "s3://b/x #%"),
        ("/a b/c#", "/a b", "c#", "/a b/c#/x #%"),
        ("/a", "/", "a", "/a/x #%"),
        ("/", "/", "", "/x #%"),
    ],
)
def test_parts(text: str, parent: str, name: str, joined: str) -> None:
    location = Location.parse(text)
    assert location.parent == Location.parse(parent)
    assert location.name == name
    assert location.joined("x #%") == Location.parse(joined)
    assert str(location.with_name_suffix("-y")) == str(location) + "-y"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("/a", "/a", True),
        ("/a", "/a/b", True),
        ("/", "/a", True),
        ("/a", "/ab", False),
        ("/a/b", "/a", False),
        ("s3://b", "s3://b/a", True),
        ("s3://b/a", "s3://b/a/c", True),
        ("s3://b/a", "s3://b/a#/c", False),
        ("s3://b/a", "s3://b/ab", False),
        ("s3://b/a", "s3://c/a/b", False),
        ("s3://b/a", "gs://b/a", False),
        ("/", "s3://b/a", False),
    ],
)
def test_encloses(one: str, other: str, expected: bool) -> None:
    assert Location.parse(one).encloses(Location.parse(other)) is expected


def test_encloses_sees_through_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    real, below = Location.parse(f"{tmp_path}/real"), Location.parse(f"{tmp_path}/link/new")
    assert real.encloses(below)
    assert not below.encloses(real)
