"""Kitsu's own API server (zou) in processes of its own, with PostgreSQL and Redis."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gazu
import pytest
import requests

from tests.contract.ports import free_port
from tests.contract.stores.postgres_servers import PASSWORD, running_postgres

ADMIN = "admin@example.com"
ADMIN_PASSWORD = "a-password-of-tests"
_ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class KitsuServer:
    """A server with the data of a new installation, and a client of its administrator."""

    url: str
    admin: Any

    def bot(self, name: str, role: str) -> dict[str, Any]:
        """Make a bot and return its data with its `access_token`."""
        return dict(gazu.person.new_bot(name, f"{name}@example.com", role=role, client=self.admin))


@contextmanager
def running_kitsu() -> Iterator[KitsuServer]:
    """A server that ends with the context."""
    programs = Path(os.environ.get("DUBSTAGE_KITSU") or _ROOT / ".kitsu") / "bin"
    if not (programs / "zou").exists():
        pytest.skip("Kitsu's API server is missing: make .kitsu/.ready")
    folder = Path(tempfile.mkdtemp(prefix="dubstage-kitsu-"))
    port, store = free_port(), free_port()
    started: list[subprocess.Popen[bytes]] = []
    with running_postgres() as postgres, (folder / "log").open("wb") as log:
        postgres.execute("CREATE DATABASE kitsu")
        values = {
            "DB_HOST": "127.0.0.1",
            "DB_PORT": str(postgres.port),
            "DB_PASSWORD": PASSWORD,
            "DB_DATABASE": "kitsu",
            "KV_HOST": "127.0.0.1",
            "KV_PORT": str(store),
            "SECRET_KEY": "a secret key of the tests, long enough",
            "BCRYPT_LOG_ROUNDS": "4",
            "MAIL_ENABLED": "false",
            "MAIL_CHECK_DELIVERABILITY": "false",
            "PREVIEW_FOLDER": str(folder / "previews"),
            "TMP_DIR": str(folder / "tmp"),
            "PLUGIN_FOLDER": str(folder / "plugins"),
            "HOME": str(folder),
        }
        environment = {**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, **values}

        def start(program: str, *arguments: str) -> None:
            started.append(
                subprocess.Popen(
                    [programs / program, *arguments], cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
                )
            )

        try:
            start("redis-server", "--bind", "127.0.0.1", "--port", str(store), "--save", "")
            for command in (["init-db"], ["init-data"], ["create-admin", "--password", ADMIN_PASSWORD, ADMIN]):
                done = subprocess.run(
                    [programs / "zou", *command], cwd=folder, env=environment, capture_output=True, timeout=120, check=False
                )
                assert done.returncode == 0, done.stderr[-2000:]
            workers = ("--worker-class", "gthread", "--threads", "2", "--graceful-timeout", "1")
            start("gunicorn", *workers, "--bind", f"127.0.0.1:{port}", "zou.app:app")
            url = f"http://127.0.0.1:{port}"
            _wait_for(url)
            admin = gazu.client.create_client(url)
            gazu.log_in(ADMIN, ADMIN_PASSWORD, client=admin)
            yield KitsuServer(url, admin)
        finally:
            for process in reversed(started):
                process.terminate()
            for process in started:
                process.wait(30)
            shutil.rmtree(folder, ignore_errors=True)


def _wait_for(url: str) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            if requests.get(url, timeout=10).ok:
                return
        except requests.RequestException:
            pass
        time.sleep(0.2)
    raise TimeoutError(f"{url} does not answer")
