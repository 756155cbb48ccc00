"""``jobs/airflow_dag.py`` in a real Airflow, which ``make nightly`` installs.

Airflow pins hundreds of packages, so it has an environment of its own; what can be seen of the DAG
without Airflow is in test_jobs.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batchlight.errors import ExitCode

JOBS = Path(__file__).parents[2] / "jobs"
AIRFLOW = "apache-airflow==3.3.2"
WITHIN_S = 1200

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(2 * WITHIN_S)]

CHECK = """
import json, os, sys
from datetime import UTC, datetime
from pathlib import Path
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.exceptions import AirflowException, AirflowFailException

folder = Path(sys.argv[1])
bag = DagBag(str(folder))
assert not bag.import_errors, bag.import_errors
dag = bag.dags["batchlight_nightly"]
[task] = dag.tasks
found = {"catchup": dag.catchup, "max_active_runs": dag.max_active_runs, "retries": task.retries}

# Airflow would wait for minutes before it tries once more, so here the task is asked.
(folder / "code").write_text("1")
try:
    task.execute({})
except AirflowException as error:
    found["tried again"] = not isinstance(error, AirflowFailException)

def outcomes(month):
    for day, code in enumerate(map(int, sys.argv[2:]), 1):
        (folder / "code").write_text(str(code))
        run = dag.test(logical_date=datetime(2026, month, day, tzinfo=UTC))
        [task_run] = run.get_task_instances()
        yield code, [task_run.state, task_run.try_number]


found["as a process"] = dict(outcomes(2))
os.environ["RAY_API_SERVER_ADDRESS"] = "http://head:8265"
found["as a job"] = dict(outcomes(3))
(folder / "found").write_text(json.dumps(found))
"""


def test_airflow_takes_a_runs_exit_code_for_what_it_is(tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", environment)
    run(environment / "bin/pip", "install", "--quiet", AIRFLOW)

    dags = tmp_path / "home/dags"
    dags.mkdir(parents=True)
    for name in ("airflow_dag.py", "nightly.yaml"):
        shutil.copy(JOBS / name, dags)
    (dags / "submit.sh").write_text(f'[ -r "$1" ] && exit "$(cat {dags}/code)"\n')
    program = environment / "bin/batchlight"
    program.write_text(
        f'#!/bin/sh\n[ "$1 $2" = "run --config" ] && [ -r "$3" ] && exit "$(cat {dags}/code)"\n'
    )
    program.chmod(0o755)
    home = {
        "AIRFLOW_HOME": str(tmp_path / "home"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
    }
    run(environment / "bin/airflow", "db", "migrate", **home)
    codes = (ExitCode.OK, ExitCode.USAGE, ExitCode.FAILURES, ExitCode.LOCKED, 143)
    run(environment / "bin/python", "-c", CHECK, dags, *map(int, codes), **home)

    found: dict[str, Any] = json.loads((dags / "found").read_text())
    outcomes = {
        "0": ["success", 1],
        "2": ["failed", 1],
        "3": ["failed", 1],
        "4": ["skipped", 1],
        "143": ["failed", 1],
    }
    assert found == {
        "catchup": False,
        "max_active_runs": 1,
        "retries": 3,
        "tried again": True,
        "as a process": outcomes,
        "as a job": outcomes,
    }


def run(*command: object, **environment: str) -> None:
    done = subprocess.run(
        list(map(str, command)),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
