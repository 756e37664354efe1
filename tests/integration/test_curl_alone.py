"""The documented dub by curl alone, from a container: another root folder, network, and space of processes and mounts."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import pytest

from tests.contract.ports import free_port
from tests.integration.client_calls import until
from tests.integration.videos import write_short_clip

PAGE = Path(__file__).parents[2] / "docs" / "integrating.md"
PROGRAMS = ("sh", "curl", "openssl", "base64")
TOKEN = "token-of-the-container"
FRAMES = 37
"""Another length than other tests' footage, whose blobs other gateways count."""


def commands() -> list[str]:
    """The commands of the page for a machine that shares no disk with the gateway."""
    _, _, text = PAGE.read_text(encoding="utf-8").partition("From a machine that shares no disk with the gateway:\n")
    block = text.partition("\n`curl -C N")[0]
    return re.findall(r"^    (curl .*?)(?:  #.*)?$", block, re.MULTILINE)


def on_host(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


@dataclass(frozen=True)
class Container:
    """Namespaces with a root folder that holds four programs.

    Attributes:
        network: name of the network namespace.
        root: the root folder.
        gateway: address of the host in the network of the container.
    """

    network: str
    root: Path
    gateway: str

    def run(self, command: str) -> str:
        apart = ("unshare", "--mount", "--pid", "--fork", "--ipc", "--uts")
        inside = ("chroot", self.root, "/bin/sh", "-ec", f"cd /home; export HOME=/home; {command}")
        return on_host("ip", "netns", "exec", self.network, *apart, *inside)


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    programs = [shutil.which(name) for name in PROGRAMS]
    if os.geteuid() != 0 or None in [*programs, *map(shutil.which, ("ip", "unshare", "ldd"))]:
        pytest.skip(f"a container needs root, ip, unshare, ldd and {', '.join(PROGRAMS)}")
    root = tmp_path / "root"
    for folder in ("bin", "home", "dev"):
        (root / folder).mkdir(parents=True)
    for program in map(str, programs):
        shutil.copy(program, root / "bin")
        for library in re.findall(r"(/\S+)", "".join(line.split("=>")[-1] for line in on_host("ldd", program).splitlines())):
            target = root / library.removeprefix("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)
    network, device, net = f"dub{os.getpid()}", f"veth{os.getpid()}", f"10.213.{os.getpid() % 256}"
    if subprocess.run(["ip", "netns", "add", network], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine makes no network namespaces")
    try:
        on_host("ip", "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", network)
        on_host("ip", "addr", "add", f"{net}.1/30", "dev", device)
        on_host("ip", "link", "set", device, "up")
        on_host("ip", "-n", network, "addr", "add", f"{net}.2/30", "dev", "eth0")
        on_host("ip", "-n", network, "link", "set", "eth0", "up")
        yield Container(network, root, f"{net}.1")
    finally:
        # The pair of devices goes with the namespace.
        on_host("ip", "netns", "delete", network)


@pytest.mark.long
def test_dub_by_curl_from_container(start_gateway, container, media, carphone, tmp_path) -> None:
    """The commands of the page, as they stand there: files are sent, dubbed and fetched."""
    home, port = container.root / "home", free_port()
    write_short_clip(carphone, home / "shot.mp4", FRAMES)
    shutil.copy(media.speech, home / "speech.wav")
    (home / ".curlrc").write_text(f'header = "Authorization: Bearer {TOKEN}"\nsilent\nshow-error\nfail-with-body\n')
    (tmp_path / "media").mkdir()
    start_gateway(host=container.gateway, tokens=[TOKEN], media_dir=tmp_path / "media", http_port=port)
    server = f"{container.gateway}:{port}"
    *sending, dub, fetch = [command.replace("localhost:8080", server) for command in commands()]
    assert len(sending) == 2
    for command in sending:
        container.run(command)
    assert '"outputUri"' in dub
    name = json.loads(container.run(dub.replace('"outputUri"', '"skipPersonalization": true, "outputUri"')))["name"]
    until(lambda: json.loads(container.run(f"curl {server}/v1/{name}")).get("done", False), seconds=300)
    found = json.loads(container.run(f"curl {server}/v1/{name}"))
    assert "error" not in found, found
    container.run(fetch)
    with av.open(str(home / "dubbed.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == FRAMES
    assert not (tmp_path / "media" / "shot.mp4").exists()
