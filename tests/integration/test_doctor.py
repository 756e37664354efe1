"""`dubstage doctor` against real stages, stores and databases: each thing that is wrong has a line with its remedy."""

import asyncio
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.cli import doctor as cli_doctor
from gateway.cli.doctor import READ_ARTEFACTS, check_stage
from gateway.settings import GatewaySettings
from gateway.stages.interface import STAGE_NAMES
from services.audio.__main__ import compose
from services.audio.settings import AudioSettings
from services.common.errors import BackendUnavailableError, InvalidRequestError, StorageRefusedError
from services.common.server.process import server_of
from tests.integration.servers import RunningStages

WITHOUT_STAGES = """
import importlib.metadata, sys
PACKAGES = {"onnxruntime", "openvino", "torch", "mediapipe"}
MODULES = {f"services.{stage}" for stage in ("audio", "face", "motion", "texture", "render")}
found = importlib.metadata.Distribution.from_name.__func__

@classmethod
def from_name(cls, name):
    if name in PACKAGES:
        raise importlib.metadata.PackageNotFoundError(name)
    return found(cls, name)

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in PACKAGES | MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

importlib.metadata.Distribution.from_name = from_name
sys.meta_path.insert(0, Absent())
"""
"""Start of a Python that has what the image of the gateway has."""


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stages: RunningStages) -> pytest.MonkeyPatch:
    monkeypatch.setenv("DUBSTAGE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("DUBSTAGE_ARTEFACTS_URL", str(stages.artefacts))
    for name, port in stages.ports.items():
        monkeypatch.setenv(f"DUBSTAGE_{name.upper()}_ENDPOINT", f"127.0.0.1:{port}")
    return monkeypatch


@dataclass(frozen=True)
class Report:
    """Output of the command: mark and text by check, and what came on stderr."""

    code: int
    printed: str
    errors: str

    def __getitem__(self, name: str) -> tuple[str, str]:
        (line,) = [line for line in self.printed.splitlines() if line[8:32].strip() == name]
        return line[:8].strip(), line[32:]


def doctor() -> Report:
    command = [sys.executable, "-m", "gateway.cli", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    return Report(done.returncode, done.stdout, done.stderr)


def settings(stages: RunningStages, tmp_path: Path, **changes: str) -> GatewaySettings:
    given = {"data_dir": tmp_path, "artefacts_url": str(stages.artefacts), **stages.endpoints(), **changes}
    return GatewaySettings(**given)


def test_healthy_stages_pass(environment: pytest.MonkeyPatch, stages: RunningStages) -> None:
    """Healthy stages on one store are all right and nothing is left in it."""
    before = stages.blobs()
    said = doctor()
    assert said.code == 0, said.printed
    assert said.errors == "", "notes of libraries are no findings"
    assert [said[f"{name} stage"][0] for name in STAGE_NAMES] == ["ok"] * 5
    assert all(str(stages.artefacts) in said[f"{name} stage"][1] for name in READ_ARTEFACTS)
    assert all(re.search(r", ugc [0-9a-f]{12}", said[f"{name} stage"][1]) for name in ("motion", "render"))
    assert "put, read, deleted" in said["artefact store"][1]
    assert "actors.sqlite" in said["database"][1]
    assert stages.blobs() <= before


async def test_doctor_checks_the_token(tmp_path: Path) -> None:
    """A stage is asked with the token and a wrong one is reported with its remedy."""
    accepted, wrong = tmp_path / "accepted", tmp_path / "wrong"
    accepted.write_text("a-token\n")
    wrong.write_text("another-token\n")
    stage = AudioSettings(port=0, drain_grace_s=0, auth_token_file=accepted)
    async with server_of("audio", stage, compose(stage)) as server:
        common = {"data_dir": tmp_path, "audio_endpoint": server.address}
        assert "serves dubstage.audio" in await check_stage(GatewaySettings(**common, stages_token_file=accepted), "audio")
        for changes in ({}, {"stages_token_file": wrong}):
            with pytest.raises(InvalidRequestError, match=r"does not accept this gateway: .*set DUBSTAGE_STAGES_TOKEN_FILE"):
                await check_stage(GatewaySettings(**common, **changes), "audio")


def test_local_stages_need_no_store(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A process that calls its stages needs nothing of theirs."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_STAGES)
    environment.setenv("PYTHONPATH", str(tmp_path))
    said = doctor()
    assert said.code == 0, said.printed + said.errors
    assert "torch" not in said.printed


@pytest.mark.parametrize("name", READ_ARTEFACTS)
async def test_a_stage_on_another_store_is_named(stages: RunningStages, tmp_path: Path, name: str) -> None:
    elsewhere = settings(stages, tmp_path, artefacts_url=str(tmp_path / "elsewhere"))
    with pytest.raises(StorageRefusedError, match=f"the {name} stage does not see the gateway's artefact store"):
        await check_stage(elsewhere, name)


async def test_other_volume_is_detected(stages: RunningStages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same path on another volume is found out."""
    from services.common.store.artefacts import ArtefactStore

    # The same url, but what this process puts does not get there.
    put = ArtefactStore.put_bytes

    def put_and_lose(store: ArtefactStore, data: bytes) -> object:
        ref = put(store, data)
        store.delete(ref)
        return ref

    monkeypatch.setattr(ArtefactStore, "put_bytes", put_and_lose)
    with pytest.raises(StorageRefusedError, match="the same volume"):
        await check_stage(settings(stages, tmp_path), "texture")


async def test_wrong_endpoints_are_named(stages: RunningStages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that is away, another stage, and a listener that is no stage are reported in time."""
    with pytest.raises(InvalidRequestError, match="DUBSTAGE_RENDER_ENDPOINT"):
        await check_stage(settings(stages, tmp_path, render_endpoint=f"127.0.0.1:{stages.ports['audio']}"), "render")
    monkeypatch.setattr(cli_doctor, "REACH_SECONDS", 1.0)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{probe.getsockname()[1]}"
        with pytest.raises(BackendUnavailableError, match="dubstage serve face") as caught:
            await check_stage(settings(stages, tmp_path, face_endpoint=endpoint), "face")
    assert endpoint in caught.value.message
    monkeypatch.setattr(cli_doctor, "REACH_SECONDS", 1.0)
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(BackendUnavailableError):
            await asyncio.wait_for(check_stage(settings(stages, tmp_path, audio_endpoint=f"127.0.0.1:{port}"), "audio"), 90)


def test_problems_one_line_exit_one(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    environment.setenv("DUBSTAGE_ARTEFACTS_URL", str(tmp_path / "file"))
    environment.setenv("DUBSTAGE_DATABASE_URL", "postgresql+psycopg://user:hidden-word@127.0.0.1:9/dubs")
    environment.delenv("DUBSTAGE_FACE_ENDPOINT")
    said = doctor()
    assert said.code == 1
    for name, variable in {"artefact store": "ARTEFACTS_URL", "database": "DATABASE_URL", "face stage": "FACE_ENDPOINT"}.items():
        mark, text = said[name]
        assert mark == "wrong"
        assert f"DUBSTAGE_{variable}" in text
    assert said["audio stage"][0] == "ok"
    assert "hidden-word" not in said.printed + said.errors
    assert said.errors == ""
