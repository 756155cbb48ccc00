"""A real S3 server, SeaweedFS, for tests and benchmarks."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import obstore
from obstore.store import S3Store

ACCESS_KEY, SECRET_KEY = "test-access-key", "test-secret-key-that-must-not-leak"
SERVER_START_S = 60.0
BUCKET, PUBLIC_BUCKET = "data", "public"
"""Few buckets, since each costs the server several volumes; tests are separated by prefix."""


@dataclass(frozen=True)
class S3Server:
    """A running SeaweedFS; ``environment`` is what a client needs."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
        }

    def store(self, prefix: str = "", bucket: str = BUCKET) -> S3Store:
        """Access to the objects that bypasses the code under test."""
        return S3Store(
            bucket,
            prefix=prefix or None,
            endpoint=self.endpoint,
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
            region="us-east-1",
            client_options={"allow_http": True},
        )

    def put(self, files: dict[str, bytes], prefix: str = "", bucket: str = BUCKET) -> None:
        """Write objects; the first one creates the bucket."""
        store = self.store(prefix, bucket)
        for path, data in files.items():
            obstore.put(store, path, data, use_multipart=False)

    def tree(self, prefix: str = "", bucket: str = BUCKET) -> dict[str, bytes]:
        """Every object below a prefix, by its path below it."""
        store = self.store(prefix, bucket)
        found = {}
        for path in sorted(meta["path"] for chunk in obstore.list(store) for meta in chunk):
            # The server still lists a folder for some time after its last file is gone.
            with suppress(FileNotFoundError):
                found[path] = bytes(obstore.get(store, path).bytes())
        return found


@contextmanager
def running_s3(folder: Path) -> Iterator[S3Server]:
    """A server on files in ``folder``: one identity may do all, and anybody may use one bucket."""
    config = folder / "s3.json"
    test = {
        "name": "test",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    rights = [f"{action}:{PUBLIC_BUCKET}" for action in ("Read", "List", "Write")]
    anonymous = {"name": "anonymous", "actions": rights}
    config.write_text(json.dumps({"identities": [test, anonymous]}))
    ports = free_ports(4)
    weed = Path(sys.executable).with_name("weed")
    command = [
        *(str(weed), "server", f"-dir={folder}", "-ip=127.0.0.1", "-s3", f"-s3.config={config}"),
        *(f"-s3.port={ports[0]}", f"-master.port={ports[1]}", f"-volume.port={ports[2]}"),
        *(f"-filer.port={ports[3]}", "-s3.port.lance=0", "-s3.port.iceberg=0"),
        *("-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=100"),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        endpoint = f"http://127.0.0.1:{ports[0]}"
        wait_until_up(endpoint, process, folder / "log")
        yield S3Server(endpoint)
    finally:
        process.kill()  # a clean exit takes 25 s, and its files are thrown away anyway
        process.wait(timeout=30)


def free_ports(count: int) -> list[int]:
    """Free ports, low enough that the server's gRPC ports (+ 10000) exist."""
    found: list[int] = []
    # From a random start, so that two test runs on one machine do not find the same ones.
    for port in range(random.randrange(20_000, 40_000), 50_000, 7):
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")


def wait_until_up(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server is up, that is, until it answers anything."""
    deadline = time.monotonic() + SERVER_START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(endpoint, timeout=1).close()
        except urllib.error.HTTPError as answer:
            answer.close()
            return
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"SeaweedFS did not start: {log.read_text()[-2000:]}")
