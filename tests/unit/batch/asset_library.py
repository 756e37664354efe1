"""Libraries of assets for the manager that the OpenAssetIO project gives to hosts for tests (BAL)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MANAGER = "org.openassetio.examples.manager.bal"


def write_library(folder: Path, assets: Mapping[str, str | dict[str, Any] | None], *, manager: str = MANAGER) -> Path:
    """Write a library of assets, and return the configuration of its manager.

    Args:
        assets: by name: the location, the properties of the location, or None for an asset without a location.
    """
    entities = {}
    for name, asset in assets.items():
        located = {"location": asset} if isinstance(asset, str) else asset
        trait = {"openassetio-mediacreation:content.LocatableContent": located} if located is not None else {}
        entities[name] = {"versions": [{"traits": {"openassetio-mediacreation:usage.Entity": {}, **trait}}]}
    (folder / "library.json").write_text(json.dumps({"entities": entities}))
    settings = '[manager.settings]\nlibrary_path = "${config_dir}/library.json"'
    config = folder / "openassetio.toml"
    config.write_text(f'[manager]\nidentifier = "{manager}"\n{settings}\n')
    return config
