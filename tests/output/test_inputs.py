"""What a plan in an output names is read only if the command line names it too."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchlight
from batchlight.driver.repair import RepairOptions, repair
from batchlight.errors import UsageError
from batchlight.output.inputs import NOT_AN_IMAGE, NOT_COPIED, NOT_NAMED, Batch, DataSet, Input
from batchlight.report import write_report
from batchlight.storage import Location
from tests.support.helpers import dark_image, rows


def run(folder: Path, **options: Any) -> batchlight.Summary:
    settings: dict[str, Any] = {
        "input": str(folder / "in"), "output": str(folder / "out"), "workers": 0, "progress": "off",
    }  # fmt: skip
    return batchlight.run(batchlight.JobConfig(**settings | options))


@pytest.fixture
def crafted(tmp_path: Path) -> Path:
    """An output whose plan says that an image is really a secret one elsewhere."""
    for name, seed in (("in/a.png", 1), ("secret/x.png", 2)):
        (tmp_path / name).parent.mkdir()
        cv2.imwrite(str(tmp_path / name), dark_image(seed))
    run(tmp_path)
    (tmp_path / "out/classical/a.png").unlink()
    [chunk] = (tmp_path / "out/_batchlight/plan").glob("*/*.parquet")
    table = pq.read_table(chunk)
    at = table.schema.get_field_index("source")
    source = pa.array([str(tmp_path / "secret/x.png")], pa.string())
    pq.write_table(table.set_column(at, table.schema.field(at), source), chunk)
    return tmp_path


def published(folder: Path) -> bool:
    found = cv2.imread(str(folder / "out/classical/a.png"))
    secret = cv2.imread(str(folder / "secret/x.png"))
    if found is None or secret is None:
        return False
    return bool(np.corrcoef(found.ravel(), secret.ravel())[0, 1] > 0.5)


def test_a_repair_reads_no_source_that_the_input_does_not_name(crafted: Path) -> None:
    with pytest.raises(UsageError, match="must be named"):
        repair(str(crafted / "out"), RepairOptions(workers=0), on_problem=print, say=print)
    options = RepairOptions(input=str(crafted / "in"), workers=0)
    assert not repair(str(crafted / "out"), options, on_problem=print, say=print).sound
    assert not published(crafted)


def test_nor_does_a_run_that_goes_on(crafted: Path) -> None:
    [closed] = (crafted / "out/_batchlight/plan").glob("*.closed")
    [records] = (crafted / "out/metadata").iterdir()
    for path in (closed, records):
        os.remove(path)
    assert run(crafted).exit_code == 0  # the listing names the image itself
    assert not published(crafted)
    assert rows(crafted / "out")[0]["status"] == "ok"


def test_nor_does_a_report(crafted: Path) -> None:
    place = Location.parse(str(crafted / "in"))
    for data_set in (None, DataSet(place, place)):
        write_report(Location.parse(str(crafted / "out")), data_set)
        assert "data:image/webp" not in (crafted / "out/report.html").read_text()


def test_a_root_that_is_not_the_input(crafted: Path) -> None:
    options = RepairOptions(input=str(crafted / "secret"), workers=0)
    with pytest.raises(UsageError, match=r"holds the images of .*/in, not of .*/secret"):
        repair(str(crafted / "out"), options, on_problem=print, say=print)


@pytest.mark.parametrize(
    ("path", "source", "named"),
    [
        ("a.jpg", None, True),
        ("sub/a.PNG", None, True),
        ("lost+found/", None, True),
        ("a.jpg", "/etc/a.jpg", False),
        ("a.jpg", "s3://bucket/a.jpg", False),
        (".ssh/a.jpg", None, False),
        ("id_rsa", None, False),
        ("../a.jpg", None, False),
        ("_batchlight/a.jpg", None, False),
    ],
)
def test_what_a_folder_names(tmp_path: Path, path: str, source: str | None, named: bool) -> None:
    place = Location.parse(str(tmp_path))
    data_set, item = DataSet(place, place), Input(path, source, 5)
    assert data_set.names(item) == named
    [vetted] = data_set.vetted(Batch(0, ("classical",), (item,))).inputs
    why = NOT_COPIED if path == "id_rsa" else NOT_NAMED
    assert vetted == (item if named else Input(path, defect=why))


def test_what_is_to_be_copied() -> None:
    image, odd = Input("a.jpg"), Input("a.txt", defect="a name that cannot be used")
    listed = Input("a.txt", defect=NOT_AN_IMAGE)
    assert [item.is_other for item in (image, Input("a.txt"), odd, listed)] == [0, 1, 1, 0]
    for inputs, copies in (((odd, odd), True), ((image,), False), ((listed,), False), ((), False)):
        assert Batch(0, ("classical",), inputs).copies == copies
    # Earlier versions put those with odd names into batches of images.
    assert not Batch(0, ("classical",), (image, odd)).copies


def test_what_an_image_and_a_list_name(tmp_path: Path) -> None:
    place = Location.parse(str(tmp_path))
    one = DataSet(place, place.joined("a.jpg"))
    assert one.names(Input("a.jpg"))
    assert not one.names(Input("b.jpg"))
    (tmp_path / "l.txt").write_text("a.jpg\n/data/b.jpg\n")
    several = DataSet(place, place.joined("l.txt"))
    assert several.names(Input("a.jpg"))
    assert several.names(Input("data/b.jpg", "/data/b.jpg"))
    assert not several.names(Input("data/b.jpg"))
    assert not several.names(Input("a.jpg", "/data/a.jpg"))


def test_a_program_that_edits_its_list_works_with_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    listed = tmp_path / "in/list.txt"
    for name in "ab":
        cv2.imwrite(str(tmp_path / f"in/{name}.png"), dark_image(1, 20, 30))
        listed.write_text(f"{name}.png\n")
        assert run(tmp_path, input=str(listed)).ok == 1
    (tmp_path / "out/classical/b.png").unlink()
    options = RepairOptions(input=str(listed), workers=0)
    found = repair(str(tmp_path / "out"), options, on_problem=print, say=print)
    assert found.repaired == found.problems == 1


def test_a_list_is_not_sent_to_workers_with_its_data_set(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.png\nb.png\n")
    root = Location.parse(str(tmp_path))
    data_set = DataSet(root, root.joined("list.txt"))
    before = len(pickle.dumps(data_set))
    assert data_set.names(Input("a.png"))
    assert len(pickle.dumps(data_set)) == before
    assert pickle.loads(pickle.dumps(data_set)) == data_set
