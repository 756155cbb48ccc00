"""The report of an output, regenerated on request."""

from __future__ import annotations

import os

from batchlight.config import JobConfig
from batchlight.options import make_config
from batchlight.output.status import open_output
from batchlight.planning.listing import open_inputs
from batchlight.report import write_report
from batchlight.storage import Location


def make_report(
    output: str | os.PathLike[str],
    input: str | os.PathLike[str] | None = None,
    follow_links: bool = False,
) -> str:
    """Regenerate the report of an output and return its path; the same as ``batchlight report``.

    ``input`` and ``follow_links`` are those of the run. Its images are shown only if they are
    given: the output's own word on where they are cannot be trusted. Raises ``UsageError`` for
    an invalid output or input, and ``StorageError``.
    """
    open_output(output)
    data_set = None
    if input is not None:
        config = make_config(JobConfig, {"input": input, "follow_links": follow_links})
        data_set = open_inputs(config).data_set
    return write_report(Location.parse(output), data_set)
