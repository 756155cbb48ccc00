"""``python -m batchlight`` is the command ``batchlight``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command, which a signal may end at any moment, even while it is loading."""
    try:
        from batchlight.cli.main import main as run_command

        run_command()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
