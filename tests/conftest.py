"""Fixtures that several packages of tests share; the costly ones are started once per worker.

``s3_server``     a real object store, for commands: give them ``s3_server.environment``
``s3``            the same, for storages of this process
``ray_address``   a real Ray of two CPUs, for commands: give them ``--address``
``deadly_ray``    the same, whose workers a test may order to die of images, or to be slow
``shared_ray``    the same by ``RAY_ADDRESS``, for commands and runs of this process
``one_thread``    one thread for the tensors of a module

A test that kills Ray, or gives its workers another environment, starts its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import hypothesis
import pytest

from tests.support.helpers import STARTUP
from tests.support.ray_head import QUIET, RayHead, running_ray
from tests.support.s3_server import S3Server, running_s3

hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

# Ray decides once per process whether it authenticates, so all that a process meets must agree.
os.environ.update(QUIET)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(STARTUP), os.getenv("PYTHONPATH")]))


LONG = ("driver", "package", "engine", "training", "absgn", "cli")
"""Folders with files of tests that take minutes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that no process is left with one at the end."""
    items.sort(key=lambda item: item.path.parent.name not in LONG)


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
def ray_head(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayHead]:
    """A small Ray, whose workers have the credentials of the object store."""
    with running_ray(s3_server.environment, tmp_path_factory.mktemp("orders")) as head:
        yield head


@pytest.fixture(scope="session")
def ray_address(ray_head: RayHead) -> str:
    """Where it is."""
    return ray_head.address


@pytest.fixture
def deadly_ray(ray_head: RayHead) -> Iterator[RayHead]:
    """That Ray, which obeys the orders of this test alone."""
    ray_head.calm()
    yield ray_head
    ray_head.calm()


@pytest.fixture
def shared_ray(ray_address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """That Ray, for all that this test starts."""
    monkeypatch.setenv("RAY_ADDRESS", ray_address)
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
