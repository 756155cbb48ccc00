"""The config: ranges, the YAML file, fingerprints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from batchlight.config import METHODS, JobConfig, Method
from batchlight.errors import UsageError
from batchlight.options import make_config


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"omega": "7"}, "--omega is '7', but must be 'auto' or a number above 0 and up to 1"),
        ({"workers": "-1"}, "--workers is '-1', but must be at least 0"),
        ({"atmospheric_light": "300"}, "must be 'batch', 'image' or a number from 1 to 255"),
        ({"atmospheric_light": "1e-300"}, "a number from 1 to 255"),
        ({"atmospheric_light": "dim"}, "must be 'batch', 'image' or a number"),
        ({"atmospheric_light": "nan"}, "a number from 1 to 255"),
        ({"max_failures": "many"}, "must be a number of images such as 10, or a percentage"),
        ({"max_failures": "nan%"}, "a percentage such as 5%"),
        ({"max_failures": "101%"}, "a percentage such as 5%"),
        ({"quality": "0"}, "--quality is '0'"),
        ({"format": "gif"}, "--format is 'gif'"),
        ({"method": ["magic"]}, "--method is 'magic'"),
        ({"method": [{"classical": None}]}, "--method is {'classical': None}, but must be"),
        ({"method": {"classical": None}}, "--method is {'classical': None}, but must be"),
        ({"method": [["classical"]]}, "--method is ['classical'], but must be"),
        ({"method": []}, "must name at least one method"),
        ({"strength": "1.1"}, "--strength is '1.1', but must be at most 1"),
        ({"target_luminance": "1"}, "--target-luminance is '1', but must be less than 1"),
        ({"target_luminance": "0"}, "--target-luminance is '0', but must be greater than"),
        ({"not_dark": "skip"}, "--not-dark is 'skip', but must be 'copy', 'leave-out' or"),
        ({"limit": "0"}, "--limit is '0', but must be at least 1"),
        ({"bogus": 1}, "unknown option bogus; see 'batchlight run --help'"),
        ({"input": ""}, "--input is ''"),
        (
            {"timeout": "1e10"},
            "--timeout is '1e10', but must be at most 604800",
        ),
        ({"timeout": "inf"}, "--timeout is 'inf', but must be"),
        ({"timeout": "nan"}, "--timeout is 'nan', but must be"),
        ({"workers": "two"}, "--workers is 'two', but must be a whole number"),
        ({"workers": 1.5}, "--workers is 1.5, but must be a whole number"),
        ({"t0": "low"}, "--t0 is 'low', but must be a number"),
        ({"batch_size": True}, "--batch-size is True, but must be a number"),
        ({"exclude": 7}, "--exclude is 7, but must be a string or a list of strings"),
        ({"exclude": [7]}, "--exclude is 7, but must be a string"),
        ({"overwrite": "maybe"}, "--overwrite is 'maybe', but must be true or false"),
        *(
            ({name: truth}, f"--{name} is {truth}, but must be")
            for name in ("workers", "quality", "limit", "strength", "t0", "omega", "tile")
            for truth in (True, False)
        ),
    ],
)
def test_a_wrong_value_is_one_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_config(JobConfig, {"input": "in", **given})
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [{"output": "a\0b"}, {"include": ["a\0b"]}, {"address": "a\0b"}, {"weights": Path("a\0b")}],
)
def test_no_value_contains_a_nul(given: dict[str, Any]) -> None:
    """The system could not open such a path."""
    with pytest.raises(ValidationError, match="must not contain a NUL character"):
        JobConfig(**{"input": "in", **given})
    with pytest.raises(UsageError, match=r"but must not contain a NUL character") as caught:
        make_config(JobConfig, {"input": "in", **given})
    assert str(caught.value).isprintable()


def test_places_may_be_paths() -> None:
    places: dict[str, Any] = {name: Path("a/b") for name in ("input", "output", "weights")}
    config = JobConfig(**places)
    assert (config.input, config.output, config.weights) == ("a/b", "a/b", "a/b")
    with pytest.raises(UsageError, match="--input is 3"):
        make_config(JobConfig, {"input": 3})


def test_input_is_required() -> None:
    with pytest.raises(UsageError, match="--input is required"):
        make_config(JobConfig, {})


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("input: photos\nbatch-size: 8\nomega: 0.5\nmethod: classical\ninclude: '*.jpg'")
    config = make_config(JobConfig, {"omega": "0.6"}, str(file))
    assert config == JobConfig(input="photos", batch_size=8, omega=0.6, include=("*.jpg",))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("input: [", "is not valid YAML"),
        ("- a list", "must be a mapping of option names to values"),
        ("input: x\ncolour: red", "unknown option colour"),
        ("input: x\nworkers: many", "--workers is 'many'"),
        ('input: x\noutput: "a\\0b"', r"--output is 'a\\x00b', but must not contain a NUL"),
        (
            'input: x\ninclude: ["a", "\\0"]',
            "--include is .*, but must not contain a NUL character",
        ),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=sentence) as caught:
        make_config(JobConfig, {}, str(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["", '""', "0"])
def test_only_false_is_off(tmp_path: Path, value: str) -> None:
    (tmp_path / "job.yaml").write_text(f"input: x\nprogress: {value}")
    with pytest.raises(UsageError, match=r"--progress is (None|''|0), but must be 'auto', 'json'"):
        make_config(JobConfig, {}, str(tmp_path / "job.yaml"))


def test_yaml_takes_off_for_false(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("input: x\nprogress: off")
    assert make_config(JobConfig, {}, str(tmp_path / "job.yaml")).progress == "off"


def test_a_missing_file_is_one_sentence() -> None:
    with pytest.raises(UsageError, match=r"cannot read the config file nowhere\.yaml"):
        make_config(JobConfig, {}, "nowhere.yaml")


BASE = JobConfig(input="in")


@pytest.mark.parametrize(
    "change",
    [
        {"omega": 0.5},
        {"t0": 0.2},
        {"window": 15},
        {"denoise": "none"},
        {"atmospheric_light": "image"},
        {"atmospheric_light": 255},
        {"batch_size": 32},
        {"format": "png"},
        {"quality": 90},
        {"max_pixels": 1000},
        {"strength": 0.5},
        {"not_dark": "leave-out"},
        {"target_luminance": 0.3},
    ],
)
def test_what_decides_pixels_changes_the_fingerprint(change: dict[str, Any]) -> None:
    changed = JobConfig(input="in", **change).fingerprint("classical")
    base = BASE.fingerprint("classical")
    assert changed.digest != base.digest
    name = next(iter(change)).replace("_", "-")
    assert any(text.startswith(name) for text in changed.changes_since(base))


@pytest.mark.parametrize(
    "same",
    [
        {"workers": 7},
        {"timeout": 5},
        {"address": "auto"},
        {"progress": "off"},
        {"max_failures": "5%"},
        {"include": ("*.jpg",)},
        {"limit": 3},
        {"strength": 1},
        {"omega": "auto"},
    ],
)
def test_what_does_not_leaves_it(same: dict[str, Any]) -> None:
    config = JobConfig(input="in", **same)
    assert config.fingerprint("classical").digest == BASE.fingerprint("classical").digest


@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_used_is_not_named(method: Method) -> None:
    """So that outputs of versions without an option can be gone on with."""
    plain = JobConfig(input="in", not_dark="enhance", omega=0.93).fingerprint(method)
    assert not {"strength", "not-dark", "target-luminance"} & {*plain.parameters}
    other = JobConfig(
        input="in", not_dark="enhance", omega=0.93, target_luminance=0.2, strength=1.0
    )
    assert other.fingerprint(method).digest == plain.digest
    copying = JobConfig(input="in", omega=0.93, strength=0.5).fingerprint(method)
    assert copying.parameters["not-dark"] == "copy"
    assert copying.parameters["target-luminance"] == 0.45
    assert copying.changes_since(plain)[0] == "not-dark enhance -> copy"
    assert plain.changes_since(copying)[1] == "strength 0.5 -> 1"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("not_dark", ["copy", "leave-out", "enhance"])
def test_a_fingerprint_tells_its_options(method: Method, not_dark: Any) -> None:
    config = JobConfig(input="in", method=(method,), not_dark=not_dark, strength=0.25, omega=0.5)
    options = config.fingerprint(method).options
    for name in ("method", "algorithm"):
        del options[name]
    again = JobConfig(input="in", method=(method,), **options)
    assert again.fingerprint(method) == config.fingerprint(method)


@pytest.mark.parametrize(
    ("not_dark", "luminance", "dark"),
    [
        ("copy", 0.449, True),
        ("copy", 0.45, False),
        ("leave-out", 0.45, False),
        ("enhance", 1, True),
    ],
)
def test_who_is_dark(not_dark: Any, luminance: float, dark: bool) -> None:
    assert JobConfig(input="in", not_dark=not_dark).is_dark(luminance) == dark


@pytest.mark.parametrize(
    ("options", "algorithm"),
    [
        ({"window": 20, "denoise": "none", "omega": 0.9}, 1),
        ({"window": 19, "denoise": "none", "omega": 0.9}, 2),  # its light is that of a window of 20
        ({"window": 20, "denoise": "none"}, 3),
        ({"window": 20, "denoise": "guided", "omega": 0.9}, 3),
    ],
)
def test_pixels_that_never_changed_keep_their_fingerprint(
    options: dict[str, Any], algorithm: int
) -> None:
    found = JobConfig(input="in", **options).fingerprint("classical")
    assert found.parameters["algorithm"] == algorithm


def test_the_target_matters_to_an_omega_that_follows_it() -> None:
    one, other = (
        JobConfig(input="in", not_dark="enhance", target_luminance=target) for target in (0.4, 0.5)
    )
    assert one.fingerprint("classical").digest != other.fingerprint("classical").digest
    assert one.fingerprint("absgn").digest == other.fingerprint("absgn").digest


def test_batch_size_matters_only_to_the_light_of_the_batch() -> None:
    one = JobConfig(input="in", atmospheric_light=255, batch_size=1)
    other = JobConfig(input="in", atmospheric_light=255, batch_size=2)
    assert one.fingerprint("classical").digest == other.fingerprint("classical").digest


@pytest.mark.parametrize(
    ("allowed", "failed", "good"),
    [("0", 0, True), ("0", 1, False), ("3", 3, True), ("5%", 5, True), ("5%", 6, False)],
)
def test_max_failures(allowed: str, failed: int, good: bool) -> None:
    config = JobConfig(input="in", max_failures=allowed)
    assert config.allows_failures(failed, 100) == good


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        BASE.omega = 0.1
