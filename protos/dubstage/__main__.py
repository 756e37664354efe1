"""The command `dubstage`, and `python -m dubstage`: the command line of the suite, or one sentence if only the client is there."""

from __future__ import annotations

import importlib
import sys
from typing import Final

from dubstage import suite

_NOT_INSTALLED: Final = 10
"""Exit code for a request that this installation cannot serve, as of `services.common.errors.InvalidRequestError`."""


def main() -> None:
    """Run the command line and exit."""
    if not suite.is_installed():
        sys.stderr.write(
            "error: only the client or single stages of dubstage are installed here "
            "(`python -m services.audio` runs a stage): "
            f"install the suite, which has the commands: {suite.INSTALL}\n"
        )
        sys.exit(_NOT_INSTALLED)
    importlib.import_module("gateway.cli").main()


if __name__ == "__main__":
    main()
