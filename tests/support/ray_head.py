"""A small Ray that many tests share, as starting one takes about five seconds."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from socket import create_connection

from tests.support.helpers import deadly_environment, give_orders, under_way, wait_until
from tests.support.s3_server import free_ports

CPUS = 2
STARTS_WITHIN_S = 120.0
OBJECT_STORE_BYTES = 200 * 2**20
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
"""Needed in the environment of its clients, too."""


@dataclass(frozen=True)
class RayHead:
    """A head node that also runs tasks."""

    address: str
    pid: int
    """The ancestor of all its processes."""
    orders: Path
    """The folder in which its workers look for deadly images; see ``startup/``."""

    def order(self, deadly: Mapping[str, str], slow_s: float = 0.0) -> None:
        """Give orders to the workers of later runs, which are new processes."""
        give_orders(self.orders, deadly, slow_s)

    def calm(self) -> None:
        """Forget the orders, and what was decoded under them."""
        for path in self.orders.iterdir():
            path.unlink()


@contextmanager
def running_ray(environment: Mapping[str, str], orders: Path) -> Iterator[RayHead]:
    """``environment``: that of its workers; ``orders``: a folder, empty at first."""
    port, clients = free_ports(2)
    # Not below pytest's folder, since a socket's path is limited to 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        command = [
            *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"),
            *("--port", str(port), "--ray-client-server-port", str(clients)),
            *("--temp-dir", folder, "--num-cpus", str(CPUS), "--include-dashboard", "false"),
            *("--min-worker-port", "0", "--max-worker-port", "0", "--disable-usage-stats"),
            *("--object-store-memory", str(OBJECT_STORE_BYTES)),
        ]
        variables = {**QUIET, **environment, **deadly_environment(orders)}
        with (
            Path(folder, "log").open("wb") as log,
            under_way(command, variables, stdout=log, stderr=log) as head,
        ):
            wait_until(partial(_listens, port), head, STARTS_WITHIN_S)
            yield RayHead(f"127.0.0.1:{port}", head.pid, orders)


def _listens(port: int) -> bool:
    try:
        create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
