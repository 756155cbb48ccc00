"""``python -m batchlight`` is the command ``batchlight``."""

from batchlight.cli import main

main()
