"""`python -m gateway`: the gateway behind a gRPC server."""

from __future__ import annotations

import os
import sys

from gateway.settings import GatewaySettings
from services.common.errors import DubstageError
from services.common.server.process import run_stage
from services.common.server.settings import load_settings


def main() -> int:
    """Serve until a signal ends the process, and return the exit code."""
    os.environ.setdefault("GLOG_minloglevel", "3")
    from gateway.api.server import GatewayServer

    try:
        settings = load_settings(GatewaySettings)
        settings.check_media_dir()
    except DubstageError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    return run_stage(settings, "gateway", lambda _: GatewayServer(settings))


if __name__ == "__main__":
    sys.exit(main())
