"""Where data is: a local path, or a bucket and a key."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from batchlight.errors import UsageError
from batchlight.storage.base import escape_controls

SCHEMES = ("s3", "gs", "az")

_NO_TWO_SLASHES = re.compile(rf"(?:{'|'.join(SCHEMES)}):(?!//)")
# Parameters of signed URLs; otherwise a question mark may be part of a key.
_SIGNED = re.compile(
    r"\?(?:.*&)?(?:sig|signature|x-(?:amz|goog)-(?:signature|credential|security-token)"
    "|awsaccesskeyid|googleaccessid)=",
    re.IGNORECASE,
)
# A client puts the bucket into a URL, where any other character would name another bucket.
_BUCKET = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Location:
    """A local path (``scheme`` empty) or a place in an object store.

    URIs are split literally and never decoded, so ``s3://b/a%20b#c`` is the key ``a%20b#c``.
    """

    scheme: str
    bucket: str
    path: str
    """Local: an absolute path. Remote: the key, without a slash at either end."""

    @classmethod
    def parse(cls, place: str | os.PathLike[str]) -> Location:
        """Raises ``UsageError`` for another scheme, credentials in a URI, or no bucket name."""
        text = os.fspath(place)
        _require_openable(text)
        if meant := _NO_TWO_SLASHES.match(text):
            raise UsageError(
                f"{meant[0]} needs two slashes: write {meant[0]}//bucket/prefix, "
                f"or ./{meant[0]} for a local path of that name"
            )
        scheme, mark, rest = text.partition("://")
        if not mark or "/" in scheme:
            return cls("", "", os.path.abspath(os.path.expanduser(text)))
        if scheme == "file":
            if not rest.startswith("/"):
                raise UsageError(
                    f"{text} is not an absolute path; write file:///folder or a plain path"
                )
            return cls("", "", os.path.abspath(rest))
        if scheme not in SCHEMES:
            known = ", ".join(f"{name}://" for name in SCHEMES)
            raise UsageError(
                f"cannot use {scheme}:// locations; give a local path or one of {known}"
            )
        bucket, _, key = rest.partition("/")
        _require_bucket(scheme, bucket, rest)
        return cls(scheme, bucket, key.strip("/"))

    @property
    def remote(self) -> bool:
        """Whether this is a place in an object store."""
        return bool(self.scheme)

    @property
    def name(self) -> str:
        """The last part of the path; empty for a bucket's or a file system's root."""
        return self.path.rpartition("/")[2]

    def split(self) -> tuple[Location, str]:
        """Where to open a storage for this one file, and its path there.

        That is the bucket, or the local folder, so that links that leave it are not followed.
        """
        if self.remote:
            return Location(self.scheme, self.bucket, ""), self.path
        return self.parent, self.name

    @property
    def parent(self) -> Location:
        """The folder that holds this."""
        head = self.path.rpartition("/")[0]
        return Location(self.scheme, self.bucket, head or ("" if self.remote else "/"))

    def with_name_suffix(self, suffix: str) -> Location:
        """``photos`` becomes ``photos-enhanced`` for the suffix ``-enhanced``."""
        return Location(self.scheme, self.bucket, self.path + suffix)

    def joined(self, path: str) -> Location:
        """A place below this one."""
        base = self.path.rstrip("/")
        return Location(
            self.scheme, self.bucket, f"{base}/{path}" if base or not self.remote else path
        )

    def encloses(self, other: Location) -> bool:
        """Whether ``other`` is this place or lies below it; local links are resolved."""
        if (self.scheme, self.bucket) != (other.scheme, other.bucket):
            return False
        mine, theirs = (
            (self.path, other.path)
            if self.remote
            else (os.path.realpath(self.path), os.path.realpath(other.path))
        )
        mine = mine.rstrip("/")
        return (
            theirs.rstrip("/") == mine
            or theirs.startswith(mine + "/")
            or (self.remote and not mine)
        )

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.path}" if self.remote else self.path


def _require_openable(text: str) -> None:
    """Raise ``UsageError`` for text that no path holds, or no record."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError(f"the name {escape_controls(text)} is not UTF-8; rename it")
    if "\0" in text:
        raise UsageError(f"the name {escape_controls(text)} contains a NUL character; correct it")


def _require_bucket(scheme: str, bucket: str, rest: str) -> None:
    """``rest``: what follows the scheme."""
    if bucket.startswith("arn:"):
        raise UsageError(
            "access points (arn:...) are not supported; name the bucket and the prefix"
        )
    if "@" in bucket or ":" in bucket or _SIGNED.search(rest):
        raise UsageError(
            f"a {scheme}:// location must not contain credentials; "
            "set them in the environment and write only the bucket and the prefix"
        )
    if not bucket:
        raise UsageError(f"{scheme}://{rest} names no bucket; write {scheme}://bucket/prefix")
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(
            f"{bucket!r} is not a valid bucket name; write {scheme}://bucket/prefix, with the "
            "bucket in letters, digits, dots, hyphens and underscores"
        )
