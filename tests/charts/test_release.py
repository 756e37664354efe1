"""What a release needs: one version in all files that repeat it, notes for users, and wheels that `make release` builds."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement

ROOT: Final = Path(__file__).parents[2]
VERSION: Final = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
_IMAGE: Final = r"dubstage/[<>$\w]+:(\d+\.\d+\.\d+)"
_PINNED: Final = r"\bdubstage(?:-suite)?(?:\[\w+\])?==(\d+\.\d+\.\d+)"
_CHART: Final = r"^(?:appVersion| *version): (\S+)$"
PLACES: Final = (
    ("pyproject.toml", r'^version = "([^"]+)"$'),
    ("pyproject.toml", r'^  "dubstage==([^"]+)",$'),
    ("protos/pyproject.toml", r'^version = "([^"]+)"$'),
    ("protos/pyproject.toml", r'"dubstage-suite\[[\w,]+\]==([^"]+)"'),
    ("research/pyproject.toml", r'^version = "([^"]+)"$'),
    ("research/pyproject.toml", r'"dubstage-suite\[[\w,]+\]==([^"]+)"'),
    ("charts/dubstage/Chart.yaml", _CHART),
    ("charts/dubstage/charts/*/Chart.yaml", _CHART),
    ("charts/dubstage/values-gpu.yaml", r"^ +tag: (\d+\.\d+\.\d+)-cuda$"),
    ("charts/dubstage/UPGRADING.md", rf"^\| ({re.escape(VERSION)}) \|"),
    ("CHANGELOG.md", rf"^## \[({re.escape(VERSION)})\]"),
    ("docs/quickstart.md", _IMAGE),
    ("README.md", _PINNED),
    ("docs/quickstart.md", _PINNED),
    ("docs/integrating.md", _PINNED),
    ("protos/dubstage/suite.py", r'^_VERSION: Final = "([^"]+)"$'),
    ("docs/kubernetes.md", _IMAGE),
    ("docs/images.md", _IMAGE),
    ("docs/images.md", r"\bVERSION=(\d+\.\d+\.\d+)"),
)
"""Files, as globs, and where each has the version."""
WHEELS: Final = {
    "dubstage": ("protos", "dubstage/gateway/v1/gateway_pb2.py"),
    "dubstage-suite": (".", "gateway/api/server.py"),
    "dubstage-research": ("research", "research/bench/__main__.py"),
}
"""Folder that each distribution is built from, and a file that its wheel must hold."""
NOT_IN_WHEELS: Final = {"research/pyproject.toml", "research/evaluation/README.md"}


def places() -> Iterator[tuple[Path, list[str]]]:
    for glob, pattern in PLACES:
        paths = sorted(ROOT.glob(glob))
        assert paths, f"{glob}: there is no such file"
        for path in paths:
            yield path, re.findall(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)


def test_version_is_repeated_everywhere() -> None:
    """Every file that repeats the version has that of pyproject.toml, and no other file repeats it."""
    assert {str(path.relative_to(ROOT)): found for path, found in places() if set(found) != {VERSION}} == {}
    named = re.compile(rf"(dubstage|version|tag)\S* ?[:=/]+ ?\S*\b{re.escape(VERSION)}\b", re.IGNORECASE)
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    texts = [ROOT / name for name in listed if name.endswith((".toml", ".yaml", ".tpl", ".json", ".md", ".sh", ".txt"))]
    found = {path for path in texts if path.is_file() and named.search(path.read_text(encoding="utf-8"))}
    assert found <= {path for path, _ in places()} | {ROOT / "CONTRIBUTING.md"}


def test_workflow_runs_documented_targets() -> None:
    """The workflow of a release is readable, and calls targets that the Makefile has."""
    workflow: dict[Any, Any] = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8"))
    commands = " ".join(step.get("run", "") for step in workflow["jobs"]["release"]["steps"])
    targets = set(re.findall(r"\bmake (?:--\S+ )?(\w+)", commands))
    assert targets == {"release", "version"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{target}:" in makefile for target in targets)
    shown = subprocess.run(["make", "--no-print-directory", "version"], cwd=ROOT, check=True, capture_output=True, text=True)
    assert shown.stdout.strip() == VERSION


@pytest.mark.parametrize("name", WHEELS)
def test_wheel_holds_every_tracked_file(name: str) -> None:
    """Weights, migrations, static files of pages and contracts: a wheel has every file of its packages."""
    folder, _ = WHEELS[name]
    held = {file.distribution_path for file in WheelBuilder(str(ROOT / folder)).recurse_included_files()}
    packages = {"protos": ["protos/dubstage"], ".": ["services", "gateway"], "research": ["research"]}[folder]
    listed = subprocess.run(
        ["git", "ls-files", *packages], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    tracked = {line.removeprefix("protos/") for line in listed} - NOT_IN_WHEELS
    assert tracked - held == set()
    contracts = {file for file in tracked if file.endswith(".proto")}
    assert {file.replace(".proto", ending) for file in contracts for ending in ("_pb2.py", "_pb2_grpc.py", "_pb2.pyi")} <= held
    if name == "dubstage-suite":
        assert {Path(file).suffix for file in held} >= {".safetensors", ".onnx", ".js", ".css", ".j2", ".flac"}


@pytest.mark.long
@pytest.mark.parametrize("name", WHEELS)
def test_each_wheel_has_the_version(name: str, tmp_path: Path) -> None:
    folder, content = WHEELS[name]
    source = tmp_path / "source"
    ignore = shutil.ignore_patterns(".*", "out", "build", "gen", "__pycache__", "tests", "*.safetensors", "*.onnx")
    shutil.copytree(ROOT, source, ignore=ignore)
    shutil.copy(ROOT / ".gitignore", source)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    # A build must not need the import path of the tests.
    environment.pop("PYTHONPATH", None)
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=source / folder, env=environment, check=True, capture_output=True)
    with zipfile.ZipFile(tmp_path / f"{name.replace('-', '_')}-{VERSION}-py3-none-any.whl") as wheel:
        names = wheel.namelist()
        (metadata,) = (message_from_bytes(wheel.read(name)) for name in names if name.endswith(".dist-info/METADATA"))
    assert (metadata["Name"], metadata["Version"]) == (name, VERSION)
    own = [line for line in map(Requirement, metadata.get_all("Requires-Dist")) if line.name in WHEELS]
    assert {str(line.specifier) for line in own} == {f"=={VERSION}"}
    assert content in names
