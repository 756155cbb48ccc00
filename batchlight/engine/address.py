"""Which Ray ``--address`` means, and whether it can be reached from this process."""

from __future__ import annotations

import os
import socket

from batchlight.engine.own_ray import is_running, refuse_second_run
from batchlight.errors import ClusterError, UsageError

CONNECT_TIMEOUT_S = 5.0
"""Time limit of the first contact with a cluster."""


def require_ray(workers: int | None, address: str | None) -> None:
    """Raise ``UsageError`` if a run of this process cannot use Ray now, or not at this address."""
    if workers != 0 or address is not None:
        ray_address(address)
    if workers != 0:
        refuse_second_run()
        if is_running():
            address_of_running(address)


def address_of_running(asked: str | None) -> str:
    """The address of the Ray that this process is connected to; it can use no other.

    Raises ``UsageError`` if another is asked for by ``--address``.
    """
    import ray

    address: str = ray.get_runtime_context().gcs_address
    if asked not in (None, "auto") and not _is_same(str(asked), address):
        raise UsageError(
            f"this program is already connected to a Ray, at {address}, but the address is "
            f"{asked}; leave it out, or call ray.shutdown() first"
        )
    return address


def _is_same(one: str, other: str) -> bool:
    """Whether two addresses have the same port, and hosts that are the same or this machine."""
    (host, _, port), (its_host, _, its_port) = one.rpartition(":"), other.rpartition(":")
    try:
        found = socket.gethostbyname(host)
    except (OSError, UnicodeError):  # the latter if it cannot be a name of a host
        found = host
    return port == its_port and (found == its_host or found.startswith("127."))


def ray_address(address: str | None) -> str:
    """The meaning of ``--address``; ``local`` is a Ray of our own. Raises ``UsageError``."""
    found = address or os.environ.get("RAY_ADDRESS") or "local"
    if "@" in found or "?" in found:
        raise UsageError(
            "--address (or RAY_ADDRESS) must not contain credentials; give only the host and port"
        )
    if found.startswith("ray://"):
        raise UsageError(
            f"--address (or RAY_ADDRESS) is {found}, but a run needs its own connection, not the "
            "Ray Client; run it on a machine of the cluster with --address auto, or submit it as a "
            "job (jobs/submit.sh)"
        )
    return found


def refuse_silence(address: str) -> None:
    """Raise ``ClusterError`` if nothing listens at host:port; Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except (OSError, UnicodeError) as error:  # the latter if it cannot be a name of a host
        reason = getattr(error, "strerror", None) or error
        raise ClusterError(
            f"nothing answers at {address} ({reason}); check --address and RAY_ADDRESS, and that "
            "the cluster is running"
        ) from error
