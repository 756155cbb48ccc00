"""A Ray of our own: nobody else gets into it, it leaves nothing, and says what it lacks."""

from __future__ import annotations

import colorsys
import logging
import math
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from batchlight.engine import InProcessEngine, make_engine, own_ray, ray_address
from batchlight.errors import ClusterError, UsageError
from tests.support.helpers import COMMAND, STARTUP, batchlight_here, wait_until, write_images

ROOT = Path(__file__).parents[2]
CLEAN = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
STRANGER = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level=40)
print("inside", ray.get(ray.remote(lambda: 1).remote()))
"""
TRY_ONCE = {"RAY_NUM_REDIS_GET_RETRIES": "1"}
"""Otherwise Ray asks for twenty seconds whether it may come in now."""


def python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=CLEAN | environment
    )


@pytest.mark.parametrize(
    "token",
    [
        {},
        pytest.param(
            {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}, marks=pytest.mark.nightly
        ),
    ],
)
def test_no_stranger_gets_in_and_nothing_is_left(tmp_path: Path, token: dict[str, str]) -> None:
    home = tmp_path / "home"
    home.mkdir()
    before = set(Path("/tmp").glob("bl-*"))
    code = (
        "import os, sys, psutil\n"
        "from batchlight.engine import make_engine, own_ray\n"
        "with make_engine(1, None, 60):\n"
        "    import ray\n"
        "    gcs = ray.get_runtime_context().gcs_address\n"
        "    print(gcs, flush=True)\n"
        "    from ray._private.node import Node\n"
        "    from ray._private import services, utils\n"
        "    assert all(n in vars(Node) for n in own_ray.UNUSED), 'Ray has other names for these'\n"
        "    assert 'get_node' in vars(services), 'Ray has another name for it'\n"
        "    assert 'get_dashboard_dependency_error' in vars(utils), 'and for this'\n"
        "    assert ray._raylet.GcsClient(address=gcs).get_all_node_info()\n"
        "    for child in psutil.Process().children(recursive=True):\n"
        "        command = ' '.join(child.cmdline())\n"
        "        assert 'monitor.py' not in command and 'dashboard.py' not in command, command\n"
        "    sys.stdin.readline()\n"
        "assert 'RAY_AUTH_TOKEN' not in os.environ and 'RAY_AUTH_MODE' not in os.environ\n"
    )
    environment = {"HOME": str(home), "PYTHONPATH": f"{STARTUP}:{ROOT}"}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=CLEAN | environment,
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        assert holder.stdin is not None
        address = holder.stdout.readline().strip()
        [folder] = folders_of(holder, before)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert (folder / "r/session_latest").exists()
        done = python(STRANGER, address, HOME=str(home), **TRY_ONCE, **token)
        assert done.returncode != 0
        assert "inside" not in done.stdout
        holder.stdin.write("\n")
        holder.stdin.flush()
        holder.stdin.close()
        assert holder.wait(60) == 0
    assert not folder.exists()
    assert not list(home.iterdir())


MEANWHILE = """
import asyncio, os, threading
from batchlight.engine import RayEngine

class Work:
    def steps(self, timed): yield
    def report(self): return "done"

async def work(engine, may_end):
    heard = []
    long = asyncio.ensure_future(engine.follow(Work, on_report=heard.append))
    assert await engine.call(os.getpid) != os.getpid()
    assert engine.preparing and not heard
    may_end.set()
    await long
    assert heard[-1] == "done" and not engine.preparing

may_end = threading.Event()
with RayEngine(1, "local", 60, meanwhile=may_end.wait) as engine:
    asyncio.run(work(engine, may_end))
