"""The parts of a cluster as processes on 127.0.0.1: PostgreSQL, S3, Triton, the five stages, and two gateways."""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.stages.interface import STAGE_NAMES
from services.render.backends.model_files import WEIGHTS_FOLDER
from services.render.triton.repository import RepositorySpec, write_repository
from tests.contract.ports import free_port
from tests.contract.stores.postgres_servers import PostgresServer, running_postgres
from tests.contract.stores.s3_servers import BUCKET, KEY, SECRET, Proxy, running_s3
from tests.drill.servers import Server

DATABASE = "drill"
GATEWAYS = ("gateway-a", "gateway-b")
DISK_BYTES = 512 << 20
"""Size of the disk of the second gateway, which one fault fills."""
_ON_OWN_DISK = 'mount -t tmpfs -o size="$1" dubstage-drill "$2" && shift 2 && exec "$@"'


class Platform:
    """The running servers; a context manager.

    Args:
        folder: gets the media folder, the gateways' data, and the logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.media = folder / "media"
        self.servers: dict[str, Server] = {}
        self.postgres: PostgresServer
        self.store: Proxy
        self.target = ""
        self._stack = ExitStack()
        self._run = folder / "run"

    def data_of(self, gateway: str) -> Path:
        """Data folder of a gateway, as its process sees the folder."""
        return self.folder / gateway

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._open(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def _open(self, stack: ExitStack) -> None:
        for path in (self.media, self._run, *map(self.data_of, GATEWAYS)):
            path.mkdir(parents=True, exist_ok=True)
        self.postgres = stack.enter_context(running_postgres())
        self.postgres.execute(f"CREATE DATABASE {DATABASE}")
        s3 = stack.enter_context(running_s3())
        self.store = Proxy(int(s3.endpoint.rpartition(":")[2]))
        stack.callback(self.store.close)
        common = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DUBSTAGE_"))},
            "DUBSTAGE_SETTINGS_FILE": os.devnull,
            "AWS_ENDPOINT_URL": self.store.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_EC2_METADATA_DISABLED": "true",
            "DUBSTAGE_ARTEFACTS_URL": f"s3://{BUCKET}/artefacts",
            "DUBSTAGE_COMPUTE_THREADS": "1",
            "DUBSTAGE_LOG_FORMAT": "json",
        }
        triton = self._start_triton(stack, common)
        ports = {name: free_port() for name in (*STAGE_NAMES, *GATEWAYS)}
        for name in STAGE_NAMES:
            own = {"DUBSTAGE_PORT": str(ports[name]), "DUBSTAGE_METRICS_PORT": "0"}
            if name == "render":
                own |= {"DUBSTAGE_BACKEND": "triton", "DUBSTAGE_TRITON_URL": triton}
            self._start(stack, name, [sys.executable, "-m", f"services.{name}"], common | own)
        watermark_key = self.folder / "watermark.key"
        watermark_key.write_bytes(secrets.token_bytes(32))
        endpoints = {f"DUBSTAGE_{name.upper()}_ENDPOINT": f"127.0.0.1:{ports[name]}" for name in STAGE_NAMES}
        for name in GATEWAYS:
            data = self.data_of(name)
            own = {
                "DUBSTAGE_PORT": str(ports[name]),
                "DUBSTAGE_METRICS_PORT": "0",
                "DUBSTAGE_DATA_DIR": str(data),
                "DUBSTAGE_MEDIA_DIR": str(self.media),
                "DUBSTAGE_DATABASE_URL": self.postgres.url(DATABASE),
                # A gateway that takes a shot over gives the same pictures only with the same key.
                "DUBSTAGE_WATERMARK_KEY_FILE": str(watermark_key),
            }
            command = [sys.executable, "-m", "gateway"]
            self._start(stack, name, _with_disk(data, command) if name == GATEWAYS[-1] else command, common | endpoints | own)
        for server in self.servers.values():
            server.wait_until_ready()
        self.target = "ipv4:" + ",".join(f"127.0.0.1:{ports[name]}" for name in GATEWAYS)

    def _start_triton(self, stack: ExitStack, environment: dict[str, str]) -> str:
        repository = self.folder / "models"
        repository.mkdir()
        write_repository(repository, WEIGHTS_FOLDER, RepositorySpec())
        grpc, http, metrics = free_port(), free_port(), free_port()
        command = [sys.executable, "-m", "services.render.triton.launch", "--repository", str(repository)]
        command += ["--grpc-port", str(grpc), "--http-port", str(http), "--metrics-port", str(metrics)]
        self.servers["triton"] = stack.enter_context(Server("triton", command, environment, self._run, waits=False))
        return f"127.0.0.1:{grpc}"

    def _start(self, stack: ExitStack, name: str, command: list[str], environment: dict[str, str]) -> None:
        self.servers[name] = stack.enter_context(Server(name, command, environment, self._run))


def _with_disk(data: Path, command: list[str]) -> list[str]:
    """Return the command of a process that alone sees a small disk in the place of the folder."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", "--mount", *user, "sh", "-c", _ON_OWN_DISK, "sh", str(DISK_BYTES), str(data), *command]
