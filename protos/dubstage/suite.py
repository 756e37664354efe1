"""Whether the suite, which dubs in this process and has the command line, is installed beside the client."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

_VERSION: Final = "0.2.0"
"""Version of this distribution, which is that of the suite."""
INSTALL: Final = (
    f"pip install 'dubstage[suite]=={_VERSION}' --find-links wheels/ with the wheels of the release in the folder wheels/, "
    "or `make setup` in a checkout"
)
"""How the suite is installed. The wheels are on no index: without a version, pip could take another package of this name."""


def is_installed() -> bool:
    """Return whether the suite is installed with the packages of its gateway, which an installation of a single stage lacks.

    Another distribution may have a package of the same general name.
    """
    return all(find_spec(name) is not None for name in ("gateway", "services", "gateway.api", "typer"))
