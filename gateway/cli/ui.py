"""`dubstage ui`: the pages in the browser, for one person on this machine."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import webbrowser
from pathlib import Path
from typing import Annotated, Final

import typer

from gateway.cli import options
from gateway.cli.app import app
from gateway.cli.console import say, say_result
from gateway.cli.serve import check_ports
from gateway.settings import GatewaySettings
from services.common.errors import InvalidRequestError
from services.common.files import write_whole
from services.common.server.process import run_stage
from services.common.server.settings import load_settings

PORT: Final = 8600
"""Port of the pages if neither --port nor DUBSTAGE_HTTP_PORT names one."""
_HOST: Final = "127.0.0.1"
_ANY: Final = ("0.0.0.0", "::")
"""Addresses that stand for every address of a machine: a browser of this machine uses 127.0.0.1 then."""
_MEDIA: Final = "media"


@app.command("ui")
def ui(
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, metavar="NUMBER", help=f"Port of the pages. Default: {PORT}.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of uploads and videos. Default: the folder media in the data folder."),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address of this machine to listen at for the pages and HTTP. With 0.0.0.0, other machines reach them, without "
            "TLS unless DUBSTAGE_TLS_CERTIFICATE_FILE is set; in a container, publish the port on 127.0.0.1.",
        ),
    ] = _HOST,
    browser: Annotated[bool, typer.Option(help="Open the pages in the browser.")] = True,
    device: options.Device = None,
) -> None:
    """Dub in the browser: run a gateway for this machine, and open its pages, until Ctrl-C.

    The stages run in this process, or where DUBSTAGE_STAGES_HOST or DUBSTAGE_AUDIO_ENDPOINT and so on name them. Without
    DUBSTAGE_AUTH_TOKEN_FILE, the pages ask for a token that is made for this run.
    """
    options.gateway_settings(device=device)  # refuses a device if the render stage is a server
    settings = _settings(host, port, folder)
    check_ports(host, {"gateway": settings.http_port}, variable="--port", host_variable="--host")
    token, file = "", None
    if settings.auth_token_file is None:
        token = secrets.token_urlsafe(24)
        file = settings.data_dir / f".ui-token-{secrets.token_hex(8)}"
        settings = settings.model_copy(update={"auth_token_file": file})
        _write(file, token)
    try:
        raise typer.Exit(_run(settings, token, browser=browser))
    finally:
        if file is not None:
            file.unlink(missing_ok=True)


def _settings(host: str, port: int | None, folder: Path | None) -> GatewaySettings:
    """Return the settings of the environment for a gateway whose pages are at `host`. gRPC listens at DUBSTAGE_HOST, by default on
    this machine alone.

    Raises:
        InvalidRequestError: a value is wrong, or a folder cannot be written.
    """
    configured = load_settings(GatewaySettings, http_host=host)
    media = folder or configured.media_dir or configured.data_dir / _MEDIA
    settings = load_settings(
        GatewaySettings,
        http_host=host,
        port=0,
        http_port=port or configured.http_port or PORT,
        media_dir=media.absolute(),
        log_level=configured.log_level if "log_level" in configured.model_fields_set else "warning",
    )
    for path, field in (
        (media, "--folder" if folder is not None else "DUBSTAGE_MEDIA_DIR"),
        (settings.data_dir, "DUBSTAGE_DATA_DIR"),
    ):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise InvalidRequestError(f"the folder {path} cannot be made: {problem.strerror}", field=field, named=True) from problem
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise InvalidRequestError(f"the folder {path} cannot be written: give another folder", field=field, named=True)
    return settings


def _write(file: Path, token: str) -> None:
    try:
        write_whole(file, f"{token}\n".encode("ascii"), mode=0o600)
    except OSError as problem:
        raise InvalidRequestError(
            f"{file} cannot be written: {problem.strerror}; give another folder", field="DUBSTAGE_DATA_DIR", named=True
        ) from problem


def _run(settings: GatewaySettings, token: str, *, browser: bool) -> int:
    """Serve until a signal ends the process, and return the exit code."""
    os.environ.setdefault("GLOG_minloglevel", "3")
    from gateway.api.server import GatewayServer
    from services.common.server.server import bracketed

    scheme = "https" if settings.tls_certificate_file is not None else "http"
    page = f"{scheme}://{bracketed(_HOST if settings.web_host in _ANY else settings.web_host)}:{settings.http_port}/ui"
    # Browsers do not send what stands behind #, so that no log of a server has the token.
    address = f"{page}/sign-in#{token}" if token else page

    class Server(GatewayServer):
        """Gateway that says where its pages are."""

        async def warm_up(self) -> None:
            """Warm up, then show the pages."""
            await super().warm_up()
            say_result(f"The pages are at {address}")
            say(f"Uploads and videos are in {settings.media_dir}. Ctrl-C ends.")
            if browser:
                threading.Thread(target=_open, args=(address,), daemon=True).start()

        async def drain(self, grace_s: float | None = None) -> None:
            """Stop. The token of this run is removed before a process ends whose stages still compute."""
            await super().drain(grace_s)
            if token and settings.auth_token_file is not None:
                settings.auth_token_file.unlink(missing_ok=True)

    say("Starting the stages")
    return run_stage(settings, "gateway", lambda _: Server(settings))


def _open(address: str) -> None:
    # A machine without a browser has the address on the terminal.
    with contextlib.suppress(webbrowser.Error, OSError):
        webbrowser.open(address)
