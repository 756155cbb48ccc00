"""A proxy in front of a real object store that misbehaves as networks and stores do."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

UPSTREAM_TIMEOUT_S = 60.0
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding"})


class Fault(StrEnum):
    """What can happen to a request."""

    SLOW_DOWN = "503 SlowDown, instead of passing it on"
    INTERNAL_ERROR = "500 InternalError, instead of passing it on"
    RESET_BEFORE = "the connection is reset, and the store hears nothing"
    RESET_AFTER = "the store does it, and the connection is reset instead of an answer"
    CLOSE_AFTER = "the store does it, and the connection ends in good order without an answer"
    STALL = "the store does it, and the answer stops halfway for some seconds"
    CUT_RESPONSE = "the store does it, and the connection ends in good order halfway in the answer"
    CUT_REQUEST = "the store gets half of the body, and both connections end"
    CONFLICT = "409 ConditionalRequestConflict, instead of passing it on"
    TIMED_OUT = "400 RequestTimeout: the store says that the body did not arrive in time"
    INVALID = "400 InvalidArgument, instead of passing it on: no second try would help"


BODIES_ONLY = frozenset({Fault.CUT_REQUEST, Fault.TIMED_OUT})
"""Faults that only a request with a body can suffer."""

_ERRORS = {
    Fault.SLOW_DOWN: (HTTPStatus.SERVICE_UNAVAILABLE, "SlowDown", "Please reduce your rate."),
    Fault.INTERNAL_ERROR: (
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "InternalError",
        "We encountered an internal error. Please try again.",
    ),
    Fault.CONFLICT: (
        HTTPStatus.CONFLICT,
        "ConditionalRequestConflict",
        "A conflicting conditional operation is going on.",
    ),
    Fault.TIMED_OUT: (
        HTTPStatus.BAD_REQUEST,
        "RequestTimeout",
        "Your socket connection to the server was not read from or written to in time.",
    ),
    Fault.INVALID: (HTTPStatus.BAD_REQUEST, "InvalidArgument", "This is not allowed."),
}


@dataclass
class _Script:
    """Faults for the next requests of one kind."""

    method: str
    path_holds: str
    faults: list[Fault | None]

    def fits(self, method: str, path: str) -> bool:
        return bool(self.faults) and method == self.method and self.path_holds in unquote(path)


@dataclass
class FaultPlan:
    """Decides which request suffers which fault; thread-safe.

    Of every ``every`` requests one, chosen by the seed, suffers each of ``faults``; so their share
    is exact, and no kind is left to chance.
    """

    faults: Sequence[Fault] = ()
    every: int = 70
    seed: int = 0
    stall_s: float = 1.0
    injected: Counter[Fault] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    """By method, including those during an outage."""
    outage: Fault | None = None
    """What every request suffers from now on."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._lock = threading.Lock()
        self._deck: list[Fault | None] = []
        self._due: list[Fault] = []
        self._scripts: list[_Script] = []
        self._outage_after: tuple[_Script, Fault] | None = None

    def next(self, method: str, path_holds: str, *faults: Fault | None) -> None:
        """Make the next requests of this kind suffer these faults, one after another."""
        self._scripts.append(_Script(method, path_holds, list(faults)))

    def outage_after(self, count: int, method: str, path_holds: str, fault: Fault) -> None:
        """Make every request suffer ``fault`` after ``count`` requests of this kind."""
        self._outage_after = (_Script(method, path_holds, [None] * count), fault)

    def draw(self, method: str, path: str, has_body: bool) -> Fault | None:
        """What this request suffers."""
        with self._lock:
            self.requests[method] += 1
            fault = self._drawn(method, path, has_body)
            if fault is not None:
                self.injected[fault] += 1
            return fault

    def _drawn(self, method: str, path: str, has_body: bool) -> Fault | None:
        if self._outage_after is not None:
            script, fault = self._outage_after
            if script.fits(method, path):
                script.faults.pop()
            elif not script.faults:
                self.outage, self._outage_after = fault, None
        if self.outage is not None:
            return self.outage
        for script in self._scripts:
            if script.fits(method, path):
                return script.faults.pop(0)
        if self.faults and not self._deck:
            self._deck = [*self.faults, *[None] * (self.every - len(self.faults))]
            self._random.shuffle(self._deck)
        if self._deck and (fault_due := self._deck.pop()) is not None:
            self._due.append(fault_due)
        for fault in self._due:
            if has_body or fault not in BODIES_ONLY:
                self._due.remove(fault)
                return fault
        return None


