"""Libraries of assets for the manager that the OpenAssetIO project gives to hosts for tests (BAL)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MANAGER = "org.openassetio.examples.manager.bal"
KEEPING = "org.example.keeping"
"""Manager of `write_publisher`."""

_KEEPING = f"""
import json
from openassetio.pluginSystem import PythonPluginSystemManagerPlugin
from openassetio_manager_bal.BasicAssetLibraryInterface import BasicAssetLibraryInterface


class Keeping(BasicAssetLibraryInterface):
    def register(self, *arguments):
        super().register(*arguments)
        settings = self.settings(None)
        library = json.loads(settings["library_json"])
        library.pop("variables")
        with open(settings["library_path"], "w") as file:
            json.dump(library, file)


class openassetioPlugin(PythonPluginSystemManagerPlugin):
    identifier = staticmethod(lambda: "{KEEPING}")
    interface = staticmethod(Keeping)
"""


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


def write_publisher(folder: Path, assets: Mapping[str, str | dict[str, Any] | None], *, managed: bool = True) -> tuple[Path, Path]:
    """Write a library and a plug-in whose manager keeps registered assets in the library: BAL forgets these when it ends.

    Args:
        assets: as for `write_library`.
        managed: whether the manager takes new assets.

    Returns:
        The configuration of the manager, and the folder for OPENASSETIO_PLUGIN_PATH.
    """
    config = write_library(folder, assets, manager=KEEPING)
    library = folder / "library.json"
    policy: dict[str, Any] = {"openassetio-mediacreation:managementPolicy.Managed": {}} if managed else {}
    library.write_text(json.dumps({**json.loads(library.read_text()), "managementPolicy": {"write": {"default": policy}}}))
    plug_ins = folder / "keeping"
    (plug_ins / "keeping").mkdir(parents=True)
    (plug_ins / "keeping" / "__init__.py").write_text(_KEEPING)
    return config, plug_ins
