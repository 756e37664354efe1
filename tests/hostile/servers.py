"""The five stages and two gateways as real servers in a process of their own, which the campaign watches from outside.

The second gateway is the door: it serves HTTP and asks for tokens, each of a tenant of its own.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from tests.hostile.children import SHARES_THE_STORE
from tests.hostile.machine import MACHINE

STAGES = ("audio", "face", "motion", "texture", "render")
DOOR, HTTP = "door", "http"
"""Names of the door's two addresses: of gRPC, and of HTTP."""
HONEST = "honest"
"""Tenant of the door whose calls are never hostile."""
TENANTS = tuple(f"tenant-{number}" for number in range(6))
"""Further tenants of the door: each case has one for itself."""
START_S = 600.0
MAX_IDLE_S = 10.0
"""Shorter than the default, so that cases which wait for the end of idle streams are quick."""
COUNTS, COUNTS_S = "counts.json", 20.0
"""File with the counts of the process, and the seconds in which the process writes the file."""
DOOR_UPLOADS_BYTES = 64 << 20
"""Most bytes of a tenant's uploads at the door."""
MAX_MESSAGE_BYTES = 16 << 20
"""The servers' default limit of one message."""


@dataclass(frozen=True)
class Counts:
    """What the process of the servers has open.

    Attributes:
        tasks: tasks of the event loop.
        handles: open files and sockets.
        calls: calls of the door that run or wait.
    """

    tasks: int
    handles: int
    calls: int


class Servers:
    """A child process with all six servers; ends with the context.

    Args:
        folder: gets the artefact store, the gateway's data, its media folder, and the log.
        settings: further settings of the gateway and the stages.
    """

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        self.media, self.store, self.data = folder / "media", folder / "artefacts", folder / "data"
        self.door = folder / "door"
        """Folder of the door: its media, data and tokens."""
        self.cwd = folder / "cwd"
        """Folder in which the servers run, and where none of them has anything to write."""
        self.addresses: dict[str, str] = {}
        self._settings = settings
        self._child: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the servers and wait until they serve."""
        self.starts += 1
        for place in (self.media, self.cwd):
            place.mkdir(parents=True, exist_ok=True)
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        with (self.folder / "servers.log").open("ab") as log:
            command = [sys.executable, "-m", "tests.hostile.servers", str(self.folder), json.dumps(self._settings)]
            env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(Path(__file__).parents[2]), *sys.path))}
            self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=self.cwd, env=env)
        end = time.monotonic() + START_S
        while not ready.exists():
            if self._child.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the servers did not start; their log is {self.folder / 'servers.log'}")
            time.sleep(0.1)
        self.addresses = json.loads(ready.read_text())

    def stop(self) -> None:
        """End the child process, and wait for that."""
        child, self._child = self._child, None
        if child is None:
            return
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(60)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdin.close()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._child is not None and self._child.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Exit code of a process that has ended."""
        return None if self._child is None else self._child.poll()

    def resident_bytes(self) -> int:
        """Resident memory of the servers; 0 where they have ended."""
        try:
            return int(psutil.Process(self._child.pid).memory_info().rss) if self._child is not None else 0
        except psutil.NoSuchProcess:
            return 0

    def processor_s(self) -> float:
        """Seconds that the servers computed since their start."""
        times = psutil.Process(self._child.pid).cpu_times()
        return float(times.user + times.system)

    def counts(self) -> Counts:
        """Return what the process has open now. Blocks until the process has counted."""
        file = self.folder / COUNTS
        file.unlink(missing_ok=True)
        self._child.send_signal(signal.SIGUSR1)
        end = time.monotonic() + MACHINE.bound(COUNTS_S)
        while not file.exists():
            if time.monotonic() > end or not self.alive:
                raise RuntimeError(f"the servers did not count their tasks within {COUNTS_S:g} s: their event loop stands still")
            time.sleep(0.05)
        return Counts(**json.loads(file.read_text()))

    def sockets_of(self, address: str) -> int:
        """Return the number of connections that the process has with a client address."""
        try:
            found = psutil.Process(self._child.pid).net_connections(kind="tcp")
        except psutil.NoSuchProcess:
            return 0
        return sum(1 for one in found if one.raddr and one.raddr.ip.removeprefix("::ffff:") == address)

    def environment(self) -> dict[str, str]:
        """Variables with which a command line uses these stages and their store."""
        endpoints = {f"DUBSTAGE_{name.upper()}_ENDPOINT": self.addresses[name] for name in STAGES}
        # What a case leaves is a finding.
        endpoints["DUBSTAGE_ANALYSIS_MAX_AGE_DAYS"] = "0"
        return {**endpoints, "DUBSTAGE_ARTEFACTS_URL": str(self.store), SHARES_THE_STORE: "1"}


