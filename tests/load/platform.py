"""One gateway with the stages in its process, as a process of its own on 127.0.0.1, and the memory that it takes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from gateway.settings import TENANTS_FOLDER
from research.bench.runs import tree_memory_mib
from services.common.server.call_context import DEFAULT_TENANT
from tests.load.callers import Tenant

START_S = 600.0
END_S = 60.0
POLL_S = 0.5
ROOT = Path(__file__).parents[2]


class Gateway:
    """The running gateway; a context manager.

    Attributes:
        target: HOST:PORT.
        memory_mib: resident memory of the process and its children at each look, MiB.

    Args:
        folder: gets media, data and log.
        tenants: whose tokens the gateway accepts.
        most_live: the gateway's most live streams.
        http_port: port of HTTP; 0: the gateway serves no HTTP.
        metrics_port: port of the metrics; 0: none.
    """

    def __init__(
        self, folder: Path, tenants: Sequence[Tenant], most_live: int, *, http_port: int = 0, metrics_port: int = 0
    ) -> None:
        self.target = ""
        self.memory_mib: list[float] = []
        self.log = folder / "gateway.log"
        self._media, self._ready = folder / "media", folder / "ready"
        for tenant in tenants:
            self.media_of(tenant).mkdir(parents=True, exist_ok=True)
        tokens = folder / "tokens"
        tokens.write_text("".join(f"{tenant.name} {tenant.token}\n" for tenant in tenants), encoding="ascii")
        tokens.chmod(0o600)
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DUBSTAGE_"))},
            "DUBSTAGE_SETTINGS_FILE": os.devnull,
            "DUBSTAGE_PORT": "0",
            "DUBSTAGE_HTTP_PORT": str(http_port),
            "DUBSTAGE_METRICS_PORT": str(metrics_port),
            "DUBSTAGE_READY_FILE": str(self._ready),
            "DUBSTAGE_DATA_DIR": str(folder / "data"),
            "DUBSTAGE_ARTEFACTS_URL": str(folder / "artefacts"),
            "DUBSTAGE_MEDIA_DIR": str(self._media),
            "DUBSTAGE_AUTH_TOKEN_FILE": str(tokens),
            "DUBSTAGE_COMPUTE_THREADS": "1",
            "DUBSTAGE_MAX_LIVE_STREAMS": str(most_live),
            "DUBSTAGE_DRAIN_GRACE_S": "5",
        }
        self._process: subprocess.Popen[bytes]
        self._over = threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)

    def media_of(self, tenant: Tenant) -> Path:
        """Media folder of a tenant."""
        return self._media if tenant.name == DEFAULT_TENANT else self._media / TENANTS_FOLDER / tenant.name

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            command = [sys.executable, "-m", "gateway"]
            self._process = subprocess.Popen(
                command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT
            )
        deadline = time.monotonic() + START_S
        while not self._ready.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._end()
                raise SystemExit(f"the gateway did not come up:\n{self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(POLL_S)
        self.target = self._ready.read_text(encoding="ascii").strip()
        self._looking.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._looking.join()
        self._end()

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _look(self) -> None:
        while not self._over.wait(POLL_S):
            with suppress(psutil.NoSuchProcess):
                self.memory_mib.append(tree_memory_mib(psutil.Process(self._process.pid)))
