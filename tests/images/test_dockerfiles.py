from __future__ import annotations

import importlib
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from services.common.settings import DEFAULT_PORTS
from tests.images.dockerfile import ALL, ROOT, SERVICES, STAGES, TRITON, TRITON_CUDA, Dockerfile, path_of, read

LABELS = ("title", "description", "version", "revision", "source", "licenses", "base.name")
files = pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(ROOT)))
services = pytest.mark.parametrize("service", SERVICES)


def module_of(service: str) -> str:
    return "gateway" if service == "gateway" else f"services.{service}"


def dependencies_arguments(file: Dockerfile) -> list[str]:
    (command,) = [run for stage in file.stages for run in stage.all("RUN") if "images/dependencies.sh" in run]
    return shlex.split(command.partition("images/dependencies.sh")[2])


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([Path(sys.executable).with_name("hadolint"), *ALL], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("script", sorted([*ROOT.glob("images/*.sh"), *ROOT.glob("scripts/*.sh")]), ids=lambda path: path.name)
def test_shell_scripts_parse_and_may_be_executed(script: Path) -> None:
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0
    assert script.stat().st_mode & 0o111


@files
def test_the_image_runs_as_nobody_in_particular(path: Path) -> None:
    final = read(path).final
    assert final.all("USER") == ["65532:65532"]
    assert not {"RUN", "COPY", "ADD"} & {
        kind for kind, _ in final.instructions[[kind for kind, _ in final.instructions].index("USER") :]
    }


@files
def test_the_image_says_what_it_is(path: Path) -> None:
    labels = read(path).final.labels()
    assert {f"org.opencontainers.image.{name}" for name in LABELS} == labels.keys()
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.version"] == "${VERSION}"
    declared = {argument.split("=")[0] for argument in read(path).final.all("ARG")}
    assert {value[2:-1] for value in labels.values() if value.startswith("${")} <= declared


@files
def test_nothing_is_installed_in_the_final_stage(path: Path) -> None:
    file = read(path)
    assert len(file.stages) > 1
    assert [run for run in file.final.all("RUN") if re.search(r"pip|apt|curl|wget", run)] == []
    assert [stage.all("ADD") for stage in file.stages if stage.all("ADD")] == []


@files
def test_every_base_is_an_argument_that_a_digest_fits_into(path: Path) -> None:
    file = read(path)
    named = {stage.name for stage in file.stages}
    for stage in file.stages:
        assert stage.base in named or stage.base in {f"${{{name}}}" for name in file.defaults}
    assert file.defaults["BASE"] == "python:3.11-slim-bookworm"


@files
def test_a_health_check_asks_the_server_itself(path: Path) -> None:
    (check,) = read(path).final.all("HEALTHCHECK")
    command = json.loads(check[check.index("[") :])
    if path in (TRITON, TRITON_CUDA):
        assert any("http://127.0.0.1:8000/v2/health/live" in word for word in command)
    else:
        assert command == ["/opt/dubstage/bin/python", "-m", "services.common.health_check"]


@services
def test_a_service_starts_on_its_port(service: str) -> None:
    final = read(path_of(service)).final
    assert final.all("EXPOSE") == [f"{DEFAULT_PORTS[service]} 9090"]
    assert json.loads(final.all("ENTRYPOINT")[0]) == ["/opt/dubstage/bin/python", "-m", module_of(service)]
    assert final.environment()["DUBSTAGE_PORT"] == str(DEFAULT_PORTS[service])
    assert final.environment()["DUBSTAGE_HOST"] == "0.0.0.0"


@services
def test_its_environment_is_of_settings_that_exist(service: str) -> None:
    settings = importlib.import_module(f"{module_of(service)}.settings")
    known = getattr(settings, f"{service.capitalize()}Settings").model_fields
    given = {
        name.removeprefix("DUBSTAGE_").lower()
        for name in read(path_of(service)).final.environment()
        if name.startswith("DUBSTAGE_")
    }
    assert given <= known.keys()


@services
def test_it_carries_no_other_service(service: str) -> None:
    own = {"gateway"} if service == "gateway" else {f"services/{service}", "gateway/__init__.py"}
    common = {"images", "pyproject.toml", "constraints.txt", "protos/pyproject.toml", "README.md", "protos"}
    assert set(read(path_of(service)).copied()) == own | common | {"services/__init__.py", "services/common"}


@services
def test_it_installs_its_own_extra_and_no_other_services(service: str) -> None:
    extras = dependencies_arguments(read(path_of(service)))[0].split(",")
    available = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert extras[0] == service
    assert set(extras) <= available.keys()
    assert set(extras[1:]) <= {"s3", "postgres", "models3d"}


def test_mediapipe_is_in_the_face_image_alone_and_in_the_version_of_make_setup() -> None:
    further = {service: dependencies_arguments(read(path_of(service)))[1:] for service in SERVICES}
    (version,) = set(re.findall(r"mediapipe==[\d.]+", (ROOT / "Makefile").read_text(encoding="utf-8")))
    assert further == {service: [version] if service == "face" else [] for service in SERVICES}


@pytest.mark.parametrize("service", [service for service in STAGES if service != "audio"])
def test_stages_differ_by_their_names_arguments_and_environment_only(service: str) -> None:
    def skeleton(name: str) -> list[tuple[str, str, str]]:
        return [
            (stage.name, kind, re.sub(rf"\b({name}|{DEFAULT_PORTS[name]})\b", "@", arguments))
            for stage in read(path_of(name)).stages
            for kind, arguments in stage.instructions
            if kind not in ("ARG", "ENV", "LABEL") and "images/" not in arguments
        ]

    assert skeleton(service) == skeleton("audio")


@files
def test_what_is_copied_is_in_the_build_context(path: Path) -> None:
    ignore = [
        line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")
    ]
    assert ignore[0] == "*"
    kept = {line[1:] for line in ignore if line.startswith("!")}
    for source in read(path).copied():
        assert (ROOT / source).exists()
        assert source.split("/")[0] in kept


def test_training_code_is_left_out() -> None:
    assert "services/*/train" in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()


def test_triton_listens_to_its_own_pod_alone() -> None:
    for path in (TRITON, TRITON_CUDA):
        (arguments,) = read(path).final.all("CMD")
        assert {"--grpc-address=127.0.0.1", "--http-address=127.0.0.1"} <= set(json.loads(arguments))
