"""A setting tried on images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchlight.classical import dehaze
from batchlight.config import JobConfig
from batchlight.storage import Location, open_source
from batchlight.worker.trial import Trial


def test_it_warms_up_with_what_it_is_timed_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that is not dark would be copied, and compile nothing."""
    enhanced = []
    enhance = dehaze.enhance

    def watched(*arguments: Any) -> dehaze.Enhanced:
        enhanced.append(arguments)
        return enhance(*arguments)

    monkeypatch.setattr(dehaze, "enhance", watched)
    Trial(JobConfig(input=str(tmp_path)), Location.parse(str(tmp_path)), open_source).warm_up()
    assert len(enhanced) == 1
