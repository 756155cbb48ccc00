"""Fixtures: a real S3 server, and few threads for small tensors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.s3_server import S3Server, running_s3


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real object store."""
    with running_s3(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, for storages of this process."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    s3_server.put({"bucket-is-there": b""})
    return s3_server


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For tensors as small as those of tests, threads cost more than they bring.

    Here, and in the processes that are started.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(threads)
