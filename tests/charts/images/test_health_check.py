import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.common.server.server import StageServer
from services.common.server.settings import StageSettings


@pytest.fixture
async def server() -> AsyncIterator[StageServer]:
    """Listens, and does not serve yet."""
    settings = StageSettings(port=0, drain_grace_s=0)
    one = StageServer("audio", settings, register=lambda _: None, services=())
    await one.start()
    yield one
    await one.drain(grace_s=0)


async def ask(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    # Longer than any pause of the machine: by default an answer must come within seconds.
    command = [sys.executable, "-m", "services.common.server.health_check", "--timeout", "60", *arguments]
    return await asyncio.to_thread(
        subprocess.run, command, env={"PATH": "/usr/bin:/bin"} | (environment or {}), capture_output=True, text=True, check=False
    )


async def test_health_check_exit_codes(server: StageServer) -> None:
    """A server that serves gives 0, one that warms up 1, an unknown service and a server that does not answer 2."""
    port = {"DUBSTAGE_PORT": str(server.port)}
    warming = await ask(environment=port)
    assert (warming.returncode, warming.stdout) == (1, "NOT_SERVING\n")
    alive = await ask("--service=liveness", "--address", f"127.0.0.1:{server.port}")
    assert (alive.returncode, alive.stdout) == (0, "SERVING\n")
    await server.warm_up()
    # The port of health alone wins.
    for environment in (port, {"DUBSTAGE_PORT": "1", "DUBSTAGE_HEALTH_PORT": str(server.port)}):
        serving = await ask(environment=environment)
        assert (serving.returncode, serving.stdout) == (0, "SERVING\n")
    nobody = await ask(environment={"DUBSTAGE_PORT": "1"})
    assert (nobody.returncode, nobody.stdout, nobody.stderr) == (2, "", "127.0.0.1:1: UNAVAILABLE\n")
    unknown = await ask("--service=nobody", environment=port)
    assert unknown.returncode == 2
    assert unknown.stderr.endswith("NOT_FOUND\n")


async def test_health_check_sends_own_token(tmp_path: Path) -> None:
    """A server that asks for a token gets its own."""
    file = tmp_path / "tokens"
    file.write_text("# farm\nacme a-token\nanother-token\n")
    one = StageServer("audio", StageSettings(port=0, drain_grace_s=0, auth_token_file=file), register=lambda _: None, services=())
    async with one:
        port = str(one.port)
        answer = await ask(environment={"DUBSTAGE_PORT": port, "DUBSTAGE_AUTH_TOKEN_FILE": str(file)})
        assert (answer.returncode, answer.stdout) == (0, "SERVING\n")
        # Another server gets no token, and a server's token file may hold none.
        refused = await ask("--address", f"localhost:{port}", environment={"DUBSTAGE_AUTH_TOKEN_FILE": str(file)})
        assert (refused.returncode, refused.stderr) == (2, f"localhost:{port}: UNAUTHENTICATED\n")
        file.write_text("")
        empty = await ask(environment={"DUBSTAGE_PORT": port, "DUBSTAGE_AUTH_TOKEN_FILE": str(file)})
        assert (empty.returncode, empty.stderr) == (2, f"the token file {file} holds no token\n")
