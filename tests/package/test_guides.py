"""Every command, query and snippet of the documents, run in the order in which it is read.

A document's blocks share one folder, one shell's environment and one Python. ``sh``, ``python`` and
``sql`` are run; the other kinds are for what needs a cloud, a cluster or a person.
"""

from __future__ import annotations

import ast
import contextlib
import csv
import multiprocessing
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from shutil import copytree
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tests.support.helpers import (
    batchlight,
    dark_image,
    kill_with_all_below,
    tree,
    write_images,
)
from tests.support.parquets import hugging_face
from tests.support.s3_server import S3Server
from tests.support.tars import samples, write_tar

ROOT = Path(__file__).parents[2]
IN_EVERY_RUN = {"README.md", "docs/containers.md"}
DOCUMENTS = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
RUN_KINDS = ("sh", "python", "sql")
OTHER_KINDS = ("text", "yaml", "json", "csv", "dockerfile")

SKIPPED = {
    r"make (demo|test|install|benchmarks)\b": "it installs, or takes minutes; CI runs it",
    r"pip install\b": "it would change the environment that runs this; CI installs the wheel",
}
"""Commands that are not run, and why."""

SMALLEST_MODEL = ROOT / "batchlight/absgn/models/absgn-small.safetensors"
SHORTENED = {
    "batchlight train": "RAY_ADDRESS= batchlight train --epochs 1 --size 32 --weights "
    + str(SMALLEST_MODEL),
    "batchlight run": "batchlight run --workers 0",
}
"""What is typed instead, to take seconds; options that the document gives come later, and so count.

Training goes on from good weights, since an image that became darker is a failure. Runs start
workers only where the document says how many.
"""

WITHIN_S = 120


@dataclass(frozen=True)
class Block:
    """What stands between two fences."""

    kind: str
    text: str
    line: int


def blocks(document: str) -> list[Block]:
    text = (ROOT / document).read_text()
    found = re.finditer(r"^```(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE)
    return [Block(b[1].strip(), b[2], text.count("\n", 0, b.start()) + 1) for b in found]


# What the documents name

PHOTOS = 4


@dataclass(frozen=True)
class Made:
    """What is made once, and copied to where a document needs it."""

    folder: Path

    @cached_property
    def bright(self) -> Path:
        """An output of two runs, with several batches, a duplicate, and failures."""
        place = self.folder / "bright"
        photos = self.folder / "photos"
        options = (
            *("--output", place, "--workers", 0, "--max-failures", "100%"),
            "--batch-size",
            2,
        )
        write_photos(self.folder)
        for run in ("first", "second"):
            (photos / f"{run}.jpg").write_bytes(b"" if run == "first" else b"no image")
            done = batchlight("run", "--input", photos, *options)
            assert done.returncode == 0, done.stderr
        return place


def write_photos(folder: Path) -> None:
    """One of them twice."""
    first, *_ = write_images(folder / "photos", PHOTOS)
    (folder / "photos/copy.jpg").write_bytes(first.read_bytes())


def write_well_lit(folder: Path) -> None:
    for number, path in enumerate(write_images(folder / "well-lit", PHOTOS)):
        cv2.imwrite(str(path), brightened(dark_image(number)))


def write_pairs(folder: Path) -> None:
    for name in ("low", "high"):
        (folder / "pairs" / name).mkdir(parents=True)
    for number in range(4):
        dark = dark_image(number, 24, 24)
        cv2.imwrite(str(folder / f"pairs/low/{number}.png"), dark)
        cv2.imwrite(str(folder / f"pairs/high/{number}.png"), brightened(dark))


def brightened(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.clip(image.astype(np.int32) * 3, 0, 255).astype(np.uint8)


def write_config(folder: Path) -> None:
    (folder / "nightly.yaml").write_text("input: photos\noutput: nightly\nmax-failures: 1%\n")


def write_table(path: Path, *rows: tuple[str, ...]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def write_list(folder: Path) -> None:
    write_table(folder / "list.csv", ("path",), ("photos/a/0000.jpg",), ("photos/b/0001.jpg",))


def write_manifest(folder: Path) -> None:
    splits = {f"{'abc'[n % 3]}/{n:04d}.jpg": ("train", "test")[n % 2] for n in range(PHOTOS + 1)}
    rows = [(path, split, f"scene-{path[0]}") for path, split in splits.items()]
    write_table(folder / "manifest.csv", ("path", "split", "label"), *rows)


def write_shards(folder: Path) -> None:
    for number in range(2):
        shard = folder / f"shards/{number:05d}"
        write_tar(shard.with_suffix(".tar"), samples(5, 10 * number))
        write_table(shard.with_suffix(".parquet"), ("key", "url"))
        (folder / f"shards/{number:05d}_stats.json").write_text('{"successes": 5}')


def write_data_set(folder: Path) -> None:
    for number in range(2):
        hugging_face(folder / f"rooms/train-{number:05d}-of-00002.parquet", 5, 10 * number)


PREPARED: dict[str, Callable[[Path], None]] = {
    "photos": write_photos,
    "well-lit": write_well_lit,
    "pairs": write_pairs,
    "shards": write_shards,
    "rooms": write_data_set,
    "nightly.yaml": write_config,
    "list.csv": write_list,
    "manifest.csv": write_manifest,
}
"""Files and folders by the names that the documents give them."""

OBJECTS = "s3://bucket/raw"
"""Photos in an object store."""
OUTPUT = "s3://bucket/bright"

VARIABLES = {"image": "numpy.full((8, 8, 3), 20, numpy.uint8)"}
"""What a snippet takes as given."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("made"))


def is_named(name: str, text: str) -> bool:
    return bool(re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w-])", text))


def prepare(folder: Path, text: str, made: Made, s3_server: S3Server) -> None:
    """Make what a document names, and does not make itself."""
    names = [name for name in PREPARED if is_named(name, text)]
    if "photos" not in names and {"list.csv", "nightly.yaml"} & set(names):
        names.append("photos")
    for name in names:
        PREPARED[name](folder)
    if is_named("bright", text) and "--output bright" not in text:
        copytree(made.bright, folder / "bright")
    if OBJECTS in text:
        write_images(folder / "objects", 2)
        s3_server.put(tree(folder / "objects"), "raw", "bucket")
    if is_named(OUTPUT, text) and f"--output {OUTPUT}" not in text:
        s3_server.put({"there": b""}, bucket="bucket")
        if not s3_server.tree("bright", "bucket"):  # another document may have made one
            s3_server.put(tree(made.bright), "bright", "bucket")


# Ray, shell and Python


@pytest.fixture
def environment(
    s3_server: S3Server, shared_ray: str, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    """That of a reader who has installed batchlight, has credentials, and has a cluster."""
    given = {**s3_server.environment, "BASH_ENV": ""}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)


def runnable(text: str) -> str:
    """Commands without those that are skipped, and with less to do for those that take long."""
    lines = []
    for line in text.splitlines():
        skipped = any(re.match(pattern, line) for pattern in SKIPPED)
        lines.append(":" if skipped else line)
    script = "\n".join(lines)
    for command, instead in SHORTENED.items():
        script = re.sub(rf"(?m)^{command} ", f"{instead} ", script)
    return script


def run_in_shell(text: str, folder: Path) -> str:
    """Run commands where the ones before them left off; the first failure ends it.

    Returns what was printed.
    """
    state = folder.with_name(f"{folder.name}.state")
    before = f". {state}\n" if state.exists() else ""
    after = f"{{ export -p; printf 'cd %q\\n' \"$PWD\"; }} > {state}\n"
    tell = "trap 'echo \"FAILED: $BASH_COMMAND\" >&2' ERR\n"
    done = subprocess.run(
        ["bash", "-Eeuo", "pipefail", "-c", f"{before}{tell}{runnable(text)}\n{after}"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


class Python:
    """An interpreter that keeps its variables, as a notebook does."""

    def __init__(self, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=interpret, args=(other, str(folder)), daemon=True)
        self._process.start()

    def run(self, block: Block) -> list[int]:
        """How many rows each table has that a block makes, shows or writes."""
        self._connection.send(block)
        assert self._connection.poll(WITHIN_S), "it takes too long"
        counts: list[int] | str = self._connection.recv()
        assert not isinstance(counts, str), counts
        return counts

    def close(self) -> None:
        if self._process.is_alive():
            kill_with_all_below(self._process.pid or 0)
        self._process.join()


def interpret(connection: Connection, folder: str) -> None:
    """What runs in the process of a ``Python``: answers each block with numbers or a traceback."""
    os.chdir(folder)
    names: dict[str, Any] = {}
    while True:
        block: Block = connection.recv()
        try:
            with contextlib.redirect_stdout(sys.stderr):
                counts = query(block.text) if block.kind == "sql" else execute(block.text, names)
            connection.send(counts)
        except Exception:
            connection.send(traceback.format_exc())


def query(text: str) -> list[int]:
    """The number of rows of each query, in DuckDB's default database."""
    import duckdb

    counts: list[int] = []
    for statement in duckdb.extract_statements(text):
        if statement.type == duckdb.StatementType.SELECT:
            found = duckdb.sql(statement.query)
            assert found is not None
            counts.append(found.to_arrow_table().num_rows)
            continue
        done = duckdb.execute(statement).fetchall()
        if statement.type == duckdb.StatementType.COPY:
            counts.append(int(done[0][0]))
    return counts


def execute(text: str, names: dict[str, Any]) -> list[int]:
    """Execute a snippet; the number of rows of each table that it names or shows."""
    for name, expression in VARIABLES.items():
        if name not in names and is_named(name, text):
            names[name] = eval(expression, {"numpy": np})
    before = dict(names)
    shown = []
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.Expr):
            shown.append(eval(compile(ast.Expression(statement.value), "shown", "eval"), names))
        else:
            exec(compile(ast.Module([statement], []), "snippet", "exec"), names)
    new = [value for name, value in names.items() if before.get(name) is not value]
    return [len(value) for value in [*shown, *new] if is_table(value)]


def is_table(value: object) -> bool:
    return type(value).__name__ in ("DataFrame", "Series", "DuckDBPyRelation")


# Tests


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_says_what_it_is(document: str) -> None:
    assert (ROOT / document).read_text().count("```") == 2 * len(blocks(document))
    for block in blocks(document):
        assert block.kind in (*RUN_KINDS, *OTHER_KINDS), f"{document}:{block.line}"


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(d, marks=[] if d in IN_EVERY_RUN else [pytest.mark.nightly])
        for d in DOCUMENTS
        if any(b.kind in RUN_KINDS for b in blocks(d))
    ],
)
def test_what_a_document_tells_to_type_works(
    document: str,
    made: Made,
    s3_server: S3Server,
    environment: None,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    todo = [block for block in blocks(document) if block.kind in RUN_KINDS]
    prepare(folder, "\n".join(block.text for block in todo), made, s3_server)
    with contextlib.ExitStack() as exits:
        python: Python | None = None
        for block in todo:
            try:
                if block.kind == "sh":
                    run_in_shell(block.text, folder)
                    continue
                if python is None:
                    python = Python(folder)
                    exits.callback(python.close)
                counts = python.run(block)
                assert all(counts), f"rows: {counts}"
            except (AssertionError, subprocess.TimeoutExpired) as error:
                error.add_note(f"{document}:{block.line}\n{block.text}")
                raise


def test_a_command_that_fails_is_noticed(tmp_path: Path) -> None:
    run_in_shell("mkdir below\ncd below\nexport WORD=kept", tmp_path)
    assert run_in_shell('echo "$WORD $(basename "$PWD")"', tmp_path) == "kept below\n"
    for text in ("false\ntrue", "false | true", "echo $UNKNOWN", "(exit 3)", "no-such-command"):
        with pytest.raises(AssertionError):
            run_in_shell(text, tmp_path)


def test_a_query_that_finds_nothing_is_noticed(tmp_path: Path) -> None:
    assert query("CREATE VIEW one AS SELECT 1; FROM one; SELECT 1 WHERE false") == [1, 0]
    assert execute("import duckdb\nempty = duckdb.sql('SELECT 1 WHERE false')", {}) == [0]
    assert execute("import pandas\npandas.DataFrame({'a': [1, 2]})", {}) == [2]