"""


def test_long_work_waits_for_what_is_done_while_ray_starts() -> None:
    """Calls do not, so a listing can begin."""
    done = python(MEANWHILE, PYTHONPATH=f"{STARTUP}:{ROOT}")
    assert done.returncode == 0, done.stderr


def test_a_run_in_a_home_that_cannot_be_written_to_leaves_nothing(tmp_path: Path) -> None:
    """Its Ray has a folder that is of this user alone, and gone when the run has ended."""
    write_images(tmp_path / "in", 1)
    words = [*COMMAND, "run", "--input", str(tmp_path / "in"), "--workers", "1"]
    environment = {"HOME": "/nonexistent", "PYTHONPATH": f"{STARTUP}:{ROOT}"}
    before = set(Path("/tmp").glob("bl-*"))
    with subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=CLEAN | environment
    ) as process:
        wait_until(lambda: folders_of(process, before), process, 60)
        [folder] = folders_of(process, before)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        _, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert not folder.exists()
    assert batchlight_here("status", tmp_path / "in-enhanced").returncode == 0


def test_files_in_the_current_folder_are_not_run(tmp_path: Path) -> None:
    """It may be a data set of anybody's; Ray would put it first on the path of the workers."""
    write_images(tmp_path / "in", 1)
    code = Path(colorsys.__file__).read_text()
    (tmp_path / "colorsys.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n{code}")
    done = subprocess.run(
        [*COMMAND, "run", "--input", "in", "--workers", "1"],
        capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path,
        # As the installed program does, the driver leaves out the current folder.
        env=CLEAN | {"PYTHONPATH": f"{STARTUP}:{ROOT}", "PYTHONSAFEPATH": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()


IN_THE_CURRENT_FOLDER = """
import asyncio, os, sys
from batchlight.engine import RayEngine
os.chdir(sys.argv[1])
from nearby import place

with RayEngine(1, "local", 60) as engine:
    assert asyncio.run(engine.call(place)) == os.path.abspath("nearby.py")
"""


def test_workers_import_from_where_the_calling_program_does(tmp_path: Path) -> None:
    """A notebook, and ``python -c``, import from the current folder."""
    (tmp_path / "nearby.py").write_text("def place():\n    return __file__\n")
    done = python(IN_THE_CURRENT_FOLDER, str(tmp_path), PYTHONPATH=f"{STARTUP}:{ROOT}")
    assert done.returncode == 0, done.stderr


IN_THREADS = """
import sys, threading
import batchlight

folder, results, told = sys.argv[1], {}, []

def run(name, workers=1, on_progress=None):
    config = batchlight.JobConfig(input=folder + "/in", output=f"{folder}/{name}", workers=workers)
    try:
        results[name] = batchlight.run(config, on_progress).exit_code
    except batchlight.UsageError as error:
        results[name] = str(error)

def at_once(*names):
    threads = [threading.Thread(target=run, args=(name,)) for name in names]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return [results[name] for name in names]

def nested(progress):
    if not told:
        told.append(progress)
        at_once("in a thread")
        run("nested")
        run("nested here", workers=0)

refused = "another run of this process is using Ray"
run("outer", on_progress=nested)
assert results["outer"] == results["nested here"] == 0, results
assert results["nested"].startswith(refused), results
assert results["in a thread"].startswith(refused), results
import ray
ray.init(num_cpus=2, include_dashboard=False, logging_level=40, object_store_memory=100 * 2**20)
assert at_once("c", "d") == [0, 0], results
assert ray.is_initialized()
"""


def test_runs_of_one_process_do_not_end_each_others_ray(tmp_path: Path) -> None:
    """One at a time starts a Ray; all of them may share one of the program."""
    write_images(tmp_path / "in", 2)
    done = python(
        IN_THREADS, str(tmp_path), PYTHONPATH=f"{STARTUP}:{ROOT}", RAY_AUTH_MODE="disabled"
    )
    assert done.returncode == 0, done.stderr


BY_TURNS = """
import asyncio, os, sys
import batchlight
from batchlight.engine import RayEngine

def work():
    with RayEngine(1, "local", 60) as engine:
        assert asyncio.run(engine.call(os.getpid)) != os.getpid()

def run(address):
    words = {"input": sys.argv[1] + "/in", "workers": 1, "address": address}
    return batchlight.run(batchlight.JobConfig(**words))

work()
import ray
ray.init(num_cpus=1, include_dashboard=False, logging_level=40, object_store_memory=100 * 2**20)
assert ray.get(ray.remote(lambda: 1).remote()) == 1
here = ray.get_runtime_context().gcs_address
for elsewhere in "10.255.255.1:6379", "local", here + "1":
    try:
        run(elsewhere)
    except batchlight.UsageError as error:
        assert f"this program is already connected to a Ray, at {here}" in str(error), error
        assert elsewhere in str(error), error
    else:
        raise AssertionError(elsewhere)
port = here.rpartition(":")[2]
for same in here, "auto", None, f"127.0.0.1:{port}", f"localhost:{port}":
    with RayEngine(1, same) as engine:
        assert engine.place.startswith(f"the Ray cluster at {here}, 1 CPU"), engine.place
ray.shutdown()
work()
"""


def test_runs_and_the_program_start_a_ray_by_turns(tmp_path: Path) -> None:
    """Though Ray keeps a token that it has read once; a run never takes one for another."""
    write_images(tmp_path / "in", 1)
    done = python(
        BY_TURNS, str(tmp_path), HOME=str(tmp_path / "home"), PYTHONPATH=f"{STARTUP}:{ROOT}"
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "in-enhanced").exists()


def folders_of(process: subprocess.Popen[str], before: set[Path]) -> list[Path]:
    """Where the Ray of a process lies; others may start one meanwhile."""
    words = [word for child in psutil.Process(process.pid).children() for word in child.cmdline()]
    new = set(Path("/tmp").glob("bl-*")) - before
    return [path for path in new if any(str(path) in word for word in words)]


@pytest.mark.parametrize("trouble", ["full", "nowhere", "closed"])
def test_a_folder_that_ray_cannot_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("nowhere" if trouble == "nowhere" else "")))
    if trouble == "full":
        monkeypatch.setattr(own_ray, "FREE_BYTES", 2**60)
    if trouble == "closed":
        monkeypatch.setattr("tempfile.mkdtemp", _denied)
    with (
        pytest.raises(ClusterError, match=r"RAY_TMPDIR.*--workers 0") as caught,
        own_ray.private_folder(),
    ):
        pass
    says = {"full": "no space left in", "nowhere": "No such file", "closed": "Permission denied"}
    assert says[trouble] in str(caught.value)


