"""`pip install 'dubstage[suite]'`: the names, extras and versions fit together without a second step."""

import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from services.face import mediapipe_wheel
from tests.integration.cli.test_clean_installation import EXTRAS

ROOT: Final = Path(__file__).parents[2]
FOLDERS: Final = {"dubstage": "protos", "dubstage-suite": "."}
OURS: Final = {*FOLDERS, mediapipe_wheel.NAME}
PYTHONS: Final = tuple(mediapipe_wheel.SHA256)
PLATFORMS: Final = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
UNPINNED: Final = {"setuptools"}
"""Needed by torch. An environment of Python 3.11 brings its own, which constraints.txt must not replace."""
WITHOUT_SUITE: Final = "from dubstage import suite; suite.find_spec = lambda name: None; "
SINGLE_STAGE: Final = "from dubstage import suite; suite.find_spec = lambda name: None if name == 'typer' else name; "


@cache
def project(name: str) -> Any:
    """Return the table `project` of one of our distributions."""
    return tomllib.loads((ROOT / FOLDERS[name] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def required(name: str, extra: str) -> Sequence[str]:
    """Return what a distribution, or one extra of it, asks for: ours as they are in the tree, others as they are installed."""
    if name == mediapipe_wheel.NAME:
        return () if extra else mediapipe_wheel.REQUIRES
    if name in FOLDERS:
        return project(name)["optional-dependencies"][extra] if extra else project(name)["dependencies"]
    try:
        return requires(name) or ()
    except PackageNotFoundError:
        return ()


def asked_of(python: str) -> dict[str, list[SpecifierSet]]:
    """Return all packages that `dubstage[suite]` brings on a version of Python, with everything that is asked of their versions."""
    environment = {name: str(value) for name, value in default_environment().items()}
    environment |= {"python_version": python, "python_full_version": f"{python}.9"}
    waiting, seen, asked = [Requirement("dubstage[suite]")], set[tuple[str, str]](), defaultdict[str, list[SpecifierSet]](list)
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        asked[name].append(wanted.specifier)
        for extra in {"", *wanted.extras} - {extra for seen_name, extra in seen if seen_name == name}:
            seen.add((name, extra))
            for line in map(Requirement, required(name, extra)):
                if line.marker is None or line.marker.evaluate({**environment, "extra": extra}):
                    waiting.append(line)
    return asked


def tried_versions() -> dict[str, str]:
    """Return the versions of constraints.txt by package."""
    lines = map(Requirement, (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
    return {canonicalize_name(line.name): str(line.specifier).removeprefix("==") for line in lines}


@pytest.mark.parametrize("python", PYTHONS)
def test_tried_versions_satisfy_every_package(python: str) -> None:
    """The versions of constraints.txt and of our own distributions are allowed by every package that asks for them."""
    versions = tried_versions()
    versions |= {name: project(name)["version"] for name in FOLDERS} | {mediapipe_wheel.NAME: mediapipe_wheel.VERSION}
    asked = asked_of(python)
    assert {"dubstage-mediapipe", "torch", "numpy", "av", "onnxruntime"} <= asked.keys()
    assert "mediapipe" not in asked
    assert asked.keys() - versions.keys() == UNPINNED
    assert not [name for name in asked.keys() & versions.keys() if not all(one.contains(versions[name]) for one in asked[name])]


def test_extra_brings_what_setup_brings() -> None:
    """The extra has the extras of `make setup` and MediaPipe, for the same versions of Python, and one command."""
    (line,) = map(Requirement, project("dubstage")["optional-dependencies"]["suite"])
    assert (line.name, line.extras) == ("dubstage-suite", {*EXTRAS, "mediapipe"})
    assert project("dubstage-suite")["optional-dependencies"]["mediapipe"] == [f"{mediapipe_wheel.NAME}=={mediapipe_wheel.VERSION}"]
    assert f"mediapipe=={mediapipe_wheel.VERSION}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
    supported = SpecifierSet(project("dubstage-suite")["requires-python"])
    assert [f"3.{minor}" for minor in range(20) if supported.contains(f"3.{minor}")] == list(PYTHONS)
    assert project("dubstage")["scripts"] == project("dubstage-suite")["scripts"]


@pytest.mark.parametrize("arguments", [[], ["doctor"]])
@pytest.mark.parametrize("installed", [WITHOUT_SUITE, SINGLE_STAGE])
def test_command_of_the_client_alone(installed: str, arguments: list[str]) -> None:
    """Without the suite, or with one of its stages, the command says in one line what to install."""
    program = installed + "from dubstage.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", program, *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 10
    assert re.fullmatch(r"error: only the client .* pip install 'dubstage\[suite\]==.*\n", done.stderr)


def test_command_runs_the_suite() -> None:
    program = "import sys; sys.argv = ['dubstage', '--version']; from dubstage.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("dubstage ")


@pytest.mark.long
@pytest.mark.parametrize("python", PYTHONS)
def test_every_package_has_a_wheel(python: str, tmp_path: Path) -> None:
    """The package index has a wheel of every tried version for this Python and Linux on x86-64: no compiler is needed."""
    pins = tried_versions()
    packages = sorted(f"{name}=={pins[name]}" for name in asked_of(python).keys() & pins.keys() - OURS)
    # Names and versions are given in full: pip would read the markers for the Python that it runs in.
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    command = [*pip, "--dry-run", "--ignore-installed", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", python, "--target", str(tmp_path)]
    command += [word for platform in PLATFORMS for word in ("--platform", platform)]
    done = subprocess.run([*command, *packages], check=False, capture_output=True, text=True)
    if "NewConnectionError" in done.stderr:
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.split("Would install", 1)[1].split()) == len(packages)
