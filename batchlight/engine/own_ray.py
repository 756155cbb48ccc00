"""A Ray of our own: what it needs from this machine, and what keeps others out of it.

Its sockets and logs are in a folder that only this user may enter. Anything that talks to it over
the network needs a token that is created for this process and passed on in the environment of its
processes, so that nothing is left behind in the home directory.
"""

from __future__ import annotations

import logging
import os
import resource
import secrets
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from batchlight.errors import ClusterError, UsageError, counted
from batchlight.host.resources import address_space, free_memory, free_processes

TOKEN, MODE = "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"

UNUSED = ("start_monitor", "start_log_monitor", "start_api_server")
"""Methods of Ray's node that start the autoscaler's monitor, the log monitor, and the server of a
dashboard that ours does not include."""

SOCKET_PATH_BYTES = 107 if sys.platform.startswith("linux") else 103
"""System limit on the path of a socket."""
PATH_BELOW = "/bl-12345678/r/session_2026-01-31_23-59-59_123456_1234567/sockets/plasma_store"

FREE_BYTES = 50 * 2**20
"""Disk space for Ray's sockets and logs."""
FILES = 1024
"""Open files per process; Ray itself needs some hundreds."""
RAY_BYTES, WORKER_BYTES = 450 * 2**20, 350 * 2**20
"""Memory of Ray's own processes, and of a worker that processes camera-sized images."""

REGISTERS_WITHIN_S, LOOK_EVERY_S = 10.0, 0.02
"""How long, and how often, to check whether something is up."""

RAY_PROCESSES, WORKER_PROCESSES = 180, 28
"""Processes and threads of a Ray without workers, and of one worker."""

RAY_ADDRESSES, WORKER_ADDRESSES = 5 * 2**30, 256 * 2**20
"""Address space of each process, without workers and for one worker: its threads and libraries,
PyTorch among them, and the object store, which all map."""

T = TypeVar("T")

logger = logging.getLogger(__name__)

_choosing = threading.Lock()
_connected = False
"""Whether a run has started Ray in this process or joined a cluster; Ray allows one at a time."""


def is_running() -> bool:
    """Whether this process is connected to a Ray."""
    if "ray" not in sys.modules:
        return False
    import ray

    return bool(ray.is_initialized())


def refuse_second_run() -> None:
    """Raise ``UsageError`` if another run of this process is connected to a Ray."""
    if _connected:
        raise UsageError(
            "another run of this process is using Ray, and would end it for this one; run them one "
            "after another, in processes of their own, with workers=0, or on a Ray that your "
            "program starts first with ray.init()"
        )


@contextmanager
def connection() -> Iterator[bool]:
    """Whether the caller is to connect to a Ray: not if the calling program already runs one.

    If so, other runs are refused inside the block. Raises ``UsageError``.
    """
    global _connected
    with _choosing:
        refuse_second_run()
        ours = _connected = not is_running()
    try:
        yield ours
    finally:
        if ours:
            _connected = False


@contextmanager
def private_folder() -> Iterator[str]:
    """A new folder for Ray, below one that only this user may enter. Raises ``ClusterError``."""
    base = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    if len(base + PATH_BELOW) > SOCKET_PATH_BYTES and "RAY_TMPDIR" not in os.environ:
        base = "/tmp"
    advice = "set RAY_TMPDIR to another folder, or give --workers 0, which does without Ray"
    try:
        free = shutil.disk_usage(base).free
        if free < FREE_BYTES:
            raise ClusterError(
                f"no space left in {base}, where Ray keeps sockets and logs: {free // 2**20} MB "
                f"are free and {FREE_BYTES // 2**20} MB are needed; free some, {advice}"
            )
        # Ray makes its own folder accessible to everybody.
        private = tempfile.mkdtemp(prefix="bl-", dir=base)
    except OSError as error:
        raise ClusterError(
            f"cannot make a folder for Ray in {base}: {error.strerror}; {advice}"
        ) from error
    try:
        yield str(Path(private, "r"))
    finally:
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("the logs of Ray are in %s", private)
        else:
            shutil.rmtree(private, ignore_errors=True)


@contextmanager
def private_token() -> Iterator[None]:
    """Have Ray require a token, unless its own variables configure authentication."""
    before = {name: os.environ.get(name) for name in (TOKEN, MODE)}
    if before[MODE] is None:
        os.environ.update({TOKEN: secrets.token_hex(32), MODE: "token"})
        _forget_token()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if before[MODE] is None:
            _forget_token()


