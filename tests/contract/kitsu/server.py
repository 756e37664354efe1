"""Kitsu's own API server (zou) in processes of its own, with PostgreSQL and Redis."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gazu
import pytest

from tests.contract.ports import free_port
from tests.contract.stores.postgres_servers import PASSWORD, running_postgres

_PROGRAMS = Path(__file__).resolve().parents[3] / ".kitsu" / "bin"


@dataclass(frozen=True)
class KitsuServer:
    """A server with the data of a new installation, and a client of its administrator."""

    url: str
    admin: Any


@contextmanager
def running_kitsu() -> Iterator[KitsuServer]:
    """A server that ends with the context."""
    if not (_PROGRAMS / "zou").exists():
        pytest.skip("Kitsu's API server is missing: make .kitsu/.ready")
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="dubstage-kitsu-", ignore_cleanup_errors=True))
        postgres = stack.enter_context(running_postgres())
        postgres.execute("CREATE DATABASE kitsu")
        port, store = str(free_port()), str(free_port())
        values = {
            "DB_HOST": "127.0.0.1",
            "DB_PORT": str(postgres.port),
            "DB_PASSWORD": PASSWORD,
            "DB_DATABASE": "kitsu",
            "KV_PORT": store,
            "SECRET_KEY": "a secret key of the tests, long enough",
            "MAIL_ENABLED": "false",
            "MAIL_CHECK_DELIVERABILITY": "false",
            "HOME": folder,
            "TMPDIR": folder,
        }
        environment = {**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, **values}

        def start(program: str, *arguments: str) -> None:
            command = [_PROGRAMS / program, *arguments]
            quiet = subprocess.DEVNULL
            process = stack.enter_context(subprocess.Popen(command, cwd=folder, env=environment, stdout=quiet, stderr=quiet))
            stack.callback(process.terminate)

        start("redis-server", "--bind", "127.0.0.1", "--port", store, "--save", "")
        for command in (["init-db"], ["init-data"], ["create-admin", "--password", PASSWORD, "admin@example.com"]):
            ran = subprocess.run([_PROGRAMS / "zou", *command], cwd=folder, env=environment, capture_output=True, check=False)
            assert ran.returncode == 0, ran.stderr[-2000:]
        workers = ("--worker-class", "gthread", "--threads", "2", "--graceful-timeout", "1")
        start("gunicorn", *workers, "--bind", f"127.0.0.1:{port}", "zou.app:app")
        admin = gazu.client.create_client(f"http://127.0.0.1:{port}")
        end = time.monotonic() + 120
        while not gazu.client.host_is_up(client=admin):
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.2)
        gazu.log_in("admin@example.com", PASSWORD, client=admin)
        yield KitsuServer(admin.host, admin)
        admin.session.close()
