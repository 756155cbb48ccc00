"""Whole runs over Parquet files with images: what comes back, and what is recorded of it."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import datasets
import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import batchlight
from batchlight.driver.dry_run import dry_run
from batchlight.driver.preview import preview
from batchlight.driver.repair import RepairOptions, repair
from batchlight.errors import UsageError
from batchlight.shards import parquet_contents
from batchlight.shards.footer import Footer, read_footer
from batchlight.storage import streams
from batchlight.storage.base import Reader
from batchlight.training.evaluate import evaluate
from tests.driver.test_shards import problems, run
from tests.support.helpers import batchlight as command
from tests.support.helpers import bright_image, deadly, outcomes, rows, stable_rows, tree
from tests.support.parquets import IMAGE, hugging_face, write_parquet
from tests.support.s3_server import S3Server
from tests.support.tars import jpeg, samples, write_tar


def loaded(folder: Path, cache: Path) -> datasets.Dataset:
    """As a training would."""
    files = sorted(map(str, folder.rglob("*.parquet")))
    return datasets.load_dataset("parquet", data_files=files, cache_dir=str(cache), split="train")


def luminance(image: Image.Image) -> float:
    return float(np.asarray(image).mean())


def test_a_data_set_comes_back_with_its_images_enhanced(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    hugging_face(source / "train-0.parquet", 12)
    hugging_face(source / "deep/train-1.parquet", 7, 100)
    summary = run(source, out)
    assert (summary.exit_code, summary.containers) == (0, 2)
    assert (summary.inputs, summary.missing) == (12 + 12 + 7 + 7, 0)
    old, new = loaded(source, tmp_path / "c1"), loaded(out / "classical", tmp_path / "c2")
    assert new.features == old.features
    assert new["label"] == old["label"]
    assert new["caption"] == old["caption"]
    brighter = [
        luminance(b["image"]) > luminance(a["image"]) for a, b in zip(old, new, strict=True)
    ]
    assert sum(brighter) == summary.ok - sum(
        row["status"] == "ok" for row in rows(out) if "/frames/" in row["input"]
    )
    assert [len(row["frames"]) for row in new] == [len(row["frames"]) for row in old]


def test_a_row_tells_of_its_image(tmp_path: Path) -> None:
    hugging_face(tmp_path / "in/a.parquet", 11)
    run(tmp_path / "in", tmp_path / "out")
    path = tmp_path / "out/classical/a.parquet"
    old, new = (pq.read_table(p).to_pylist() for p in (tmp_path / "in/a.parquet", path))
    written = path.read_bytes()
    found = rows(tmp_path / "out")
    assert len(found) == 11 + 10
    for row in found:
        _, at, column, *number = row["input"].split("/")
        images = [table[int(at)][column] for table in (old, new)]
        if number:
            images = [image[int(number[0])] for image in images]
        hashes = [hashlib.sha256(image["bytes"]).hexdigest() for image in images]
        assert hashes == [row["input_sha256"], row["output_sha256"]]
        assert (row["input_bytes"], row["output_bytes"]) == tuple(len(i["bytes"]) for i in images)
        assert row["container_output_sha256"] == hashlib.sha256(written).hexdigest()
        assert row["output"] == "classical/a.parquet"
        assert (row["hashes differ"] if False else hashes[0] != hashes[1]) == (
            row["status"] == "ok"
        )
    lights = {row["batch_atmospheric_light"] for row in found}
    assert len(lights) == -(-21 // 4)


def test_bright_images_alone_come_back_byte_for_byte(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    images = [jpeg(n, bright=True) for n in range(9)]
    frame = pd.DataFrame({"jpg": images, "key": range(9)})
    frame.to_parquet(source / "pandas.parquet")
    duckdb.from_df(frame).write_parquet(str(source / "duckdb.parquet"))
    pq.write_table(pa.table({"jpg": images}), source / "pyarrow.parquet", row_group_size=4)
    assert run(source, out).skipped == 27
    assert tree(out / "classical") == tree(source)


def test_what_is_no_container_of_images_is_left_alone(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    write_tar(source / "00000.tar", samples(3))
    pq.write_table(pa.table({"key": ["0", "1", "2"]}), source / "00000.parquet")
    (source / "loose").mkdir()
    (source / "loose/a.jpg").write_bytes(jpeg(1))
    pq.write_table(pa.table({"label": [1]}), source / "loose/labels.parquet")
    hugging_face(source / "hf/a.parquet", 3)
    summary = run(source, out)
    assert (summary.exit_code, summary.containers, summary.inputs) == (0, 2, 3 + 1 + 3 + 3)
    assert sorted(tree(out / "classical")) == [
        "00000.parquet",
        "00000.tar",
        "hf/a.parquet",
        "loose/a.jpg",
    ]
    assert dict(summary.passed_over) == {".parquet": 1}
    before = (out / "classical/hf/a.parquet").stat().st_mtime_ns
    assert run(source, out).done_now == 0
    assert (out / "classical/hf/a.parquet").stat().st_mtime_ns == before


def test_what_lies_beside_goes_along(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    hugging_face(source / "a.parquet", 3)
    write_tar(source / "b.tar", samples(3))
    (source / "README.md").write_text("a card")
    (source / "a_stats.json").write_text("{}")
    pq.write_table(pa.table({"key": ["x"]}), source / "b.parquet")
    pq.write_table(pa.table({"embedding": [b"\x80" * 99]}), source / "b.tar_embeddings.parquet")
    run(source, out)
    calm = tree(out / "classical")
    assert sorted(calm) == sorted(tree(source))
    for name in ("README.md", "a_stats.json", "b.parquet", "b.tar_embeddings.parquet"):
        assert calm[name] == (source / name).read_bytes()
    for name in ("a.parquet", "b.tar"):
        assert calm[name] != (source / name).read_bytes()
    run(source, out)
    assert tree(out / "classical") == calm
    only = tmp_path / "only"
    hugging_face(only / "a.parquet", 3)
    (only / "README.md").write_text("a card")
    assert run(only, tmp_path / "out2").exit_code == 0
    assert (tmp_path / "out2/classical/README.md").read_text() == "a card"


def test_a_damaged_file_fails_as_a_whole(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    hugging_face(source / "a.parquet", 3)
    data = (source / "a.parquet").read_bytes()
    (source / "b.parquet").write_bytes(data[:-500])
    (source / "c.parquet").write_bytes(b"")
    (source / "d.parquet").write_bytes(data[:4] + b"\xff" * 30 + data[34:])
    summary = run(source, out)
    assert (summary.exit_code, summary.failed) == (3, 3)
    found = {name: row.error_code for name, row in outcomes(out).items() if row.error_code}
    assert found == {"b.parquet": "corrupt", "c.parquet": "empty", "d.parquet": "corrupt"}
    assert sorted(tree(out / "classical")) == ["a.parquet"]


def test_binaries_that_are_no_images_go_through(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    table = pa.table({"pickled": [b"\x80\x04K\x01."] * 5, "n": range(5)})
    pq.write_table(table, source / "a.parquet")
    summary = run(source, out)
    assert (summary.exit_code, summary.skipped) == (0, 1)
    assert tree(out / "classical") == tree(source)


def test_images_that_hugging_face_stores_as_bytes(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    features = datasets.Features({"jpg": datasets.Value("binary"), "n": datasets.Value("int64")})
    columns = {"jpg": [jpeg(n) for n in range(3)], "n": list(range(3))}
    datasets.Dataset.from_dict(columns, features).to_parquet(source / "a.parquet")
    (source / "b.jpg").write_bytes(jpeg(4))
    assert run(source, out).ok == 4
    assert loaded(out / "classical", tmp_path / "cache").features == features


def test_one_file_is_an_input_and_a_list_is_a_list(tmp_path: Path) -> None:
    hugging_face(tmp_path / "a.parquet", 3)
    assert run(tmp_path / "a.parquet", tmp_path / "out").inputs == 6
    assert (tmp_path / "out/classical/a.parquet").exists()
    pq.write_table(pa.table({"path": ["a.parquet"]}), tmp_path / "list.parquet")
    assert run(tmp_path / "list.parquet", tmp_path / "out2").inputs == 6
    assert tree(tmp_path / "out2/classical") == tree(tmp_path / "out/classical")


def test_columns_may_be_named_or_left_out(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    columns = {name: [jpeg(n) for n in range(4)] for name in ("image", "mask", "depth")}
    pq.write_table(pa.table(columns), source / "a.parquet")
    run(source, tmp_path / "a", image_column=("image", "depth"))
    run(source, tmp_path / "b", exclude=("mask",))
    assert tree(tmp_path / "a/classical") == tree(tmp_path / "b/classical")
    table = pq.read_table(tmp_path / "a/classical/a.parquet")
    assert table["mask"].to_pylist() == columns["mask"]
    assert table["depth"].to_pylist() != columns["depth"]


def test_a_column_that_no_file_has_is_refused_before_anything_is_lost(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for number in range(2):
        write_parquet(source / f"{number}.parquet", range(2))
    run(source, out, image_column=("image",))
    before = tree(out)
    for names in (("imgae",), ("image", "imgae")):
        job = batchlight.JobConfig(input=str(source), output=str(out), image_column=names)
        for refused in (
            lambda names=names: run(source, out, image_column=names),
            lambda names=names: run(source, tmp_path / "new", image_column=names),
            lambda job=job: dry_run(job),
            lambda job=job: preview(job, page=str(tmp_path / "p.html")),
        ):
            with pytest.raises(UsageError, match=r"imgae: .* 2 Parquet files .*; there is image$"):
                refused()
    assert tree(out) == before
    assert not (tmp_path / "new").exists()


def test_a_file_without_the_column_that_others_have_fails_alone(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    write_parquet(source / "a.parquet", range(2))
    pq.write_table(pa.table({"photo": [jpeg(3)]}), source / "b.parquet")
    assert run(source, out, image_column=("photo",)).exit_code == 3
    found = outcomes(out)
    assert found["a.parquet"].error_code == "unsupported"
    assert found["b.parquet/0/photo"].status == "ok"


def test_failed_images_stay_in_their_place(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    images = [
        {"bytes": jpeg(1), "path": None},
        {"bytes": jpeg(2)[:200], "path": "2.jpg"},
        {"bytes": None, "path": "3.jpg"},
        {"bytes": b"", "path": None},
        None,
    ]
    pq.write_table(pa.table({"image": pa.array(images, IMAGE)}), source / "a.parquet")
    assert run(source, out).exit_code == 3
    found = pq.read_table(out / "classical/a.parquet")["image"].to_pylist()
    assert found[0]["bytes"] != images[0]["bytes"]  # type: ignore[index]
    assert found[1:] == images[1:]
    codes = {row["input"]: row["error_code"] for row in rows(out)}
    assert codes == {
        "a.parquet/0/image": None,
        "a.parquet/1/image": "corrupt",
        "a.parquet/2/image": "unsupported",
        "a.parquet/3/image": "empty",
    }
    text = command("failures", out).stdout
    assert "which only names 3.jpg" in text


@pytest.mark.parametrize(
    "options",
    [{"failed_images": "drop"}, {"not_dark": "leave-out"}, {"format": "png"}],
)
def test_rows_are_never_left_out(options: dict[str, Any], tmp_path: Path) -> None:
    hugging_face(tmp_path / "in/a.parquet", 2)
    with pytest.raises(UsageError, match=r"a\.parquet"):
        run(tmp_path / "in", tmp_path / "out", **options)


@pytest.mark.parametrize(
    "methods",
    [("classical",), pytest.param(("classical", "absgn"), marks=pytest.mark.nightly)],
)
def test_methods_workers_and_object_stores_agree(
    methods: tuple[str, ...],
    tmp_path: Path,
    shared_ray: str,
    s3: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = tmp_path / "in"
    hugging_face(source / "a.parquet", 9)
    write_tar(source / "b.tar", samples(4))
    (source / "c.jpg").write_bytes(jpeg(5))
    how: dict[str, Any] = {"method": methods, "model": "absgn-small", "device": "cpu"}
    run(source, tmp_path / "out", **how)
    monkeypatch.setattr(streams, "BLOCK_BYTES", 3000)
    place = f"parquet-{len(methods)}"
    s3.put(tree(source), place)
    run(f"s3://data/{place}", f"s3://data/{place}-out", **how)
    run(source, tmp_path / "two", **how, workers=2, address=shared_ray)
    for method in methods:
        expected = tree(tmp_path / "out" / method)
        assert sorted(expected) == ["a.parquet", "b.tar", "c.jpg"]
        assert tree(tmp_path / "two" / method) == expected
        assert s3.tree(f"{place}-out/{method}") == expected
    assert stable_rows(tmp_path / "two") == stable_rows(tmp_path / "out")


@pytest.mark.nightly
def test_killers_in_a_file_are_found(tmp_path: Path) -> None:
    hugging_face(tmp_path / "in/a.parquet", 6)
    orders = {hashlib.sha256(jpeg(3)).hexdigest(): "segfault"}
    out = tmp_path / "out"
    done = command(
        *("run", "--input", tmp_path / "in", "--output", out, "--workers", 1, "--batch-size", 4),
        **deadly(tmp_path / "orders", orders),
    )
    assert done.returncode == 3, done.stderr
    found = {name: row.error_code for name, row in outcomes(out).items() if row.error_code}
    assert found == {"a.parquet/3/image": "crash"}


def test_what_is_damaged_is_found_and_made_again(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    hugging_face(source / "a.parquet", 7)
    run(source, out)
    path = out / "classical/a.parquet"
    good = path.read_bytes()
    at = good.index(pq.read_table(path)["image"][2].as_py()["bytes"])
    path.write_bytes(good[: at + 99] + bytes([good[at + 99] ^ 1]) + good[at + 100 :])
    found = problems(out)
    assert [problem.trouble for problem in found] == ["altered"]
    assert "differences in 1 image, such as a.parquet/2/image" in found[0].detail
    repair(
        str(out), RepairOptions(input=str(source), workers=0), on_problem=found.append, say=print
    )
    assert path.read_bytes() == good


def test_plan_tells_what_there_is(tmp_path: Path) -> None:
    hugging_face(tmp_path / "in/a.parquet", 6)
    pq.write_table(pa.table({"jpg": [jpeg(1), None]}), tmp_path / "in/b.parquet")
    found = dry_run(
        batchlight.JobConfig(input=str(tmp_path / "in"), output=str(tmp_path / "out"), workers=0),
        estimate=True,
    )
    assert (found.containers, found.inputs) == (2, 6 + 6 + 1)
    assert found.in_containers.suffixes == {"image": 6, "frames": 6, "jpg": 1}
    assert found.estimate is not None
    assert not found.in_containers.exact  # of lists, the footer counts empty ones too


def test_the_report_and_scores_see_images_in_parquet(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    pq.write_table(pa.table({"image": [jpeg(n) for n in range(4)]}), source / "a.parquet")
    done = command("run", "--input", source, "--output", out, "--workers", 0)
    assert "WARNING" not in done.stderr
    assert (out / "report.html").read_text().count("data:image/webp") >= 4
    page = batchlight.make_report(str(out), input=str(source))
    assert Path(page).read_text().count("data:image/webp") >= 4
    scores = evaluate(str(source), str(out / "classical"))
    assert scores.images == 4
    done = command("preview", "--input", source, "--output", tmp_path / "page.html", "--images", 2)
    assert done.returncode == 0, done.stderr


def test_a_damaged_file_fails_alone(tmp_path: Path) -> None:
    """Whatever is wrong with it: here, a field of a page's header has another type."""
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    table = pa.table({"image": [jpeg(1), jpeg(2)]})
    for name in ("a.parquet", "b.parquet"):
        pq.write_table(table, source / name)
    data = (source / "a.parquet").read_bytes()
    header = b"\x2c\x15\x04\x15\x10"  # two values, as numbers of a dictionary
    assert data.count(header) == 1
    (source / "a.parquet").write_bytes(data.replace(header, b"\x2c\x15\x04\x18\x00"))
    planned = command("plan", "--input", source)
    assert planned.returncode == 0, planned.stderr
    assert run(source, out).exit_code == 3
    found = {name: row.error_code for name, row in outcomes(out).items()}
    assert found == {"a.parquet": "corrupt", "b.parquet/0/image": None, "b.parquet/1/image": None}
    assert batchlight.make_report(str(out), input=str(source))
    assert evaluate(str(source), str(out / "classical")).images == 2


