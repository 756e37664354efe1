"""Files of the store of batches: their paths, and the JSON documents in them. Pure: no file is read or written here."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from services.common.errors import ArtefactCorrupt

_Document = TypeVar("_Document", bound=BaseModel)


def facts_path(name: str) -> str:
    """Return the path of the facts of a batch (BatchFacts)."""
    return f"{name}/batch.json"


def manifest_path(name: str) -> str:
    """Return the path of the canonical rows of a batch."""
    return f"{name}/manifest.jsonl"


def record_path(name: str, shot_id: str) -> str:
    """Return the path of the record of a shot (ShotRecord)."""
    return f"{name}/shots/{shot_id}.json"


def thumbnail_path(name: str, shot_id: str) -> str:
    """Return the path of the picture of a shot's film (JPEG)."""
    return f"{name}/shots/{shot_id}.jpg"


def mark_path(name: str, shot_id: str) -> str:
    """Return the path of the mark of a cancelled shot."""
    return f"{name}/cancelled/{shot_id}"


def json_of(document: BaseModel) -> bytes:
    """Return the content of a document's file."""
    return f"{document.model_dump_json(indent=1)}\n".encode()


def document_of(kind: type[_Document], content: bytes, place: str) -> _Document:
    """Return the document that `json_of` wrote.

    Args:
        kind: class of the document.
        content: content of the file.
        place: path or URL of the file, for the message.

    Raises:
        ArtefactCorrupt: the content is no document of this class.
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError as problem:
        raise damaged(place, problem) from problem


def damaged(place: str, problem: ValueError) -> ArtefactCorrupt:
    """Return the error for a damaged file.

    Args:
        place: path or URL of the file.
        problem: what is wrong with the content.
    """
    first = problem.errors()[0] if isinstance(problem, ValidationError) else None
    where = "" if first is None else f" ({'.'.join(str(part) for part in first['loc']) or 'file'}: {first['msg']})"
    # A batch without its facts or its rows cannot be used.
    remove = "remove the file" if "/shots/" in place else f"remove the folder {place.rpartition('/')[0]}"
    return ArtefactCorrupt(f"{place} is damaged{where}: restore the file from a backup, or {remove}", resource=place)
