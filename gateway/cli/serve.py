"""`dubstage serve`: run one stage, the gateway, or all servers, each in a separate process."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Annotated, Final

import typer

from gateway.child_process import child_environment
from gateway.cli import options
from gateway.cli.app import app
from gateway.cli.console import say, say_error
from gateway.settings import GatewaySettings
from gateway.stages.interface import STAGE_NAMES
from services.common.errors import BackendUnavailableError, InvalidRequestError
from services.common.server.settings import DEFAULT_PORTS, StageSettings, load_settings
from services.common.server.settings_file import file_settings, settings_file

MODULES = {**{name: f"services.{name}" for name in STAGE_NAMES}, "gateway": "gateway"}
START_SECONDS = 180.0
POLL_SECONDS = 0.1
_COUNTED = ("metrics_port", "health_port")
"""Settings of further ports. Each server needs a port of its own."""
_PYTHON: Final = (sys.executable, "-P", "-m")
"""Begin of a server's command. Without -P, a file of the user's folder, such as signal.py, would count as a module."""


@app.command("serve")
def serve(
    what: Annotated[str, typer.Argument(metavar="SERVER", help=f"Server to run: {', '.join(MODULES)} or all.")],
    _: options.Device = None,
) -> None:
    """Run a server until SIGTERM or Ctrl-C. `all` runs the gateway and one process per stage.

    Settings are environment variables with the prefix DUBSTAGE_ (docs/operations/start.md). Clients of the gateway name videos by
    paths in the folder DUBSTAGE_MEDIA_DIR; without this setting they cannot name videos. `all` reads the port of each server from
    DUBSTAGE_AUDIO_PORT, DUBSTAGE_FACE_PORT and so on. DUBSTAGE_METRICS_PORT and DUBSTAGE_HEALTH_PORT are the ports of the first
    server; each further server gets the next number.
    """
    if what == "all":
        raise typer.Exit(serve_all())
    if what not in MODULES:
        raise InvalidRequestError(f"there is no server {what!r}; there are: {', '.join(MODULES)}, all", field="serve")
    settings = settings_of(what)
    if settings.port:
        check_ports(settings.host, {what: settings.port}, variable="DUBSTAGE_PORT")
    sys.stdout.flush()
    os.execve(sys.executable, [*_PYTHON, MODULES[what]], child_environment())


def settings_of(name: str, **changes: object) -> StageSettings:
    """Read the settings of a server as the process of the server will read them.

    Raises:
        InvalidRequestError: a value is wrong, or the media folder of the gateway does not exist; the message names the variable.
    """
    if name == "gateway":
        settings = load_settings(GatewaySettings, **changes)
        settings.check_media_dir()
        return settings
    kind: type[StageSettings] = getattr(importlib.import_module(f"services.{name}.settings"), f"{name.capitalize()}Settings")
    return load_settings(kind, **changes)


def ports_of(environment: Mapping[str, str]) -> dict[str, int]:
    """Return the port of every server: DUBSTAGE_<NAME>_PORT, or the default port.

    Raises:
        InvalidRequestError: a value is not a port, or two servers have the same port.
    """
    ports: dict[str, int] = {}
    for name in MODULES:
        variable = f"DUBSTAGE_{name.upper()}_PORT"
        text = environment.get(variable) or str(DEFAULT_PORTS[name])
        if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= 65535):
            raise InvalidRequestError(f"{text[:80]!r} is not a port; give a number from 1 to 65535", field=variable, named=True)
        taken = [other for other, port in ports.items() if port == int(text)]
        if taken:
            raise InvalidRequestError(
                f"the {taken[0]} server already has port {text}; choose another port", field=variable, named=True
            )
        ports[name] = int(text)
    return ports


def check_ports(host: str, ports: Mapping[str, int], variable: str = "", host_variable: str = "DUBSTAGE_HOST") -> None:
    """Check before any server starts that each server can listen on its port.

    Args:
        host: address to listen on.
        ports: port of each server by name.
        variable: setting to name in the remedy; empty: DUBSTAGE_<NAME>_PORT.
        host_variable: setting of the host to name in the remedy.

    Raises:
        InvalidRequestError: a server cannot listen; the message names the server, the port and the remedy.
    """
    for name, port in ports.items():
        setting = variable or f"DUBSTAGE_{name.upper()}_PORT"
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except (OSError, UnicodeError) as problem:
                why = (problem.strerror if isinstance(problem, OSError) else None) or "no address"
                number = problem.errno if isinstance(problem, OSError) else None
                if number == errno.EADDRINUSE:
                    remedy, field = f"stop the program that listens there, or set {setting} to another port", setting
                elif number == errno.EACCES:
                    remedy, field = f"set {setting} to a port of 1024 or more", setting
                else:
                    remedy, field = f"set {host_variable} to an address of this machine", host_variable
                raise InvalidRequestError(
                    f"the {name} server cannot listen on {host}:{port} ({why}): {remedy}", field=field
                ) from None


def further_ports(settings: StageSettings) -> dict[str, dict[str, int]]:
    """Return the metrics port and the health port of every server: the first server has the port of the settings, each further
    server the next number. A setting of 0 means no port for any server.

    Raises:
        InvalidRequestError: a port would be over 65535.
    """
    ports: dict[str, dict[str, int]] = {}
    for number, name in enumerate(MODULES):
        ports[name] = {extra: first + number if (first := getattr(settings, extra)) else 0 for extra in _COUNTED}
        for extra, port in ports[name].items():
            if port > 65535:
                variable = f"DUBSTAGE_{extra.upper()}"
                last = 65535 - len(MODULES) + 1
                raise InvalidRequestError(
                    f"{len(MODULES)} ports are needed; give a number up to {last}", field=variable, named=True
                )
    return ports


class Servers:
    """The child processes of `serve all`."""

    def __init__(self) -> None:
        self._children: dict[str, subprocess.Popen[str]] = {}
        self._ready: set[str] = set()

    def start(self, name: str, environment: Mapping[str, str]) -> None:
        """Start one server. The server ends when this process ends for any reason. Ctrl-C ends the server only through `stop`."""
        child = subprocess.Popen(
            [*_PYTHON, "gateway.cli.child", MODULES[name]],
            env={**environment, "PYTHONPATH": child_environment()["PYTHONPATH"]},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._children[name] = child
        threading.Thread(target=self._relay, args=(name, child), daemon=True).start()

    def _relay(self, name: str, child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith(f"dubstage {name} listening on "):
                self._ready.add(name)
                say(line.rstrip())

    def waiting(self) -> list[str]:
        """Return the names of the servers that do not serve yet."""
        return sorted(set(self._children) - self._ready)

    def ended(self) -> tuple[str, int] | None:
        """Return the name and the exit code of a server that has ended on its own; None: all servers run."""
        for name, child in self._children.items():
            code = child.poll()
            if code is not None:
                return name, code
        return None

    def stop(self, hurry: threading.Event) -> None:
        """End all servers, the gateway first. As soon as `hurry` is set, the servers do not wait for running calls any more."""
        running = [child for child in reversed(self._children.values()) if child.poll() is None]
        for child in running:
            child.terminate()
        hurried = False
        deadline = time.monotonic() + 40.0
        while any(child.poll() is None for child in running):
            if hurry.is_set() and not hurried:
                hurried = True
                for child in running:
                    child.terminate()
            if time.monotonic() > deadline:
                for child in running:
                    child.kill()
            time.sleep(POLL_SECONDS)
        for child in self._children.values():
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()


def serve_all() -> int:
    """Run every server until a signal arrives or one server ends, then end all of them, and return the exit code."""
    if "ready_file" in file_settings():
        raise InvalidRequestError(
            f"{settings_file()}: ready_file: each server of `dubstage serve all` would write this file: remove the key; the line "
            "`dubstage all listening` says that all servers are ready",
            field="ready_file",
        )
    # DUBSTAGE_PORT is ignored: only one server could have it.
    settings = load_settings(StageSettings, port=0)
    ports = ports_of(os.environ)
    further = further_ports(settings)
    for name, port in ports.items():
        settings_of(name, port=port, **further[name])
    for extra in ("", *_COUNTED):
        chosen = {name: further[name][extra] if extra else port for name, port in ports.items()}
        if all(chosen.values()):
            check_ports(settings.host, chosen, variable=f"DUBSTAGE_{extra.upper()}" if extra else "")
    reach = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    endpoints = {f"DUBSTAGE_{name.upper()}_ENDPOINT": f"{reach}:{port}" for name, port in ports.items() if name != "gateway"}
    environment = {**os.environ, **endpoints}
    environment.pop("DUBSTAGE_READY_FILE", None)
    stop, hurry = threading.Event(), threading.Event()

    def on_signal(*_: object) -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    servers = Servers()
    try:
        for name in MODULES:
            own = {"DUBSTAGE_PORT": ports[name], **{f"DUBSTAGE_{extra.upper()}": port for extra, port in further[name].items()}}
            servers.start(name, {**environment, **{variable: str(port) for variable, port in own.items()}})
        return _watch(servers, stop)
    finally:
        stop.set()
        servers.stop(hurry)


def _watch(servers: Servers, stop: threading.Event) -> int:
    deadline = time.monotonic() + START_SECONDS
    announced = False
    while not stop.wait(POLL_SECONDS):
        ended = servers.ended()
        if ended is not None:
            name, code = ended
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            say_error(f"the {name} server {how} (its log is above): stopping the others")
            return code if code > 0 else 1
        if not announced and not servers.waiting():
            announced = True
            print("dubstage all listening", flush=True)
        if not announced and time.monotonic() > deadline:
            raise BackendUnavailableError(
                f"these servers were not ready after {START_SECONDS:.0f} s: {', '.join(servers.waiting())}"
            )
    return 0
