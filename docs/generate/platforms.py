"""Write docs/reference/platforms.md: for which platforms and versions of Python there are wheels of the pinned packages.

    make platforms                  # asks the package index through uv, a minute or more; not a part of `make test`

The packages are those that the suite, or the client alone, needs on a platform. The metadata of the packages installed here say
which these are.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from types import MappingProxyType
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from services.face import mediapipe_wheel

CHECKOUT: Final = Path(__file__).parents[2]
OUTPUT: Final = CHECKOUT / "docs" / "reference" / "platforms.md"
VERSIONS: Final = ("3.11", "3.12", "3.13")
_LINUX: Final = MappingProxyType({"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"})
PLATFORMS: Final = MappingProxyType(
    {
        "x86_64-manylinux_2_28": ("Linux, x86-64", {**_LINUX, "platform_machine": "x86_64"}),
        "aarch64-manylinux_2_28": ("Linux, ARM", {**_LINUX, "platform_machine": "aarch64"}),
        "aarch64-apple-darwin": (
            "macOS 14, ARM",
            {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix", "platform_machine": "arm64"},
        ),
        "x86_64-pc-windows-msvc": (
            "Windows, x86-64",
            {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt", "platform_machine": "AMD64"},
        ),
    }
)
"""Platforms by uv's name, each with the name of the page and the markers of its environments."""
MACOS: Final = "14.0"
"""Version of macOS whose wheels count."""
_SUITE: Final = "dubstage-suite"
_CLIENT: Final = "dubstage"
_NO_WHEEL: Final = re.compile(r"([\w.-]+)==\S+ has no (?:usable wheels|wheels with)")
_INTRODUCTION: Final = f"""# Platforms

`make platforms` writes this page: it asks the package index for wheels of the packages in constraints.txt that the suite needs,
of MediaPipe {mediapipe_wheel.VERSION}, and of those that the client alone needs. A cell names the packages without a wheel: they
stop the installation. Wheels do not say whether dubstage works: **it has run on Linux with x86-64 only**, and releases have
MediaPipe's wheel for that platform only. The suite refuses Python 3.13.
"""


class AnswerError(Exception):
    """uv failed, and names no package without a wheel."""


def needed(distribution: str, version: str, markers: dict[str, str]) -> list[str]:
    """Return the pinned packages that a distribution of ours needs in an environment, such as `av==18.1.0`, sorted.

    A package that constraints.txt does not pin, such as one for Windows only, has no version.

    Args:
        distribution: the suite with all that dubs, or the client.
        version: version of Python, such as 3.12.
        markers: markers of the environment, without the version.
    """
    environment = {**markers, "python_version": version, "python_full_version": f"{version}.0"}
    pins = _pins()
    extras_of: dict[str, set[str]] = {}
    left = [Requirement(line) for line in _own(distribution)]
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        extras = {"", *requirement.extras}
        if not _applies(requirement, environment, {""}) or extras <= extras_of.get(name, set()):
            continue
        all_extras = extras_of.setdefault(name, set())
        all_extras |= extras
        for line in _requires(name):
            inner = Requirement(line)
            if _applies(inner, environment, all_extras):
                inner.marker = None  # it may name an extra, which the package itself knows
                left.append(inner)
    return sorted(pins.get(name, name) for name in extras_of)


def _applies(requirement: Requirement, environment: dict[str, str], extras: Iterable[str]) -> bool:
    return requirement.marker is None or any(requirement.marker.evaluate({**environment, "extra": extra}) for extra in extras)


def _requires(name: str) -> list[str]:
    if name == "mediapipe":
        return list(mediapipe_wheel.REQUIRES)
    try:
        return requires(name) or []
    except PackageNotFoundError:  # for another platform than this one
        return []


def _own(distribution: str) -> Iterator[str]:
    """Yield the requirements of a distribution of ours, those of its parts included."""
    client = tomllib.loads((CHECKOUT / "protos" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    yield from client["dependencies"]
    if distribution == _SUITE:
        suite = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        (whole,) = (Requirement(line) for line in client["optional-dependencies"]["suite"])
        lines = [*suite["dependencies"], *(line for extra in whole.extras for line in suite["optional-dependencies"][extra])]
        yield from (line for line in lines if not line.startswith("dubstage"))
        yield f"mediapipe=={mediapipe_wheel.VERSION}"


def _pins() -> dict[str, str]:
    lines = (CHECKOUT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins: dict[str, str] = {
        canonicalize_name(line.partition("==")[0]): line.split()[0] for line in lines if re.match(r"[\w.-]+==", line)
    }
    return pins | {"mediapipe": f"mediapipe=={mediapipe_wheel.VERSION}"}


def without_wheel(uv: str, platform: str, version: str, packages: Iterable[str]) -> list[str]:
    """Return the packages, of those given, that have no wheel for a platform, sorted.

    Args:
        uv: the program.
        platform: uv's name of the platform.
        version: version of Python.

    Raises:
        AnswerError: uv failed for another reason, such as no network.
    """
    left, missing = list(packages), list[str]()
    words = ["pip", "compile", "--quiet", "--no-header", "--no-annotate", "--no-deps", "--only-binary", ":all:"]
    words += ["--python-platform", platform, "--python-version", version, "-"]
    while True:
        done = subprocess.run(
            [uv, *words],
            input="\n".join(left),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "MACOSX_DEPLOYMENT_TARGET": MACOS},
        )
        if done.returncode == 0:
            return sorted(missing)
        names = {canonicalize_name(name) for name in _NO_WHEEL.findall(done.stderr)}
        refused = [line for line in left if canonicalize_name(line.partition("==")[0]) in names]
        if not refused:
            raise AnswerError(f"{platform}, Python {version}: {done.stderr.strip()[-600:]}")
        # uv names one package at a time.
        missing += refused
        left = [line for line in left if line not in refused]


def page(uv: str) -> str:
    """Return the text of the page. Takes a minute or more.

    Raises:
        AnswerError: as `without_wheel`.
    """
    lines = [_INTRODUCTION]
    for distribution, title in ((_SUITE, "The suite"), (_CLIENT, "The client alone")):
        lines += [
            f"## {title}",
            "",
            f"| platform | {' | '.join(f'Python {version}' for version in VERSIONS)} |",
            "|---|---|---|---|",
        ]
        for platform, (name, markers) in PLATFORMS.items():
            cells = []
            for version in VERSIONS:
                missing = without_wheel(uv, platform, version, needed(distribution, version, markers))
                cells.append(", ".join(f"`{package}`" for package in missing) or "wheels of all")
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uv", default="uv", help="The program uv. Default: %(default)s.")
    OUTPUT.write_text(page(parser.parse_args().uv), encoding="utf-8")


if __name__ == "__main__":
    main()
