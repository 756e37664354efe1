"""`charts/images/build.sh` with a recorder in the place of docker, podman and buildah."""

import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.charts.images.dockerfile import ROOT, TABLE, read_services

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
RECORDER = """#!/bin/sh
[ "$1" = images ] && { echo "registry.example/team/audio:1.2  578 MB"; exit 0; }
printf '%s\\n' "$(basename "$0")" "$@" -- >> "$RECORD"
"""


class Recorder:
    def __init__(self, folder: Path) -> None:
        self.folder, self.record = folder, folder / "record"
        self.folder.mkdir()

    def install(self, *names: str) -> None:
        for name in names:
            program = self.folder / name
            program.write_text(RECORDER)
            program.chmod(0o755)

    def run(self, **settings: str) -> subprocess.CompletedProcess[str]:
        own = {"PATH": f"{self.folder}:/usr/bin:/bin", "HOME": os.environ.get("HOME", "/"), "RECORD": str(self.record)}
        command = ["sh", ROOT / "charts/images/build.sh"]
        return subprocess.run(command, env=own | settings, capture_output=True, text=True, check=False)

    def calls(self) -> list[list[str]]:
        return [call.splitlines() for call in self.record.read_text().split("\n--\n") if call]


@pytest.fixture
def engine(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path / "bin")


def arguments_of(call: list[str]) -> dict[str, str]:
    return dict(call[index + 1].split("=", 1) for index, word in enumerate(call) if word == "--build-arg")


def test_all_images_are_built_from_the_checkout(engine: Recorder) -> None:
    engine.install("buildah")
    assert engine.run(CONTAINER="buildah").returncode == 0
    tags = [call[call.index("--tag") + 1] for call in engine.calls()]
    assert tags == [f"dubstage/{name}:{VERSION}" for name in (*TABLE, "workstation", "triton")]
    for call in engine.calls():
        assert call[:4] == ["buildah", "build", "--format", "docker"]
        assert call[-1] == "."
        assert (ROOT / call[call.index("--file") + 1]).is_file()


def test_settings_become_build_arguments(engine: Recorder) -> None:
    engine.install("docker")
    done = engine.run(
        CONTAINER="docker",
        REGISTRY="registry.example/team",
        VERSION="1.2",
        IMAGES="audio render",
        BASE="python@sha256:0",
        TORCH_INDEX="",
        PIP_ARGUMENTS="--index-url https://pypi.example/simple",
        PIP_CONF="/pip.conf",
        SOURCE="https://git.example/dubstage",
        BUILD_ARGUMENTS="--network host",
    )
    audio, render = engine.calls()
    assert audio[:2] == ["docker", "build"]
    assert audio[audio.index("--tag") + 1] == "registry.example/team/audio:1.2"
    assert audio[audio.index("--secret") + 1] == "id=pip.conf,src=/pip.conf"
    assert audio[audio.index("--network") + 1] == "host"
    given = arguments_of(audio)
    assert given.pop("REVISION")
    assert given == {
        "VERSION": "1.2",
        "SOURCE": "https://git.example/dubstage",
        "BASE": "python@sha256:0",
        "PIP_ARGUMENTS": "--index-url https://pypi.example/simple",
        "SERVICE": "audio",
        "CODE": "services/audio",
        "PORT": "50051",
        "IMPORT": "services.audio.__main__",
        "EXTRAS": "audio,s3",
        "WITHOUT": "",
        "DESCRIPTION": "features of speech, voice activity",
    }
    more = {name: value for name, value in arguments_of(render).items() if name not in given | {"REVISION": ""}}
    assert more == {"ACCELERATOR": "cpu", "TORCH_INDEX": ""}
    assert "578 MB" in done.stdout


def test_cuda_build_packages(engine: Recorder) -> None:
    """CUDA builds take PyPI's torch, the other Triton, and PyTorch3D if it is given."""
    engine.install("podman")
    wheel = "https://wheels.example/pytorch3d.whl"
    done = engine.run(CONTAINER="podman", ACCELERATOR="cuda", IMAGES="face motion render suite triton", PYTORCH3D=wheel)
    assert done.returncode == 0
    face, motion, render, suite, triton = engine.calls()
    assert arguments_of(face)["PYTORCH3D"] == wheel
    assert "PYTORCH3D" not in arguments_of(motion)
    assert (arguments_of(suite)["ACCELERATOR"], arguments_of(suite)["PYTORCH3D"]) == ("cuda", wheel)
    assert (arguments_of(render)["ACCELERATOR"], arguments_of(render)["TORCH_INDEX"]) == ("cuda", "")
    assert triton[triton.index("--file") + 1] == "services/render/triton/Dockerfile.cuda"


def test_without_torch_index_the_dockerfile_decides(engine: Recorder) -> None:
    engine.install("podman")
    engine.run(CONTAINER="podman", IMAGES="render")
    assert "TORCH_INDEX" not in arguments_of(engine.calls()[0])


def test_table_rows_reach_the_build(engine: Recorder) -> None:
    engine.install("buildah")
    engine.run(CONTAINER="buildah", IMAGES=" ".join(TABLE))
    for call, row in zip(engine.calls(), read_services().values(), strict=True):
        given = arguments_of(call)
        assert (given["SERVICE"], given["CODE"], given["PORT"]) == (row.service, row.code, str(row.port))
        assert (given["IMPORT"], given["EXTRAS"]) == (",".join(row.imported), ",".join(row.extras))
        assert given["DESCRIPTION"] == row.description
        assert given["WITHOUT"] == ",".join(row.without)
        assert call[call.index("--target") + 1] == (row.service if row.service in ("gateway", "suite") else "service")
        assert given.get("SERVICES") == ("services" if row.service == "suite" else None)


def test_workstation_shares_layers_of_suite(engine: Recorder) -> None:
    """The workstation has the arguments of the suite, so that a builder takes over the layers of the suite."""
    engine.install("buildah")
    engine.run(CONTAINER="buildah", IMAGES="suite workstation", TORCH_INDEX="", PYTORCH3D="https://wheels.example/pytorch3d.whl")
    suite, workstation = engine.calls()
    assert arguments_of(suite) == arguments_of(workstation)
    assert [call[call.index("--target") + 1] for call in (suite, workstation)] == ["suite", "workstation"]
    assert workstation[workstation.index("--tag") + 1] == f"dubstage/workstation:{VERSION}"


def test_unknown_image_refused_before_build(engine: Recorder) -> None:
    engine.install("buildah")
    done = engine.run(CONTAINER="buildah", IMAGES="audio lips")
    assert done.returncode == 1
    assert "'lips'" in done.stderr
    assert "audio face motion texture render gateway suite workstation triton" in done.stderr
    assert not engine.record.exists()


def test_an_unknown_program_is_refused(engine: Recorder) -> None:
    done = engine.run(CONTAINER="kaniko")
    assert done.returncode == 1
    assert "'kaniko'" in done.stderr
