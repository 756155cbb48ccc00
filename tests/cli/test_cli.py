"""The command line: options, sentences, exit codes, output for people and for programs."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batchlight import JobConfig, __version__, run
from batchlight.cli.main import COMMANDS
from batchlight.config import Method
from batchlight.driver.progress import JsonDisplay, LineDisplay, Progress
from batchlight.output.lock import Lock
from batchlight.storage import Location, open_storage
from tests.support.helpers import COMMAND, batchlight, batchlight_here, rows, tree, write_images
from tests.support.terminal import on_a_terminal


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run"], "--input is required"),
        (["run", "--input", "nowhere"], "nowhere does not exist; check"),
        (["run", "--input", "ftp://host/x"], "cannot use ftp:// locations; give a local path"),
        (["run", "--input", "s3://key:secret@b/x"], "must not contain credentials"),
        (["run", "--input", "in", "--omega", "7"], "--omega is '7'"),
        (["run", "--input", "in", "--workers", "-1"], "--workers is '-1'"),
        (["run", "--input", "in", "--bogus", "1"], "No such option"),
        (["run", "--input", "in", "--weights", "w"], "has no effect without --method absgn"),
        (
            ["run", "--input", "in", "--address", "auto", "--workers", "0"],
            "--address has no effect with --workers 0",
        ),
        (["plan", "--input", "in", "--model", "absgn"], "add that, or leave --model out"),
        (["run", "--input", "in", "--config", "nowhere.yaml"], "cannot read the config file"),
        (["plan", "--input", "nowhere"], "nowhere does not exist; check"),
        (["status", "nowhere"], "nowhere does not exist; check the path"),
        (["status", "."], "is not the output of a run"),
        (["failures", "nowhere"], "nowhere does not exist; check the path"),
        (["samples", "/proc/nowhere"], "cannot write /proc/nowhere"),
        (["enhance"], "No such command"),
        (["run", "--input", "in", "--config", ""], "--config must not be empty"),
        (
            ["run", "--input", "in", "--include", "a", "--include", ""],
            "--include must not be empty",
        ),
        (["preview", "--input", "in", "--output", ""], "--output must not be empty"),
        (["status", ""], "OUTPUT must not be empty"),
        (["verify", ""], "OUTPUT must not be empty"),
        (["verify", ".", "--address", ""], "--address must not be empty"),
        (["report", ".", "--input", ""], "--input must not be empty"),
        (["evaluate", "--enhanced", ".", "--reference", ""], "--reference must not be empty"),
        (["evaluate", "--enhanced", "a", "--enhanced", ""], "--enhanced must not be empty"),
        (["samples", ""], "DIR must not be empty"),
    ],
)
def test_a_wrong_call_is_one_sentence_and_exit_2(arguments: list[str], sentence: str) -> None:
    done = batchlight_here(*arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert "secret" not in done.stderr
    assert not done.stdout


@pytest.mark.parametrize("command", ["status", "verify", "failures", "report"])
def test_a_file_is_no_output(tmp_path: Path, command: str) -> None:
    (tmp_path / "file.jpg").write_bytes(b"1")
    done = batchlight_here(command, tmp_path / "file.jpg")
    assert done.returncode == 2
    says = "is not a folder, so it cannot be the output of a run; check the path"
    assert done.stderr == f"error: {tmp_path}/file.jpg {says}\n"


def test_names_are_utf8_whatever_the_locale(tmp_path: Path) -> None:
    write_images(tmp_path / "é", 1)[0].rename(tmp_path / "é/café.jpg")
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = batchlight("run", "--input", tmp_path / "é", "--workers", 0, **ascii_only)
    assert done.returncode == 0, done.stderr
    [row] = rows(tmp_path / "é-enhanced")
    assert (row["input"], row["output"]) == ("café.jpg", "classical/café.jpg")
    assert (tmp_path / "é-enhanced/classical/café.jpg").exists()


def test_debug_adds_the_traceback(tmp_path: Path) -> None:
    done = batchlight_here("run", "--input", tmp_path / "nowhere", "--debug")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "does not exist; check" in done.stderr


def test_version() -> None:
    assert batchlight("--version").stdout == f"batchlight {__version__}\n"


def test_a_config_file_and_an_option_on_top(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 3)
    (tmp_path / "job.yaml").write_text(f"input: {tmp_path}/in\nworkers: 0\nomega: 0.5\n")
    done = batchlight_here("run", "--config", tmp_path / "job.yaml", "--t0", "0.2", "--fail-fast")
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "in-enhanced/summary.json").read_text())["config"]
    assert (config["omega"], config["t0"], config["fail_fast"]) == (0.5, 0.2, True)


def test_a_config_file_may_hold_what_only_other_jobs_need(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 1)
    (tmp_path / "job.yaml").write_text("device: cpu\ngpu-workers: 2\n")
    done = batchlight_here("plan", "--config", tmp_path / "job.yaml", "--input", tmp_path / "in")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    write_images(folder / "in", 5)
    (folder / "in/[b]roken.jpg").write_bytes(b"")
    done = batchlight_here(
        "run", "--input", folder / "in", "--output", folder / "out", "--workers", 0
    )
    assert done.returncode == 3
    assert "exit 3: 1 of 6 images failed" in done.stdout
    return folder


def test_plan_writes_nothing(finished: Path) -> None:
    before = tree(finished)
    done = batchlight_here(
        "plan", "--input", finished / "in", "--output", finished / "out", "--json"
    )
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert (found["inputs"], found["unchanged"], found["todo"]) == (6, 6, 0)
    done = batchlight_here("plan", "--input", finished / "in", "--output", finished / "new")
    assert "6, " in done.stdout
    assert "in 3 batches of 2" in done.stdout
    assert tree(finished) == before
    assert not (finished / "new").exists()


def test_plan_refuses_what_a_run_would(finished: Path) -> None:
    done = batchlight_here(
        "plan", "--input", finished / "in", "--output", finished / "out", "--omega", "0.5"
    )
    assert done.returncode == 2
    assert "omega auto -> 0.5" in done.stderr


def test_status(finished: Path) -> None:
    found = json.loads(batchlight_here("status", finished / "out", "--json").stdout)
    assert (found["state"], found["planned"], found["done"]) == ("finished", 6, 6)
    assert found["exit_code"] == 3
    assert "finished" in batchlight_here("status", finished / "out").stdout


def test_failures(finished: Path) -> None:
    found = json.loads(batchlight_here("failures", finished / "out", "--json").stdout)
    assert found == [
        {
            "input": "[b]roken.jpg",
            "method": "classical",
            "error_code": "empty",
            "error": "the file is empty",
        }
    ]
    plain = batchlight_here("failures", finished / "out").stdout
    assert plain == "[b]roken.jpg\tclassical\tempty\tthe file is empty\n"


def test_failures_of_a_run_under_way_are_those_so_far(finished: Path) -> None:
    calm = batchlight_here("failures", finished / "out")
    assert "so far" not in calm.stderr
    with Lock(open_storage(Location.parse(str(finished / "out"))), "out", "run"):
        found = batchlight_here("failures", finished / "out")
    assert (found.returncode, found.stdout) == (0, calm.stdout)
    assert found.stderr == (
        f"process {os.getpid()} on {socket.gethostname()} is running on this output; "
        "listing the failures committed so far\n"
    )


@pytest.mark.nightly
def test_quick_commands_end_cleanly_every_time(finished: Path) -> None:
    for _ in range(8):
        assert batchlight("failures", finished / "out", "--json").returncode == 0


THREADS = """
import os, sys
from batchlight.output.moving import failed_rows
from batchlight.output.state import OutputState
from batchlight.output.status import open_output
storage = open_output(sys.argv[1])
before = len(os.listdir("/proc/self/task"))
state = OutputState.load(storage)
assert list(failed_rows(storage))
assert state.plan.batches_of(storage, state.plan.chunks[0])
print(len(os.listdir("/proc/self/task")) - before)
"""


def test_reading_records_starts_no_thread(finished: Path) -> None:
    """With one, a process that ends soon after may abort once in many times."""
    program = [sys.executable, "-c", THREADS, str(finished / "out")]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


@pytest.mark.parametrize("progress", ["json", "auto"])
def test_a_closed_pipe_does_not_change_the_outcome(tmp_path: Path, progress: str) -> None:
    write_images(tmp_path / "in", 4)
    command = [*COMMAND, "run", "--input", tmp_path / "in", "--workers", "0"]
    with subprocess.Popen(
        [*map(str, command), "--progress", progress, "--batch-size", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
    assert process.returncode == 0
    assert len(rows(tmp_path / "in-enhanced")) == 4


def test_a_damaged_lock_or_summary_is_named(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 1)
    run = ("run", "--input", tmp_path / "in", "--workers", 0, "--progress", "off")
    assert batchlight_here(*run).returncode == 0
    (tmp_path / "in-enhanced/_batchlight/locks/0000000001.json").write_text("{")
    done = batchlight_here(*run)
    assert done.returncode == 1
    assert "_batchlight/locks/0000000001.json is damaged" in done.stderr


@pytest.mark.parametrize(
    "command", [[], *([f.__name__] for commands in COMMANDS.values() for f in commands)]
)
def test_flags_take_no_value_in_help(command: list[str]) -> None:
    shown = batchlight_here(*command, "--help").stdout
    assert "--help" in shown
    assert "bool" not in shown


@pytest.mark.parametrize("columns", [40, 60, 69, 70, 80])
def test_no_option_is_cut_in_help(columns: int) -> None:
    for command in ("run", "preview", "train"):
        done = batchlight(command, "--help", COLUMNS=str(columns))
        assert "--help" in done.stdout
        assert "…" not in done.stdout


def test_no_command_is_help() -> None:
    done = batchlight_here()
    assert done.returncode == 2
    assert "error:" not in done.stdout + done.stderr


def test_progress_for_logs_is_a_line_every_30_seconds() -> None:
    shown, now = io.StringIO(), [0.0]
    display = LineDisplay(shown, clock=lambda: now[0])
    for now[0], done in ((29.0, 4), (30.0, 5), (31.0, 6), (59.9, 9), (60.0, 10)):
        display.update(Progress(done, 10, failed=1, elapsed_s=now[0]))
    first, last = shown.getvalue().splitlines()
    assert first == "5/10 images, 1 failed, 0.2/s, 30 s left"
    assert last == "10/10 images, 1 failed, 0.2/s"


def test_progress_calls_pairs_pairs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    write_images(tmp_path / "in", 2)
    seen: list[Progress] = []
    both: tuple[Method, ...] = ("classical", "absgn")
    where: dict[str, Any] = {"input": str(tmp_path / "in"), "output": str(tmp_path / "out")}
    config = JobConfig(**where, method=both, model="absgn-small", device="cpu", workers=0)
    run(config, on_progress=seen.append)
    assert (seen[-1].done, seen[-1].unit) == (4, "pairs")
    shown, now = io.StringIO(), iter((0.0, 30.0, 30.0))
    LineDisplay(shown, clock=lambda: next(now)).update(seen[-1])
    assert shown.getvalue().startswith("4/4 pairs, 0 failed")


def test_progress_tells_how_many_are_skipped() -> None:
    shown = [io.StringIO(), io.StringIO()]
    state = Progress(30, 40, failed=1, elapsed_s=30.0, skipped=5)
    now = [0.0]
    lines = LineDisplay(shown[0], clock=lambda: now[0])
    now[0] = 30.0
    lines.update(state)
    assert shown[0].getvalue() == "30/40 images, 5 skipped, 1 failed, 1.0/s, 10 s left\n"
    JsonDisplay(shown[1]).update(state)
    told = json.loads(shown[1].getvalue())
    assert (told["done"], told["skipped"], told["failed"]) == (30, 5, 1)


@pytest.mark.parametrize("done", [0, 5])
def test_nobody_knows_how_long_it_takes_before_any_time_has_passed(done: int) -> None:
    """As at the start of new work, in a run that has finished a stored plan."""
    assert Progress(done, 10, failed=0, elapsed_s=0.0).eta_s is None


def test_a_run_that_goes_on_with_old_work_and_then_new_shows_both(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 4)
    (tmp_path / "in/a/0000.jpg").write_bytes(b"")
    run = ("run", "--input", tmp_path / "in", "--workers", 0, "--batch-size", 1)
    assert batchlight_here(*run, "--fail-fast").returncode == 3
    (tmp_path / "in/d.jpg").write_bytes((tmp_path / "in/b/0001.jpg").read_bytes())
    shown = on_a_terminal(100, *run)
    assert "ZeroDivisionError" not in shown
    assert "1 of 5 images failed" in COLOUR.sub("", shown)


def test_json_progress_is_json_lines_and_nothing_else(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 4)
    done = batchlight("run", "--input", tmp_path / "in", "--workers", 0, "--progress", "json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert not done.stderr
    *_, progress, report, summary = events
    assert (progress["event"], progress["done"], progress["total"]) == ("progress", 4, 4)
    assert (report["event"], report["text"]) == ("message", "making the report")
    assert summary["event"] == "summary"
    assert (summary["ok"], summary["exit_code"]) == (4, 0)


def test_progress_off_leaves_only_the_summary(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 2)
    done = batchlight_here("run", "--input", tmp_path / "in", "--workers", 0, "--progress", "off")
    assert not done.stderr
    assert "exit 0: all images are done" in done.stdout
    assert "\x1b" not in done.stdout


def test_the_end_of_a_run_says_where_all_is_and_what_comes_next(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 2)
    options = ("--input", tmp_path / "in", "--workers", 0)
    done = batchlight_here("run", *options)
    out = tmp_path / "in-enhanced"
    assert re.search(rf"^enhanced images +{out}/classical$", done.stdout, re.MULTILINE)
    assert re.search(rf"^report +{out}/report.html$", done.stdout, re.MULTILINE)
    assert done.stdout.endswith(
        f"next: batchlight status {out}; or the same run again, for images that are new by then\n"
    )
    (tmp_path / "in/empty.jpg").touch()
    done = batchlight_here("run", *options, "--max-failures", 1)
    assert done.stdout.endswith(f"next: batchlight failures {out}\n")


def test_samples_make_a_job(tmp_path: Path) -> None:
    done = batchlight("samples", tmp_path / "dark")
    assert done.returncode == 0
    assert len(tree(tmp_path / "dark")) == 8
    again = batchlight("samples", tmp_path / "again")
    assert again.returncode == 0
    assert tree(tmp_path / "again") == tree(tmp_path / "dark")
    done = batchlight("run", "--input", tmp_path / "dark", "--workers", 0)
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path / "dark-enhanced")
    assert all(row["luminance_after"] > 1.5 * row["luminance_before"] for row in found)
    assert {row["bit_depth"] for row in found} == {8, 16}


def test_a_cluster_out_of_reach_is_one_sentence_and_exit_1(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 2)
    done = batchlight("run", "--input", tmp_path / "in", "--address", "127.0.0.1:9")
    assert done.returncode == 1
    sentence = done.stderr.strip().splitlines()[-1]
    assert sentence.startswith("error: nothing answers at 127.0.0.1:9 (Connection refused); ")
    assert "check --address and RAY_ADDRESS" in sentence
    assert "Traceback" not in done.stderr
    summary = json.loads((tmp_path / "in-enhanced/summary.json").read_text())
    assert (summary["exit_code"], summary["missing"]) == (1, 2)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("batchlight fai", ["failures"]),
        ("batchlight run --over", ["--overwrite"]),
        ("batchlight run --method ", ["classical", "absgn"]),
        ("batchlight run --atmospheric-light b", ["batch"]),
        ("batchlight run --input ", []),  # the shell offers files
    ],
)
def test_shells_complete_commands_options_and_words(typed: str, offered: list[str]) -> None:
    """As the script that ``--show-completion`` prints asks for it."""
    asked = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    done = subprocess.run(
        [Path(sys.executable).with_name("batchlight")],
        env={**os.environ, "_BATCHLIGHT_COMPLETE": "complete_bash", **asked},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == offered


COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("columns", [40, 120])
def test_a_terminal_of_any_width_shows_whole_paths(finished: Path, columns: int) -> None:
    shown = on_a_terminal(columns, "failures", finished / "out")
    assert COLOUR.search(shown)
    lines = COLOUR.sub("", shown).split("\r\n")
    assert lines[0] == "[b]roken.jpg"
    assert lines[1].split() == ["classical", "empty", "the", "file", "is", "empty"]
    assert lines[2] == "1 failed"
    status = COLOUR.sub("", on_a_terminal(columns, "status", finished / "out")).split("\r\n")
    assert max(map(len, status[1:])) <= columns
    assert "".join(status).count("exit 3") == 1


def test_no_colour_where_it_is_not_wanted(finished: Path) -> None:
    for command in ("failures", "status"):
        assert "\x1b" not in batchlight_here(command, finished / "out").stdout
        assert not re.search(
            r"\x1b\[[0-9;]*3[0-7]m", on_a_terminal(80, command, finished / "out", NO_COLOR="1")
        )


def test_a_bar_on_a_terminal(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 4)
    shown = on_a_terminal(60, "run", "--input", tmp_path / "in", "--workers", 0, "--batch-size", 1)
    assert "4/4" in shown
    assert "━" in shown
    assert "exit 0" in COLOUR.sub("", shown)


@pytest.mark.parametrize(
    "words", [("{dir}",), ("run", "{dir}"), ("run", "{dir}", "--workers", "0")]
)
def test_a_path_without_its_option_is_told_where_it_belongs(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    done = batchlight_here(*(word.format(dir=tmp_path) for word in words))
    assert done.returncode == 2
    told = f"{tmp_path} needs --input before it: batchlight run --input {tmp_path}"
    assert told in done.stderr.replace("\n", "")
    assert "No such command 'rnu'" in batchlight_here("rnu").stderr
    assert "plan --input s3://b/x" in batchlight_here("plan", "s3://b/x").stderr