@dataclass(frozen=True)
class FaultyProxy:
    """A running proxy; ``environment`` configures a client for it."""

    endpoint: str
    plan: FaultPlan

    def environment(self, direct: Mapping[str, str]) -> dict[str, str]:
        """The environment of a direct client, with the endpoint replaced."""
        return {**direct, "AWS_ENDPOINT_URL": self.endpoint}


@contextmanager
def faulty_proxy(upstream: str, plan: FaultPlan) -> Iterator[FaultyProxy]:
    """Run a proxy in front of ``upstream`` (an ``http://`` address) in threads of this process."""
    server = _Server(upstream, plan)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield FaultyProxy(f"http://127.0.0.1:{server.server_address[1]}", plan)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, upstream: str, plan: FaultPlan) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.plan = plan

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore it: a vanished client is expected."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_any(self) -> None:
        plan = self.server.plan
        # Unchanged: the host name is signed, and so is the length.
        body = self._request_body()
        fault = plan.draw(self.command, self.path, bool(body))
        if fault in _ERRORS:
            self._send(self._error(fault))
        elif fault is Fault.RESET_BEFORE:
            self._reset()
        elif fault is Fault.CUT_REQUEST:
            self._pass_half(body)
            self._reset()
        else:
            answer = self._passed_on(body)
            half = len(answer) // 2
            if fault is None:
                self._send(answer)
            elif fault is Fault.STALL:
                self._send(answer[:half])
                time.sleep(plan.stall_s)
                self._send(answer[half:])
            elif fault is Fault.CUT_RESPONSE:
                self._send(answer[:half])
                self.close_connection = True
            elif fault is Fault.CLOSE_AFTER:
                self.close_connection = True
            else:
                self._reset()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_any  # noqa: N815

    def _request_body(self) -> bytes:
        assert "chunked" not in self.headers.get("Transfer-Encoding", ""), "not needed so far"
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _passed_on(self, body: bytes) -> bytes:
        """The store's complete answer, as bytes to send."""
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=UPSTREAM_TIMEOUT_S)
        try:
            self._open(upstream)
            upstream.endheaders(body or None)
            answer = upstream.getresponse()
            data = answer.read()
        finally:
            upstream.close()
        headers = [(k, v) for k, v in answer.getheaders() if k.lower() not in _HOP_BY_HOP]
        if not any(name.lower() == "content-length" for name, _ in headers) and (
            answer.status != HTTPStatus.NO_CONTENT
        ):
            headers.append(("Content-Length", str(len(data))))
        return _message(answer.status, answer.reason, headers, data)

    def _pass_half(self, body: bytes) -> None:
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=UPSTREAM_TIMEOUT_S)
        try:
            self._open(upstream)
            upstream.endheaders(body[: len(body) // 2])
            assert upstream.sock is not None
            # The store sees the end of the request, and answers before this returns.
            upstream.sock.shutdown(socket.SHUT_WR)
            with suppress(OSError, http.client.HTTPException):
                upstream.getresponse().read()
        finally:
            upstream.close()

    def _open(self, upstream: http.client.HTTPConnection) -> None:
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _HOP_BY_HOP:
                upstream.putheader(name, value)

    def _error(self, fault: Fault) -> bytes:
        status, code, message = _ERRORS[fault]
        xml = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{code}</Code><Message>{message}</Message>"
            "<RequestId>0</RequestId></Error>"
        ).encode()
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(xml)))]
        return _message(status, status.phrase, headers, b"" if self.command == "HEAD" else xml)

    def _send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def _reset(self) -> None:
        """End the connection with an RST."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Do nothing; nobody reads it."""


def _message(status: int, reason: str, headers: Sequence[tuple[str, str]], body: bytes) -> bytes:
    lines = [f"HTTP/1.1 {int(status)} {reason}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
