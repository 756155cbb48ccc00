"""Rendering pages: a template with inlined styles and scripts, self-contained."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from batchlight._version import __version__
from batchlight.errors import shown


def render(template: str, styles: Sequence[str], scripts: Sequence[str], **facts: Any) -> str:
    """A page of ``page/``, with escaped text; the template extends ``skeleton.html``."""
    import jinja2  # late: only callers that make a page wait for it

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "page"),
        autoescape=True,
        finalize=_steering_nothing,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    script = _joined(scripts)
    return environment.get_template(template).render(
        **facts,
        version=__version__,
        style=_joined(styles),
        script=script,
        # The page may run this script only, and load nothing.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _steering_nothing(value: Any) -> Any:
    """Text without characters that reorder it on the page; already escaped text is unchanged."""
    return shown(value) if type(value) is str else value


def _joined(names: Sequence[str]) -> str:
    return "\n".join(files(__package__).joinpath("page", name).read_text() for name in names)
