"""Configurations of trainings: presets, and TOML files that change single settings of a preset."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from services.common.errors import InvalidRequest

ConfigT = TypeVar("ConfigT")

DEFAULT: Final = "default"
"""Name of the preset with the sizes of the committed network."""
_PRESET_KEY: Final = "preset"


def configuration(presets: Mapping[str, ConfigT], wanted: str, *, table: str = "") -> ConfigT:
    """Return a configuration by the name of a preset, or by the path of a TOML file.

    A TOML file holds only the settings that differ from a preset, in tables that are named like the fields of the configuration.
    The key `preset` names the preset; without the key it is `default`.

    Args:
        presets: configurations by name, with `default` among them. A configuration is a dataclass, perhaps of dataclasses.
        wanted: name of a preset, or path of a file.
        table: table of the file that holds the settings; empty: the whole file. A file without the table changes nothing.

    Raises:
        InvalidRequest: there is no such preset or file, the file is not TOML, or a setting is unknown or has a wrong type. The
            message names file and setting.
    """
    if wanted in presets:
        return presets[wanted]
    path = Path(wanted)
    if not path.is_file():
        raise InvalidRequest(
            f"{wanted}: neither a preset ({', '.join(presets)}) nor a TOML file; give one of these names, or a file", field="config"
        )
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise InvalidRequest(f"{path}: not a TOML file: {problem}", field="config") from problem
    if table:
        given = given.get(table, {})
        if not isinstance(given, dict):
            raise InvalidRequest(f"{path}: {table}: a table was expected, not {given!r}", field="config")
    preset = given.pop(_PRESET_KEY, DEFAULT)
    if preset not in presets:
        raise InvalidRequest(f"{path}: preset {preset!r} is not one of {', '.join(presets)}", field="config")
    return with_settings(presets[preset], given, source=str(path))


def with_settings(base: ConfigT, given: Mapping[str, Any], *, source: str) -> ConfigT:
    """Return a configuration with some settings changed.

    Args:
        base: the configuration.
        given: new values by the names of the fields; a mapping for a field that is itself a dataclass.
        source: name of the place of the values, for messages.

    Raises:
        InvalidRequest: a setting is unknown or has a wrong type.
    """
    merged = _merged(base, given, source, "")
    try:
        made: ConfigT = TypeAdapter(type(base)).validate_python(merged)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(f"{source}: {place}: {first['msg']}, not {first['input']!r}", field="config") from error
    return made


def _merged(base: object, given: Mapping[str, Any], source: str, place: str) -> dict[str, Any]:
    assert is_dataclass(base)
    names = {each.name for each in fields(base)}
    values: dict[str, Any] = {name: getattr(base, name) for name in names}
    for name, value in given.items():
        if name not in names:
            raise InvalidRequest(
                f"{source}: there is no setting {place}{name}; there are {', '.join(sorted(names))}", field="config"
            )
        if is_dataclass(values[name]):
            if not isinstance(value, Mapping):
                raise InvalidRequest(f"{source}: {place}{name}: a table was expected, not {value!r}", field="config")
            values[name] = _merged(values[name], value, source, f"{place}{name}.")
        else:
            values[name] = value
    return {name: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value for name, value in values.items()}
