"""What determines the pixels of outputs, to distinguish outputs of different parameters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OMITTED_DEFAULTS: Mapping[str, Any] = {"strength": 1, "not-dark": "enhance"}
"""Defaults that a fingerprint leaves out, so that outputs made before the option existed keep their
fingerprint."""


@dataclass(frozen=True)
class Fingerprint:
    """The parameters that determine pixels; equal digests mean equal outputs for equal inputs."""

    parameters: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """sha256 in hex of the parameters as canonical JSON."""
        text = json.dumps(self.parameters, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def options(self) -> dict[str, Any]:
        """The parameters by option name, including the omitted ones."""
        parameters = {**OMITTED_DEFAULTS, **self.parameters}
        return {name.replace("-", "_"): value for name, value in parameters.items()}

    def changes_since(self, earlier: Fingerprint) -> list[str]:
        """Each parameter that differs, such as ``omega 0.93 -> 0.5``."""
        old, new = ({**OMITTED_DEFAULTS, **some.parameters} for some in (earlier, self))
        pairs = ((name, old.get(name), new.get(name)) for name in sorted({*old, *new}))
        return [f"{name} {old} -> {new}" for name, old, new in pairs if old != new]
