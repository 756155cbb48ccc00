"""Pages: a template with its style and its scripts inside, which need nothing beside themselves."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from batchlight._version import __version__
from batchlight.errors import shown


def render(template: str, styles: Sequence[str], scripts: Sequence[str], **facts: Any) -> str:
    """A page of ``page/``, whose text is escaped; it extends ``skeleton.html``."""
    import jinja2  # late: only who makes a page waits for it

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
        # The page may run this script and no other, and load nothing from anywhere.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _steering_nothing(value: Any) -> Any:
    """Text without what would turn it around on the page; what is escaped already, as it is."""
    return shown(value) if type(value) is str else value


def _joined(names: Sequence[str]) -> str:
    return "\n".join(files(__package__).joinpath("page", name).read_text() for name in names)
