"""Standard streams that are closed, full or steered: no work is lost, no terminal harmed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from batchlight.errors import shown
from tests.support.helpers import COMMAND, batchlight, batchlight_here, write_images

NIGHTLY = pytest.mark.nightly
FULL = Path("/dev/full")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(tmp_path / "in", 2)
    return tmp_path / "in"


@pytest.fixture(scope="module")
def enhanced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output, only to be looked at."""
    folder = tmp_path_factory.mktemp("done")
    write_images(folder / "in", 2)
    batchlight("run", "--input", folder / "in", "--workers", 0)
    return folder / "in-enhanced"


def in_shell(words: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    line = " ".join([*COMMAND, *map(str, arguments), words])
    return subprocess.run(["sh", "-c", line], capture_output=True, timeout=120, check=False)


@pytest.mark.parametrize(
    "streams",
    [">&-", "<&- >&- 2>&-", *(pytest.param(s, marks=NIGHTLY) for s in ("2>&-", ">&- 2>&-"))],
)
def test_a_run_with_closed_streams(photos: Path, streams: str) -> None:
    done = in_shell(streams, "run", "--input", photos, "--workers", 0)
    assert done.returncode == 0, done.stderr
    assert len(list((photos.parent / "in-enhanced/classical").rglob("*.jpg"))) == 2


@pytest.mark.skipif(not FULL.exists(), reason="Linux only")
@pytest.mark.parametrize(
    ("streams", "progress"),
    [
        (f"2>{FULL}", "auto"),
        (f">{FULL}", "json"),
        pytest.param(f"2>{FULL}", "json", marks=NIGHTLY),
        pytest.param(f">{FULL}", "auto", marks=NIGHTLY),
        pytest.param(f">{FULL}", "off", marks=NIGHTLY),
        pytest.param(f"2>{FULL}", "off", marks=NIGHTLY),
    ],
)
def test_a_run_whose_log_is_full(photos: Path, progress: str, streams: str) -> None:
    done = in_shell(streams, "run", "--input", photos, "--workers", 0, "--progress", progress)
    assert done.returncode == 0, done.stderr
    assert len(list((photos.parent / "in-enhanced/classical").rglob("*.jpg"))) == 2


@pytest.mark.skipif(not FULL.exists(), reason="Linux only")
@pytest.mark.parametrize("command", ["status", "failures", "verify", "plan --json --input"])
def test_what_cannot_be_printed_is_no_success(enhanced: Path, command: str) -> None:
    place = enhanced.with_name("in") if command.startswith("plan") else enhanced
    done = in_shell(f">{FULL}", command, place)
    lost = b"error: cannot write to the standard output: no space left on device\n"
    # Nothing has failed, and so nothing is printed.
    assert (done.returncode, done.stderr) == ((0, b"") if command == "failures" else (1, lost))


def test_a_log_is_no_terminal_whatever_colours_it_takes(photos: Path) -> None:
    done = batchlight("run", "--input", photos, "--workers", 0, FORCE_COLOR="1")
    assert done.returncode == 0
    assert "\x1b[?25l" not in done.stderr  # no cursor is hidden
    assert "━" not in done.stderr


def test_a_working_directory_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    line = f"cd {tmp_path}/gone && rmdir ../gone && {' '.join(COMMAND)} status {tmp_path}"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 2
    assert done.stderr.endswith(
        "error: the working directory was deleted; change to one that exists\n"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ü 漢字 \U0001f600", "plain ü 漢字 \U0001f600"),
        ("\x1b[2Jx", "\\x1b[2Jx"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b1m", "\\x9b1m"),
        ("a\nb\rc\td", "a\\x0ab\\x0dc\\x09d"),
        ("evil\u202egpj.exe", "evil\\u202egpj.exe"),
        ("\u2066a\u2069\u200f\u2028", "\\u2066a\\u2069\\u200f\\u2028"),
        ("half \udce9", "half \\xe9"),
    ],
)
def test_what_would_steer_a_terminal_is_escaped(text: str, expected: str) -> None:
    assert shown(text) == expected


STEERING = "\x1b]0;PWNED\x07\x1b[2J\u202e"


def test_no_command_passes_steering_text_on(photos: Path) -> None:
    """From options, lists, configs, schemes and names."""
    folder = photos.parent
    (folder / "l.txt").write_text(f"../{STEERING}x.jpg\n")
    (folder / "m.txt").write_text(f"a{STEERING}b://x/y.jpg\n")
    (folder / "n.txt").write_text(f"in/a/0000.jpg\nx/{STEERING}.jpg\ny/\u202egpj.jpg\n")
    (folder / "c.yaml").write_text('input: "in\\e[2J\\u202e"\n"omega\\e[2J\\u202e": 1\n')
    out = folder / "out"
    commands: list[tuple[object, ...]] = [
        *(("run", "--input", folder / f"{n}.txt", "--output", out, "--workers", 0) for n in "lmn"),
        ("run", "--config", folder / "c.yaml"),
        ("run", "--input", f"s3{STEERING}://b/c"),
        ("run", "--input", f"{folder}/{STEERING}.jpg"),
        ("run", "--input", photos, "--omega", STEERING),
        ("run", "--input", photos, "--workers", 0, "--include", STEERING),
        ("status", f"{folder}/{STEERING}"),
        ("failures", out),
        (STEERING,),
    ]
    for words in commands:
        done = batchlight_here(*words)
        for text in (done.stdout, done.stderr):
            assert not {"\x1b", "\x07", "\u202e"} & set(text), words


def test_an_option_that_is_given_twice(photos: Path) -> None:
    for words in (
        ("run", "--input", photos, "--input", photos),
        ("plan", "--input", photos, "--output", "a", "--output=b"),
        ("verify", photos, "--weights", 1, "--weights", 2),
        ("evaluate", "--enhanced", photos, "--reference", photos, "--reference", "x"),
        ("train", "--data", photos, "--out", "x", "--out", "y"),
        ("train", "--data", "x", "--out", "y", "--validation-data", "a", "--validation-data", "b"),
        ("run", "--input", photos, "--config", "a.yaml", "--config", "b.yaml"),
        ("run", "--input", photos, "--address", "local", "--address", "a:6379"),
    ):
        done = batchlight_here(*words)
        assert done.returncode == 2, words
        assert "is given 2 times; give it once" in done.stderr
    later = ("--omega", 0.5, "--omega", 0.6)  # which overrides, as from the words of a script
    assert batchlight_here("plan", "--input", photos, *later).returncode == 0
    repeatable = ("--include", "*.jpg", "--include", "a/", "--method", "classical")
    assert batchlight_here("plan", "--input", photos, *repeatable).returncode == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("input: in\nomega: 0.5\nomega: 0.6\n", "gives omega more than once"),
        ("input: in\nbatch-size: 2\nbatch_size: 3\n", "gives batch_size more than once"),
        ("input: " + "[" * 5000 + "\n", "is not valid YAML: maximum recursion depth"),
    ],
)
def test_a_config_that_says_two_things(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    done = batchlight_here("run", "--config", tmp_path / "c.yaml")
    assert done.returncode == 2
    assert says in done.stderr
