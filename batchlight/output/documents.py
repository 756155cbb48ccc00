"""The JSON files of an output: read leniently, written in full."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from batchlight.errors import StorageError


class Document(BaseModel):
    """The fields of one kind of JSON file.

    Unknown ones are ignored: a later version may have added them. Fields that are added here get a
    default, since files of earlier versions lack them. None is renamed or given another meaning
    without a new version of the format.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")


D = TypeVar("D", bound=Document)


def parse(kind: type[D], data: bytes, path: str, advice: str = "remove it and try again") -> D:
    """Read a file of one kind. Raises ``StorageError`` with the advice if it is damaged."""
    try:
        return kind.model_validate_json(data)
    except (ValidationError, ValueError) as error:
        raise StorageError(f"{path} is damaged; {advice}", transient=False) from error


def serialise(document: Document) -> bytes:
    """The bytes of a file."""
    return (document.model_dump_json(indent=2) + "\n").encode()