def test_the_report_says_why_an_image_is_not_there(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    images = [{"bytes": jpeg(1), "path": "1.jpg"}, {"bytes": None, "path": "2.jpg"}]
    pq.write_table(pa.table({"image": pa.array(images, IMAGE)}), source / "a.parquet")
    run(source, out)
    page = Path(batchlight.make_report(str(out), input=str(source))).read_text()
    assert "its bytes are not in the file, which only names 2.jpg" in page


def test_a_report_reads_the_footer_of_a_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    table = pa.table({"image": [jpeg(n) for n in range(6)]})
    pq.write_table(table, source / "a.parquet", row_group_size=1)
    run(source, out)
    read: list[str] = []

    def counted(reader: Reader) -> Footer:
        read.append("a footer")
        return read_footer(reader)

    monkeypatch.setattr(parquet_contents, "read_footer", counted)
    page = Path(batchlight.make_report(str(out), input=str(source))).read_text()
    assert page.count("data:image/webp") >= 6
    assert len(read) == 2  # of the original and of the result


def test_columns_of_one_name(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    columns = [pa.array([jpeg(n)]) for n in range(2)]
    pq.write_table(pa.Table.from_arrays(columns, ["image", "image"]), source / "a.parquet")
    run(source, out)
    assert [row["input"] for row in rows(out)] == ["a.parquet/0/image", "a.parquet/0/image#2"]
    table = pq.ParquetFile(out / "classical/a.parquet").read()
    found = [hashlib.sha256(table.column(at)[0].as_py()).hexdigest() for at in range(2)]
    assert found == [row["output_sha256"] for row in rows(out)]


def test_names_that_are_only_equal_in_dots(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    struct = pa.array([{"image": jpeg(1)}], pa.struct([("image", pa.binary())]))
    table = pa.table({"meta.image": [jpeg(0)], "meta": struct})
    pq.write_table(table, source / "a.parquet")
    run(source, out)
    new = pq.read_table(out / "classical/a.parquet")
    found = [new["meta.image"][0].as_py(), new["meta"][0].as_py()["image"]]
    assert [(row["input"], row["input_sha256"], row["output_sha256"]) for row in rows(out)] == [
        (name, *(hashlib.sha256(data).hexdigest() for data in (jpeg(number), found[number])))
        for number, name in enumerate(["a.parquet/0/meta.image", "a.parquet/0/meta.image#2"])
    ]


def test_a_new_version_of_a_file_is_done_again(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    hugging_face(source / "a.parquet", 3)
    run(source, out)
    hugging_face(source / "a.parquet", 5)
    assert run(source, out).done_now == 5 + 4
    assert len(rows(out)) == 5 + 4
    assert len(outcomes(out)) == 9


def test_images_in_other_formats_keep_them(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    images = []
    for format in ("PNG", "WEBP", "JPEG"):
        file = io.BytesIO()
        with Image.open(io.BytesIO(jpeg(1))) as image:
            image.save(file, format)
        images.append(file.getvalue())
    file = io.BytesIO()
    Image.fromarray(bright_image(1)).save(file, "PNG")
    pq.write_table(pa.table({"image": [*images, file.getvalue()]}), source / "a.parquet")
    run(source, out)
    found = pq.read_table(out / "classical/a.parquet")["image"].to_pylist()
    formats = []
    for data in found:
        with Image.open(io.BytesIO(data)) as image:
            formats.append(image.format)
    assert formats == ["PNG", "WEBP", "JPEG", "PNG"]
    assert found[3] == file.getvalue()
