"""Whatever lies in an output, commands end well or with a sentence, never with a Python error."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchlight
from batchlight.driver.dry_run import dry_run
from batchlight.driver.repair import RepairOptions, repair
from batchlight.driver.verify import verify
from batchlight.errors import BatchlightError
from batchlight.output.moving import failed_rows
from batchlight.output.status import open_output, read_status
from batchlight.report import write_report
from batchlight.storage import Location
from tests.support.helpers import write_images

ODD_JSON: list[Any] = [
    *(None, [], {}, 0, -1, 1e300, 10**30, True, "", "x", "../../x", "\x1b[2J", [[]], [{}]),
    *({"a": 1}, {"first": -1}, [{"first": 0, "last": 10**12}]),
]
ODD_BYTES = [
    *(
        b"",
        b"\0",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b'"x"',
        b"PAR1",
        b"PAR1" * 9,
        b"\xff\xfe",
        b"[" * 9999,
    ),
    *(b'{"version": 99}', b'{"version": null}', b"0000000000-9999999999.parquet\n", b"\n" * 99),
]
ODD_NAMES = [
    *("metadata/2024-01.parquet", "metadata/0000000000-9999999999.parquet", "metadata/a.parquet"),
    *("metadata/0000000005-0000000002.parquet", "metadata/_SUCCESS", "metadata/x/y.parquet"),
    *("_batchlight/plan/x.json", "_batchlight/plan/0000000099.json", "_batchlight/plan/7.json"),
    *("_batchlight/plan/" + "9" * 30 + ".json", "_batchlight/plan/0000000000.closed"),
    *("_batchlight/locks/x.json", "_batchlight/locks/0000000099.json", "_batchlight/locks/9.json"),
    *("_batchlight/parts/0000000000.parquet", "_batchlight/parts/x.parquet", "_batchlight/new"),
    *("_batchlight/parts/00000000000000000000000001.parquet", "classical/new.jpg", "junk"),
    *("_batchlight/plan/0000000000/0000000000-9999999999.parquet", "_batchlight/tmp/somebody's"),
]


def with_odd_value(value: Any, dice: random.Random) -> Any:
    """A JSON value, one of whose parts is another."""
    if isinstance(value, dict) and value and dice.random() < 0.9:
        key = dice.choice(sorted(value))
        if dice.random() < 0.15:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: with_odd_value(value[key], dice)}
    if isinstance(value, list) and value and dice.random() < 0.8:
        at = dice.randrange(len(value))
        return [*value[:at], with_odd_value(value[at], dice), *value[at + 1 :]]
    return dice.choice(ODD_JSON)


def with_odd_column(data: bytes, dice: random.Random) -> bytes:
    """A table, one of whose columns is gone, or holds other values or types."""
    table = pq.read_table(io.BytesIO(data))
    at = dice.randrange(table.num_columns)
    field = table.schema.field(at)
    rows = table.num_rows
    columns: list[pa.Array] = [
        pa.nulls(rows, field.type),
        pa.array([dice.choice(["", "x", "../../x", "a\nb", "\x1b", "ok", "failed"])] * rows),
        pa.array([dice.choice([-1, 0, 2**62])] * rows),
        pa.array([[{"a": 1}]] * rows),
        pa.array([float("nan")] * rows),
    ]
    kind = dice.randrange(len(columns) + 2)
    if kind == len(columns):
        table = table.drop_columns([field.name])
    elif kind == len(columns) + 1:
        table = dice.choice([table.slice(0, 0), pa.concat_tables([table, table])])
    else:
        table = table.set_column(at, field.name, columns[kind])
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def damage(out: Path, dice: random.Random) -> str:
    """Change one thing, whatever comes to mind; says what."""
    files = sorted(path for path in out.rglob("*") if path.is_file())
    folders = sorted(path for path in out.rglob("*") if path.is_dir())
    path = dice.choice(files)
    data = path.read_bytes()
    kind = dice.randrange(12)
    if kind == 0:
        path.unlink()
    elif kind == 1:
        path.write_bytes(data[: dice.randrange(len(data) + 1)])
    elif kind == 2:
        path.write_bytes(dice.choice(ODD_BYTES))
    elif kind == 3 and data:
        changed = bytearray(data)
        for _ in range(dice.randrange(1, 9)):
            changed[dice.randrange(len(changed))] = dice.randrange(256)
        path.write_bytes(changed)
    elif kind in (4, 5, 6):
        path = dice.choice([file for file in files if file.suffix == ".json"])
        with contextlib.suppress(ValueError):
            path.write_text(json.dumps(with_odd_value(json.loads(path.read_bytes()), dice)))
    elif kind in (7, 8):
        path = dice.choice([file for file in files if file.suffix == ".parquet"])
        with contextlib.suppress(pa.ArrowException, OSError):
            path.write_bytes(with_odd_column(path.read_bytes(), dice))
    elif kind == 9:
        path = out / dice.choice(ODD_NAMES)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dice.choice([*ODD_BYTES, *(file.read_bytes() for file in files)]))
    elif kind == 10:
        path = dice.choice(folders)
        shutil.rmtree(path)
        if dice.random() < 0.3:
            path.write_bytes(b"no folder")
    else:
        path.unlink()
        make: Callable[[], object] = dice.choice(
            [
                path.mkdir,
                lambda: path.symlink_to("/etc/hostname"),
                lambda: os.mkfifo(path),
                lambda: shutil.copy(dice.choice(files[1:]), path),
            ]
        )
        with contextlib.suppress(OSError):
            make()
    return f"{kind} {path.relative_to(out)}"


def look(out: Path, photos: Path) -> dict[str, Callable[[], object]]:
    """What only looks, but for the report and a rebuilt part of the records."""
    config = batchlight.JobConfig(
        input=str(photos), output=str(out), workers=0, progress="off", batch_size=2
    )

    def failures() -> object:
        return list(failed_rows(open_output(str(out))))

    def report() -> object:
        open_output(str(out))
        return write_report(Location.parse(str(out)))

    options = RepairOptions(input=str(photos), workers=0)
    return {
        "status": lambda: read_status(str(out)),
        "verify": lambda: verify(str(out), on_problem=lambda _: None),
        "failures": failures,
        "plan": lambda: dry_run(config),
        "report": report,
        "repair": lambda: repair(str(out), options, on_problem=lambda _: None, say=lambda _: None),
        "run": lambda: batchlight.run(config),
    }


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One that is finished, of two plans, and one that is in the middle of its second."""
    folder = tmp_path_factory.mktemp("outputs")
    photos = folder / "in"
    write_images(photos, 5, height=8, width=8)
    (photos / "broken.jpg").write_bytes(b"none")
    settings: dict[str, Any] = {"workers": 0, "progress": "off", "batch_size": 2}

    def run(out: Path, **options: Any) -> None:
        config = batchlight.JobConfig(input=str(photos), output=str(out), **settings | options)
        batchlight.run(config)

    finished, stopped = folder / "finished", folder / "stopped"
    for out in (finished, stopped):
        run(out)
    write_images(photos, 8, height=8, width=8)
    (photos / "a/0000.png").write_bytes(b"none")
    run(finished)
    run(stopped, retry_failed=True, fail_fast=True)
    return [finished, stopped]


def check(outputs: list[Path], place: Path, seed: int) -> None:
    dice = random.Random(seed)
    source = dice.choice(outputs)
    out = place / "out"
    shutil.copytree(source, out)
    done = [damage(out, dice) for _ in range(dice.choice([1, 1, 1, 2, 4]))]
    for name, command in look(out, source.parent / "in").items():
        try:
            with contextlib.suppress(BatchlightError):
                command()
        except Exception as error:
            raise AssertionError(f"seed {seed}: {name} after {done}: {error!r}") from error
    shutil.rmtree(out)


@pytest.mark.parametrize(
    "block", [0, *(pytest.param(block, marks=pytest.mark.nightly) for block in (1, 2, 3))]
)
def test_any_content(outputs: list[Path], tmp_path: Path, block: int) -> None:
    for seed in range(25 * block, 25 * (block + 1)):
        check(outputs, tmp_path, seed)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("block", range(9))
def test_any_content_at_length(outputs: list[Path], tmp_path: Path, block: int) -> None:
    for seed in range(100 * (block + 1), 100 * (block + 2)):
        check(outputs, tmp_path, seed)
