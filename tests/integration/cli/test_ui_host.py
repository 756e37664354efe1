"""`dubstage ui --host`: the pages of a container, which only the token of this start opens."""

import http.client
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from tests.contract.ports import free_port
from tests.integration.servers import RunningStages


def test_pages_at_all_addresses(stages: RunningStages, tmp_path: Path) -> None:
    """The printed address is that of this machine, and callers without the token get the sign-in or a refusal."""
    endpoints = {f"DUBSTAGE_{name.upper()}": address for name, address in stages.endpoints().items()}
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "gateway.cli", "ui", "--no-browser", "--host", "0.0.0.0", "--port", str(port)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **endpoints, "DUBSTAGE_DATA_DIR": str(tmp_path)},
    )
    try:
        assert process.stdout is not None
        address = urlsplit(process.stdout.readline().split(" at ")[1].strip())
        assert (address.hostname, address.port, address.path) == ("127.0.0.1", port, "/ui/sign-in")
        token = address.fragment
        # Of the loopback network, and not the address that the pages have by default.
        with closing(http.client.HTTPConnection("127.0.0.2", port, timeout=60)) as connection:
            answers = []
            for path, headers in (("/ui/dubs", {}), ("/healthz", {}), ("/healthz", {"Authorization": f"Bearer {token}"})):
                connection.request("GET", path, headers=headers)
                answer = connection.getresponse()
                answer.read()
                answers.append((answer.status, (answer.getheader("location") or "").partition("?")[0]))
        assert answers == [(303, "/ui/sign-in"), (401, ""), (200, "")]
        listening = {connection.laddr for connection in psutil.Process(process.pid).net_connections("tcp") if not connection.raddr}
        # The port of gRPC, which nobody asked for, stays on this machine.
        assert {ip.removeprefix("::ffff:") for ip, number in listening if number != port} == {"127.0.0.1"}
        process.send_signal(2)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert not list(tmp_path.glob(".ui-token*"))


def test_address_of_another_machine(tmp_path: Path) -> None:
    """An address that this machine does not have is refused by the name of the option."""
    command = [sys.executable, "-P", "-m", "gateway.cli", "ui", "--no-browser", "--host", "192.0.2.1"]
    environment = {**os.environ, "DUBSTAGE_DATA_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 10
    assert "set --host to an address of this machine" in done.stderr
