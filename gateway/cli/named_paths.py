"""Options of the form NAME=PATH."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from services.common.errors import InvalidRequest


def named_paths(values: Sequence[str], *, option: str) -> dict[str, Path]:
    """Return paths by name.

    Args:
        values: texts of the form NAME=PATH.
        option: name of the option, for messages.

    Raises:
        InvalidRequest: a text has no `=`, or a name stands twice.
    """
    found: dict[str, Path] = {}
    for value in values:
        name, sign, path = value.partition("=")
        if not (name and sign and path):
            raise InvalidRequest(f"--{option} {value}: NAME=PATH was expected", field=option)
        if name in found:
            raise InvalidRequest(f"--{option}: {name} is given twice", field=option)
        found[name] = Path(path)
    return found
