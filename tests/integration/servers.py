"""The five stages and gateways as real servers on free ports, in this process."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dubstage.client import Connection, connect
from gateway.settings import GatewaySettings
from gateway.stages.local import compose_stages
from services.common.server.process import server_of
from services.common.server.server import StageServer
from services.common.server.settings import StageSettings
from services.common.store.artefacts import OWNER

T = TypeVar("T")
Server = TypeVar("Server", bound=StageServer)


class LoopThread:
    """An event loop of its own, so that tests call the servers as other processes would: over their ports, synchronously."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=300)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self) -> None:
        # At its end a runner cancels the tasks that are left, such as the shutdown watcher of the event streams.
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.get_loop().run_forever()


async def started(make: Callable[[], Server]) -> Server:
    """Make a server on the loop, and return the server when it is warm."""
    server = make()
    try:
        await server.start()
        await server.warm_up()
    except BaseException:
        await server.drain(grace_s=0)
        raise
    return server


@dataclass(frozen=True)
class RunningStages:
    """Addresses of the five stages, and the store that they share."""

    ports: dict[str, int]
    artefacts: Path

    def endpoints(self) -> dict[str, str]:
        return {f"{name}_endpoint": f"127.0.0.1:{port}" for name, port in self.ports.items()}

    def connect(self, name: str) -> Connection:
        return connect(f"127.0.0.1:{self.ports[name]}", timeout_s=300)

    def blobs(self) -> set[str]:
        """Names of all files in the store but the one that names the store's database."""
        return {path.name for path in self.artefacts.rglob("*") if path.is_file()} - {OWNER}

    def let_another_database_own_the_store(self) -> None:
        """Tests with databases of their own share these stages and their store: each test has footage, and so blobs, of its own."""
        for name in (*self.artefacts.glob(OWNER), *self.artefacts.glob(f"tenants/*/{OWNER}")):
            name.unlink()


@contextmanager
def serving_at(loop_thread: LoopThread, artefacts_url: str) -> Iterator[dict[str, int]]:
    """The ports of five servers on one store, warm, with the networks that the environment names."""
    settings = StageSettings(port=0, artefacts_url=artefacts_url, drain_grace_s=0.0)
    parts = compose_stages(artefacts_url)
    servers: dict[str, StageServer] = {}

    async def start() -> None:
        for name, part in parts.items():
            servers[name] = server_of(name, settings, part)
            await servers[name].start()
        await asyncio.gather(*(server.warm_up() for server in servers.values()))

    async def stop() -> None:
        for server in servers.values():
            await server.drain(grace_s=0)

    loop_thread.run(start())
    yield {name: server.port for name, server in servers.items()}
    loop_thread.run(stop())


@contextmanager
def serving_stages(loop_thread: LoopThread, artefacts: Path) -> Iterator[RunningStages]:
    """Five servers as `serving_at` starts them, on a store in a folder."""
    with serving_at(loop_thread, str(artefacts)) as ports:
        yield RunningStages(ports, artefacts)


@dataclass(frozen=True)
class RunningGateway:
    """A gateway, its folders and how to reach it."""

    server: StageServer
    data: Path
    settings: GatewaySettings

    def connect(self, **options: Any) -> Connection:
        return connect(self.server.address, **{"timeout_s": 300, **options})


StartGateway = Callable[..., RunningGateway]
