"""The settings that a preview compares: what they are made of, and their words."""

from __future__ import annotations

import pytest

from batchlight.config import JobConfig
from batchlight.driver.settings import DEFAULT_SETTINGS, SETTINGS_AT_MOST, make_settings
from batchlight.errors import UsageError
from batchlight.options import make_config


def labels(*texts: str, **options: object) -> list[str]:
    base = make_config(JobConfig, {"input": "in", **options})
    return [setting.label for setting in make_settings(base, texts)]


def test_the_default_ones_differ() -> None:
    found = labels()
    assert found[0] == ""
    assert len(set(found)) == len(found) == len(DEFAULT_SETTINGS)


def test_options_of_the_command_line_hold_for_all_and_settings_win() -> None:
    assert labels("", "omega=0.7", "omega=0.6 window=9", window="5") == [
        "--window 5",
        "--omega 0.7 --window 5",
        "--omega 0.6 --window 9",
    ]


def test_a_default_that_is_asked_for_is_named() -> None:
    default = JobConfig(input="in").t0
    assert labels(f"t0={default}") == [f"--t0 {default}"]


def test_what_makes_the_same_pixels_comes_once() -> None:
    assert labels("omega=0.50", "omega=0.5", "") == ["--omega 0.5", ""]
    assert labels(denoise="none").count("--denoise none") == 1
    assert labels(method="absgn")[0] == "--method absgn"


def test_two_methods_are_two_columns() -> None:
    assert labels("", method=["classical", "absgn"]) == ["--method classical", "--method absgn"]
    assert labels("omega=0.5", method=["classical", "absgn"]) == [
        "--method classical --omega 0.5",
        "--method absgn",
    ]


def test_words_are_typed_as_a_shell_takes_them() -> None:
    assert labels("method=absgn weights='my weights.safetensors'") == [
        "--method absgn --weights 'my weights.safetensors'"
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("omega", "must be words such as 'omega=0.8 t0=0.05'"),
        ("--omega=1", "must be words such as"),
        ("omega=", "must be words such as"),
        ("omega='1", "a quotation mark is missing"),
        ("omega=7", "in --setting 'omega=7': --omega is '7', but must be"),
        ("bogus=1", "unknown option bogus"),
        ("workers=2", "--workers does not change the pictures of classical; leave it out"),
        ("input=x", "--input does not change the pictures"),
        ("model=absgn", "--model does not change the pictures of classical"),
        ("method=absgn omega=0.5", "--omega does not change the pictures of absgn"),
    ],
)
def test_a_wrong_one_is_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        labels(text)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_many_are_refused() -> None:
    with pytest.raises(UsageError, match="too many"):
        labels(*(f"window={n}" for n in range(1, SETTINGS_AT_MOST + 2)))
