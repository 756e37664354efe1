"""The settings file: TOML with the names of settings in lower case and without prefix. Variables of the environment win over it."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from services.common.errors import InvalidRequestError

VARIABLE: Final = "DUBSTAGE_SETTINGS_FILE"
"""Variable of the environment that names the file. It is not a setting: the file cannot name itself."""
_MOST_BYTES: Final = 1 << 20
"""Largest file that is read. All settings together take a few kilobytes."""


def settings_file() -> Path | None:
    """Return the file of DUBSTAGE_SETTINGS_FILE, otherwise the user's own if there is one; None: there is no file."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    own = Path(base) / "dubstage" / "settings.toml"
    return own if os.path.lexists(own) else None


def file_settings() -> dict[str, Any]:
    """Return the settings of the settings file by name; empty: there is no file.

    Raises:
        InvalidRequestError: the file cannot be read, is no TOML, or holds a value that is no text, number, true or false.
    """
    file = settings_file()
    if file is None:
        return {}
    try:
        with file.open("rb") as opened:
            content = opened.read(_MOST_BYTES + 1)
    except OSError as problem:
        raise InvalidRequestError(
            f"{file}: the settings file cannot be read: {problem.strerror or problem}", field=VARIABLE
        ) from None
    if len(content) > _MOST_BYTES:
        raise InvalidRequestError(f"{file}: the settings file has more than {_MOST_BYTES} bytes", field=VARIABLE)
    return dict(_parsed(content, str(file)))


@lru_cache(maxsize=4)
def _parsed(content: bytes, file: str) -> dict[str, Any]:
    try:
        settings = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as problem:
        raise InvalidRequestError(f"{file}: the settings file is no TOML: {problem}", field=VARIABLE) from None
    for name, value in settings.items():
        if not isinstance(value, str | int | float | bool):
            raise InvalidRequestError(f"{file}: {name}: give a text, a number, true or false", field=name)
    return settings


def check_names(names: Collection[str]) -> None:
    """Check that all names in the settings file are names of settings.

    Args:
        names: names of the settings of all components.

    Raises:
        InvalidRequestError: a name is unknown; the message names the file, the name and the nearest known name.
    """
    for name in file_settings():
        if name not in names:
            near = difflib.get_close_matches(name.lower().removeprefix("dubstage_"), names, 1)
            remedy = f"did you mean {near[0]}?" if near else "docs/reference/settings.md lists the settings"
            raise InvalidRequestError(f"{settings_file()}: there is no setting {name!r}: {remedy}", field=name)


class SettingsFileSource(PydanticBaseSettingsSource):
    """Values of the settings file for one kind of settings. Settings of other components are left out.

    Args:
        settings_cls: kind of settings.
    """

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls)
        self._values = file_settings()

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return the value of a setting, its name in the file, and that the value is no JSON."""
        return self._values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the values of this kind of settings by name. A text that is empty counts as unset, as in the environment."""
        return {name: value for name, value in self._values.items() if name in self.settings_cls.model_fields and value != ""}
