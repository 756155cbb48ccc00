"""A nightly run, as an Airflow DAG (Airflow 3).

Copy it into Airflow's folder of DAGs, along with ``submit.sh`` and ``nightly.yaml``. The run is a
process of Airflow's worker, which needs ``batchlight`` on its PATH. Or it is a job of a Ray
cluster: then the worker needs ``ray[default]`` in the cluster's version, and in its environment
``RAY_API_SERVER_ADDRESS``, such as http://HEAD:8265.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import DAG, BaseOperator, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

HERE = Path(__file__).resolve().parent

OK, TRANSIENT_ERROR, LOCKED = 0, 1, 4
"""Exit codes of a run; any other would be the same on a retry."""


class Batchlight(BaseOperator):
    """Runs batchlight, and tells Airflow whether a failure is worth a retry."""

    template_fields = ("config",)

    def __init__(self, *, config: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config

    @cached_property
    def hook(self) -> SubprocessHook:
        """Runs or submits the run; its environment is that of Airflow's worker."""
        return SubprocessHook()

    @property
    def command(self) -> list[str]:
        """The command; both end with the run's own exit code."""
        if "RAY_API_SERVER_ADDRESS" in os.environ:
            return ["sh", str(HERE / "submit.sh"), self.config]
        return ["batchlight", "run", "--config", self.config]

    def execute(self, context: Context) -> None:
        code = self.hook.run_command(self.command).exit_code
        if code == TRANSIENT_ERROR:  # of the storage or the cluster
            raise AirflowException("the run ended with exit code 1; the next try continues it")
        if code == LOCKED:
            raise AirflowSkipException("another run is using this output")
        if code != OK:
            raise AirflowFailException(f"the run ended with exit code {code}; the log says why")

    def on_kill(self) -> None:
        """Stop the run too, through ``submit.sh``."""
        self.hook.send_sigterm()


with DAG(
    dag_id="batchlight_nightly",
    schedule="30 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    # A run does everything new, so missed nights need no catch-up, and a night that takes longer is
    # not overtaken by the next.
    catchup=False,
    max_active_runs=1,
):
    Batchlight(
        task_id="enhance",
        config=str(HERE / "nightly.yaml"),
        retries=3,
        retry_delay=timedelta(minutes=10),
        retry_exponential_backoff=True,
        # A run that takes longer hangs, or should have had more workers.
        execution_timeout=timedelta(hours=12),
    )
