"""Connections to object stores, made from the environment of this process."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from batchlight.errors import StorageError, UsageError
from batchlight.storage.base import escape_controls
from batchlight.storage.location import Location

CONNECT_TIMEOUT = timedelta(seconds=4)  # the probe takes twice that, which should still be soon
REQUEST_TIMEOUT = timedelta(hours=1)
"""For a single request, even one whose data arrives steadily."""

_KINDS: dict[str, Any] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
_PREFIXES = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}
"""Prefixes of the environment variables that the client reads."""
_ENDPOINT_VARIABLES = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": (),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_ONE_LINE = {
    "s3": (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
    ),
    "gs": (),
    "az": (
        "AZURE_STORAGE_ACCOUNT_NAME",
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
    ),
}
"""Variables whose values go into headers and URLs of requests."""
_used_by: int | None = None
"""The process that first created a client."""
_REASON_LENGTH = 160
_QUOTED_AT_LEAST = 12
"""How many leading characters of a value identify it in an error message."""
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SKIP_SIGNATURE=true for public data)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS (GOOGLE_SKIP_SIGNATURE=true for public data)",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY "
    "(AZURE_SKIP_SIGNATURE=true for public data)",
}
"""What to check if access is denied."""


def connect(
    location: Location, *, retries: int, retry_timeout: timedelta, stall_timeout: timedelta
) -> Any:
    """A client's store, rooted at ``location``.

    ``stall_timeout``: maximum time without data from the store. Raises ``UsageError`` for a prefix
    that the client cannot use, ``StorageError`` for an environment that it cannot use.
    """
    refuse_fork()
    _check_prefix(location)
    _check_variables(location)
    endpoint = endpoint_of(location)
    options: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT,
        "read_timeout": stall_timeout,
        "timeout": REQUEST_TIMEOUT,
    }
    if endpoint.lower().startswith("http://"):
        options["allow_http"] = True
    try:
        return _KINDS[location.scheme](
            location.bucket,
            prefix=location.path or None,
            client_options=options,
            retry_config={"max_retries": retries, "retry_timeout": retry_timeout},
            # If several variables are set, the client may use any; the one that we name must win.
            **({"endpoint": endpoint} if endpoint and location.scheme == "s3" else {}),
        )
    except (BaseError, ValueError, OSError) as error:
        raise StorageError(
            f"cannot use {location}: {_reason(error, location)}; "
            f"check the {_PREFIXES[location.scheme]}* variables of the environment",
            transient=False,
        ) from None


def refuse_fork() -> None:
    """Raise ``StorageError`` in a process forked from one that has used a client.

    The threads of the client do not survive the fork, so it would hang.
    """
    global _used_by
    if _used_by not in (None, os.getpid()):
        raise StorageError(
            "this process was forked from one that has used an object store, whose client "
            "does not survive a fork; start it with multiprocessing's 'spawn' or 'forkserver'",
            transient=False,
        )
    _used_by = os.getpid()


def endpoint_of(location: Location) -> str:
    """The address that the environment names; empty if it names none.

    Raises ``StorageError`` for an invalid address, which would make the client panic.
    """
    named = ((name, os.environ.get(name, "")) for name in _ENDPOINT_VARIABLES[location.scheme])
    variable, endpoint = next(((name, value) for name, value in named if value), ("", ""))
    if variable and not _is_address(endpoint):
        raise StorageError(
            f"{variable} is not a URL; write http://host:port or https://host", transient=False
        )
    return endpoint


def _check_prefix(location: Location) -> None:
    parts = location.path.split("/") if location.path else []
    shown = escape_controls(location.path)
    if shown != location.path or any(part in ("", ".", "..") for part in parts):
        raise UsageError(
            f"cannot use {escape_controls(str(location))}: "
            "a key must not contain control characters, or parts that are empty or dots"
        )


def _check_variables(location: Location) -> None:
    """Raise ``StorageError`` for values that would make the client panic."""
    for name in _ONE_LINE[location.scheme]:
        value = os.environ.get(name, "")
        if escape_controls(value) != value:
            raise StorageError(
                f"{name} contains a line break or another control character; remove it",
                transient=False,
            )


def _reason(error: BaseException, location: Location) -> str:
    """The client's words, unless they quote the value of a variable, which may be secret."""
    text = str(error).partition("\n")[0][:_REASON_LENGTH]
    prefix = _PREFIXES[location.scheme]
    values = (value for name, value in os.environ.items() if name.startswith(prefix) and value)
    if any(value[:_QUOTED_AT_LEAST] in text for value in values):
        return "the client refuses the value of a variable"
    return text


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port_is_valid = parts.port != 0
    except ValueError:
        return False
    return (
        port_is_valid
        and parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and text.isascii()
        and text.isprintable()
        and " " not in text
    )