def _denied(**_: Any) -> str:
    raise PermissionError(13, "Permission denied")


def test_a_long_path_is_no_trouble(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    with own_ray.private_folder() as folder:
        assert folder.startswith("/tmp/")


@pytest.mark.parametrize(
    ("memory_mb", "processes", "addresses_mb", "wanted", "fit", "says"),
    [
        (100_000, 10**6, math.inf, 4, 4, ""),
        (
            1000,
            10**6,
            math.inf,
            4,
            1,
            "only 1000 MB of memory are free here: enough for 1 worker, not for 4",
        ),
        (2000, 10**6, math.inf, 8, 4, "enough for 4 workers, not for 8"),
        (
            750,
            10**6,
            math.inf,
            2,
            0,
            "enough for work in this process, as with --workers 0, not for 2",
        ),
        (100_000, 250, math.inf, 8, 2, "only 250 more processes and threads may start here"),
        (100_000, 100, math.inf, 1, 0, "only 100 more processes and threads may start here"),
        (100_000, 10**6, 7168, 16, 8, "only 7168 MB of addresses per process are allowed here"),
        (100_000, 10**6, 5120, 1, 0, "only 5120 MB of addresses per process are allowed here"),
    ],
)
def test_as_many_workers_as_fit(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    memory_mb: int,
    processes: int,
    addresses_mb: float,
    wanted: int,
    fit: int,
    says: str,
) -> None:
    monkeypatch.setattr(own_ray, "free_memory", lambda: memory_mb * 2**20)
    monkeypatch.setattr(own_ray, "free_processes", lambda: float(processes))
    monkeypatch.setattr(own_ray, "address_space", lambda: addresses_mb * 2**20)
    with caplog.at_level(logging.WARNING):
        assert own_ray.workers_that_fit(wanted) == fit
    assert (says in caplog.text) if says else not caplog.records
    if fit == 0:
        assert isinstance(make_engine(wanted, "local", 5), InProcessEngine)


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ("-n 200", "a process may only open 200 files here (ulimit -n); Ray needs 1024"),
        ("-v 3000000", "only 2930 MB of addresses per process are allowed here (ulimit -v)"),
    ],
)
def test_limits_of_a_process(tmp_path: Path, limit: str, says: str) -> None:
    """Below which Ray would abort this process."""
    write_images(tmp_path / "in", 1)
    code = "import sys\nfrom batchlight.cli.main import main\nmain()\n"
    run = f"exec {sys.executable} -c '{code}' run --input {tmp_path}/in --workers 1"
    line = f"ulimit {limit}; {run}"
    done = subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0
    assert says in done.stderr


def test_the_ray_client_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "in", 1)
    for address in ("me:SECRET@here:1", "ray://me:SECRET@here:1", "here:1?token=SECRET"):
        words = ("--input", tmp_path / "in", "--address", address)
        done = batchlight_here("run", *words)
        assert done.returncode == 2
        assert "must not contain credentials" in done.stderr
        assert "SECRET" not in done.stderr
        assert "in-enhanced" not in [path.name for path in tmp_path.iterdir()]
    done = batchlight_here("run", "--input", tmp_path / "in", "--address", "ray://here:10001")
    assert done.returncode == 2
    assert "not the Ray Client" in done.stderr
    done = batchlight_here("run", "--input", tmp_path / "in", RAY_ADDRESS="ray://here:10001")
    assert done.returncode == 2
    assert not (tmp_path / "in-enhanced").exists()
    monkeypatch.setenv("RAY_ADDRESS", "ray://here:10001")
    with pytest.raises(UsageError):
        ray_address(None)


@pytest.mark.nightly
def test_a_run_inside_of_a_task_that_holds_the_only_cpu(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 1)
    code = (
        "import sys, ray\n"
        "ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=40,\n"
        "         object_store_memory=100 * 2**20, _temp_dir=sys.argv[2])\n"
        "@ray.remote(num_cpus=1)\n"
        "def night():\n"
        "    import batchlight\n"
        "    return batchlight.run(batchlight.JobConfig(input=sys.argv[1])).exit_code\n"
        "sys.exit(ray.get(night.remote(), timeout=90))\n"
    )
    code = code.replace("sys.argv[1])).exit", f"{str(tmp_path / 'in')!r})).exit")
    with own_ray.private_folder() as folder:
        done = python(
            code,
            "",
            folder,
            RAY_AUTH_MODE="disabled",
            PYTHONPATH=f"{STARTUP}:{ROOT}",
        )
    assert done.returncode == 0, done.stderr
