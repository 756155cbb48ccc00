"""The JSON files of an output: read leniently, written in full."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from batchlight.errors import StorageError


class Document(BaseModel):
    """The fields of one kind of JSON file.

    Unknown fields are ignored: a later version may have added them. New fields get a default, since
    files of earlier versions lack them. No field is renamed or changes its meaning without a new
    version of the format.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")


D = TypeVar("D", bound=Document)


def parse(kind: type[D], data: bytes, path: str, advice: str = "remove it and try again") -> D:
    """Read a file of one kind. Raises ``StorageError`` with ``advice`` if it is damaged."""
    try:
        return kind.model_validate_json(data)
    except ValueError as error:
        raise StorageError(f"{path} is damaged; {advice}", transient=False) from error


def serialise(document: Document) -> bytes:
    """The bytes of a file."""
    return (document.model_dump_json(indent=2) + "\n").encode()
