"""``python -m batchlight`` is the command ``batchlight``."""

from batchlight.cli.main import main

main()
