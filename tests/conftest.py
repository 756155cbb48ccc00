"""Fixtures that several packages of tests share; the costly ones are started once per worker.

``s3_server``     a real object store, for commands: give them ``s3_server.environment``
``s3``            the same, for storages of this process
``ray_address``   a real Ray of two CPUs, for commands: give them ``--address``
``shared_ray``    the same by ``RAY_ADDRESS``
``one_thread``    one thread for the tensors of a module

The shared Ray is for commands in processes of their own: Ray reads its settings once per process,
so one that has had a Ray of its own cannot talk to it. A test that kills Ray, looks at its
processes or gives its workers an environment starts its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.ray_head import QUIET, running_ray
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


@pytest.fixture(scope="session")
def ray_address(s3_server: S3Server) -> Iterator[str]:
    """A small Ray, whose workers have the credentials of the object store."""
    with running_ray(s3_server.environment) as address:
        yield address


@pytest.fixture
def shared_ray(ray_address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """That Ray, for all commands that this test starts."""
    for name, value in {**QUIET, "RAY_ADDRESS": ray_address}.items():
        monkeypatch.setenv(name, value)
    return ray_address


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