def _forget_token() -> None:
    """Have Ray read its mode and token anew: it keeps what it has read once, for the whole process.

    Otherwise the calling program could not start a Ray after ours, nor we one after its own.
    """
    if "ray" not in sys.modules:
        return
    import ray

    inside = vars(ray._raylet)  # no public function does it
    inside["Config"].initialize("")  # first: a thread that is just ending would miss the token
    inside["AuthenticationTokenLoader"].instance().reset_cache()


@contextmanager
def quick_start() -> Iterator[None]:
    """Make a Ray started in this block start in two thirds of the usual time.

    It starts none of the processes that we do not use, does not look for its dashboard's packages,
    and notices within milliseconds that its node is up. No option of Ray does any of this.
    """
    from ray._private import services, utils
    from ray._private.node import Node

    replacements: list[tuple[object, str, Callable[..., object]]] = [
        *((Node, name, _start_nothing) for name in UNUSED),
        (utils, "get_dashboard_dependency_error", _no_dashboard),
        (services, "get_node", _node_once_registered),
    ]
    with ExitStack() as restored:
        for holder, name, replacement in replacements:
            if name in vars(holder):
                before = vars(holder)[name]
                restored.callback(setattr, holder, name, before)
                setattr(holder, name, partial(replacement, before))
        yield


def job_of_this_path() -> Any:
    """A Ray job configuration whose workers import only from folders on our own ``sys.path``.

    Ray puts the current folder first on their path, wherever this process imports from; that folder
    may be a stranger's data set, with a ``colorsys.py``. No option of Ray prevents this.
    """
    from ray.job_config import JobConfig

    class JobOfThisPath(JobConfig):
        def _serialize(self) -> Any:
            ours = {os.path.abspath(folder) for folder in sys.path}  # "" is the current folder
            self._py_driver_sys_path = [p for p in self._py_driver_sys_path if p in ours]
            return super()._serialize()

    return JobOfThisPath()


def _start_nothing(*_: object, **__: object) -> None:
    """Replaces a method of Ray's node that starts a process."""


def _no_dashboard(_: object) -> ImportError:
    """The answer of a Ray without the packages of its dashboard, whose import takes 0.2 s."""
    return ImportError("this Ray has no dashboard")


def _node_once_registered(get_node: Callable[[str, str], T], gcs_address: str, node_id: str) -> T:
    """Ray's ``get_node``, which by itself asks once a second whether the node has registered."""
    with suppress(Exception):  # this is only for speed; ``get_node`` reports what is wrong
        import ray

        gcs = vars(ray._raylet)["GcsClient"](address=gcs_address)
        limit = time.monotonic() + REGISTERS_WITHIN_S
        while not gcs.get_all_node_info() and time.monotonic() < limit:
            time.sleep(LOOK_EVERY_S)
    return get_node(gcs_address, node_id)


def workers_that_fit(wanted: int) -> int:
    """At most ``wanted`` workers, or fewer (with a warning) if this machine's limits require it.

    Zero means that not even a Ray fits.
    """
    memory, processes, files = free_memory(), free_processes(), _raised_file_limit()
    addresses = address_space()
    workers_by: dict[str, float] = {
        f"a process may only open {files:.0f} files here (ulimit -n); Ray needs {FILES}": (
            wanted if files >= FILES else 0
        ),
        f"only {memory // 2**20} MB of memory are free here": (memory - RAY_BYTES) / WORKER_BYTES,
        f"only {processes:.0f} more processes and threads may start here (ulimit -u, pids)": (
            (processes - RAY_PROCESSES) / WORKER_PROCESSES
        ),
        f"only {addresses / 2**20:.0f} MB of addresses per process are allowed here (ulimit -v)": (
            (addresses - RAY_ADDRESSES) / WORKER_ADDRESSES
        ),
    }
    left, workers = min(workers_by.items(), key=lambda item: max(0, item[1]))
    if workers >= wanted:
        return wanted
    fit = max(0, int(workers))
    logger.warning(
        "%s: enough for %s, not for %d",
        left,
        counted(fit, "worker") if fit else "work in this process, as with --workers 0",
        wanted,
    )
    return fit


def _raised_file_limit() -> float:
    """The open-file limit of this process, and so of Ray's; raised to Ray's need if possible."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= FILES:
        return FILES
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft
