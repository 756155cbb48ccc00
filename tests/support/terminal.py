"""What commands show on a terminal."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import termios
from contextlib import suppress

from tests.support.helpers import COMMAND


def on_a_terminal(columns: int, *arguments: object, **environment: str) -> str:
    """What the real command shows on a terminal of this width."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    ambient = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**ambient, "TERM": "xterm-256color", **environment},
    )
    os.close(theirs)
    shown = b""
    with suppress(OSError), os.fdopen(ours, "rb", buffering=0) as screen:  # closed by its last user
        while data := screen.read(4096):
            shown += data
    process.wait()
    return shown.decode()
