"""Object stores that refuse, vanish or hold odd names: one honest sentence, and no secret."""

from __future__ import annotations

import http.client
import socket
import time
from contextlib import ExitStack
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from batchlight.errors import StorageError
from batchlight.storage import Location, open_storage
from tests.support.s3_server import BUCKET, PUBLIC_BUCKET, SECRET_KEY, S3Server

SOON_S = 30.0
"""Twice as long as it takes to give up; half as long as an outage is waited out."""
WRONG = "wrong-and-no-less-secret"
NOBODY = "http://127.0.0.1:1"


def test_a_key_that_the_client_refuses_is_named(s3: S3Server) -> None:
    prefix = str(uuid4())
    s3.put({f"{prefix}/a.jpg": b""}, bucket=PUBLIC_BUCKET)
    connection = http.client.HTTPConnection(urlsplit(s3.endpoint).netloc)
    connection.request("PUT", f"/{PUBLIC_BUCKET}/{prefix}/line%0abreak.jpg", body=b"1")
    assert connection.getresponse().status == 200
    connection.close()
    with pytest.raises(StorageError, match=r"line\\x0abreak.jpg'.*; rename or delete"):
        list(open_storage(Location.parse(f"s3://{PUBLIC_BUCKET}/{prefix}")).walk())


@pytest.mark.parametrize(
    ("environment", "place", "says"),
    [
        ({"AWS_SECRET_ACCESS_KEY": WRONG}, BUCKET, "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": WRONG}, BUCKET, "AWS_ACCESS_KEY_ID"),
        ({"AWS_SKIP_SIGNATURE": "true"}, BUCKET, "access denied"),
        ({"AWS_SKIP_SIGNATURE": "perhaps"}, BUCKET, "AWS_"),
        ({"AWS_SECRET_ACCESS_KEY": f"{WRONG}\n"}, BUCKET, "AWS_SECRET_ACCESS_KEY contains a line"),
        ({"AWS_REGION": "us-east-1\r"}, BUCKET, "AWS_REGION contains a line break"),
        ({}, "no-such-bucket", "there is no bucket no-such-bucket; create it"),
        ({"AWS_ENDPOINT_URL": NOBODY}, BUCKET, f"cannot reach {NOBODY};"),
        ({"AWS_ENDPOINT_URL": f"http://me:{WRONG}@127.0.0.1:1"}, BUCKET, f"{NOBODY};"),
        ({"AWS_ENDPOINT_URL_S3": NOBODY}, BUCKET, f"{NOBODY};"),
        ({"AWS_ENDPOINT_URL": f"me:{WRONG}@127.0.0.1"}, BUCKET, "AWS_ENDPOINT_URL is not a URL"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:99999"}, BUCKET, "AWS_ENDPOINT_URL is not a URL"),
        (
            {
                "AWS_ACCESS_KEY_ID": "",
                "AWS_SECRET_ACCESS_KEY": "",
                "AWS_METADATA_ENDPOINT": NOBODY,
            },
            BUCKET,
            "no credentials were found; check AWS_ACCESS_KEY_ID",
        ),
    ],
)
def test_storage_trouble_is_one_sentence_without_secrets(
    s3: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    place: str,
    says: str,
) -> None:
    for name, value in environment.items():
        if value:
            monkeypatch.setenv(name, value)
        else:
            monkeypatch.delenv(name)
    started = time.monotonic()
    with pytest.raises(StorageError) as caught:
        open_storage(Location.parse(f"s3://{place}/x")).check(writable=True)
    assert time.monotonic() - started < SOON_S
    text = str(caught.value)
    assert says in text
    assert "\n" not in text
    assert WRONG not in text
    assert SECRET_KEY not in text


def test_a_key_in_place_of_its_file_is_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", f'{{"private_key": "{WRONG}"}}')
    with pytest.raises(StorageError, match=r"check the GOOGLE_\* variables") as caught:
        open_storage(Location.parse("gs://bucket/raw"))
    assert "private" not in str(caught.value)
    assert WRONG not in str(caught.value)


def test_a_host_that_drops_packets_is_given_up_soon(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as listener, ExitStack() as exits:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):  # more than the queue holds, so that nobody else gets in
            client = exits.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        started = time.monotonic()
        with pytest.raises(StorageError, match=f"cannot reach {address}"):
            open_storage(Location.parse(f"s3://{BUCKET}/x")).check(writable=True)
        assert time.monotonic() - started < SOON_S


def test_a_lost_permission_or_listing_in_the_middle(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put({"private/x": b"1"})
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    storage = open_storage(Location.parse(f"s3://{BUCKET}/private"))
    with pytest.raises(PermissionError, match="AccessDenied"):
        storage.read("x")
    for use in (storage.walk, lambda: storage.write("y", b""), lambda: storage.names("")):
        with pytest.raises(StorageError, match="access denied") as caught:
            list(use() or ())
        assert not caught.value.transient
