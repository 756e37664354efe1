"""The mark that every film of dubstage carries in its comment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

MARK: Final = "made with dubstage"


def is_marked(tags: Mapping[str, str]) -> bool:
    """Return whether a file's tags say that dubstage wrote the file."""
    return any(key.lower() == "comment" and MARK in value for key, value in tags.items())
