"""The report of an output, made again on request."""

from __future__ import annotations

from batchlight.config import JobConfig
from batchlight.config_file import make_config
from batchlight.output.status import open_output
from batchlight.planning.listing import open_inputs
from batchlight.report import write_report
from batchlight.storage import Location


def make_report(output: str, input: str | None = None, follow_links: bool = False) -> str:
    """Make the report of an output again, and say where it is; the same as ``batchlight report``.

    ``input`` and ``follow_links`` are those of the run, whose images are only shown if they are
    given: what the output itself says of where they are may come from anybody. Raises
    ``UsageError`` for what is no output or no input, and ``StorageError``.
    """
    open_output(output)
    data_set = None
    if input is not None:
        config = make_config(JobConfig, {"input": input, "follow_links": follow_links})
        data_set = open_inputs(config).data_set
    return write_report(Location.parse(output), data_set)