async def _serve(folder: Path, settings: dict[str, object]) -> None:
    from gateway.api.server import GatewayServer
    from gateway.settings import GatewaySettings
    from gateway.stages.local import compose_stages
    from services.common.server.process import server_of
    from services.common.server.server import StageServer
    from services.common.server.settings import StageSettings, load_settings

    os.environ["DUBSTAGE_ANALYSIS_MAX_AGE_DAYS"] = "0"
    os.environ["DUBSTAGE_ARTEFACT_CACHE_BYTES"] = str(16 << 20)  # so that growth of memory is a leak, and no cache
    store = str(folder / "artefacts")
    stage = load_settings(StageSettings, port=0, artefacts_url=store, drain_grace_s=0.0, max_idle_s=MAX_IDLE_S)
    servers: dict[str, StageServer] = {name: server_of(name, stage, part) for name, part in compose_stages(store).items()}
    for server in servers.values():
        await server.start()
    endpoints = {f"{name}_endpoint": server.address for name, server in servers.items()}
    await asyncio.gather(*(server.warm_up() for server in servers.values()))
    gateway = load_settings(
        GatewaySettings,
        port=0,
        artefacts_url=store,
        data_dir=folder / "data",
        media_dir=folder / "media",
        drain_grace_s=0.0,
        stages_start_s=300.0,
        max_idle_s=MAX_IDLE_S,
        **endpoints,
        **settings,
    )
    servers["gateway"] = GatewayServer(gateway)
    await servers["gateway"].start()
    await servers["gateway"].warm_up()
    http_port = _free_port()
    servers[DOOR] = await _door(folder / "door", store, http_port, endpoints)
    _write_whole(
        folder / "ready.json", {**{name: server.address for name, server in servers.items()}, HTTP: f"127.0.0.1:{http_port}"}
    )

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, lambda: _write_whole(folder / COUNTS, asdict(_counts(servers[DOOR]))))
    # The end of stdin is the end of the process that started this one, however it came.
    loop.add_reader(0, stop.set)
    await stop.wait()
    for server in reversed(servers.values()):
        await server.drain(grace_s=0)


async def _door(folder: Path, store: str, http_port: int, endpoints: Mapping[str, str]) -> Any:
    """Return the started gateway that serves HTTP, for the tenants of its token file."""
    from gateway.actors import store as actors_store
    from gateway.api.server import GatewayServer
    from gateway.settings import TENANTS_FOLDER, GatewaySettings
    from services.common.server.settings import load_settings

    # Two databases share the store of the stages, which a store refuses. The door's tenants have folders of their own in it.
    setattr(actors_store, "claim_store", lambda *_: None)  # noqa: B010 - mypy sees no such name
    tokens, media = folder / "tokens", folder / "media"
    for tenant in (HONEST, *TENANTS):
        (media / TENANTS_FOLDER / tenant).mkdir(parents=True, exist_ok=True)
    tokens.write_text("".join(f"{tenant} {token_of(tenant)}\n" for tenant in (HONEST, *TENANTS)))
    settings = load_settings(
        GatewaySettings,
        port=0,
        http_port=http_port,
        auth_token_file=tokens,
        artefacts_url=store,
        data_dir=folder / "data",
        media_dir=media,
        uploads_max_bytes=DOOR_UPLOADS_BYTES,
        drain_grace_s=0.0,
        stages_start_s=300.0,
        max_idle_s=MAX_IDLE_S,
        **endpoints,
    )
    server = GatewayServer(settings)
    await server.start()
    await server.warm_up()
    return server


def token_of(tenant: str) -> str:
    """Return the token of a tenant of the door."""
    return f"token-of-{tenant}-{'0' * 16}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _counts(door: Any) -> Counts:
    calls = sum(
        sample.value
        for metric in door.metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "dubstage_rpcs_in_flight" and not sample.labels.get("rpc", "").endswith("/Watch")
    )
    return Counts(len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd")), int(calls))


def _write_whole(file: Path, facts: Mapping[str, object]) -> None:
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(facts))
    partial.replace(file)


if __name__ == "__main__":
    from services.common.server.telemetry import configure_logging

    configure_logging(level="error", log_format="json", stage="hostile")
    asyncio.run(_serve(Path(sys.argv[1]), json.loads(sys.argv[2])))
    sys.stdout.flush()
    os._exit(0)
