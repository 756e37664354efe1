"""`python -m charts.release VERSION`: makes a release of the suite (CONTRIBUTING.md).

A release is a folder OUTPUT/VERSION with the three wheels, the chart, the notes, a bill of materials and SHA256SUMS, a commit
`Release VERSION`, and the tag vVERSION. Everything is built from a clone of the last commit. The checkout and OUTPUT change only
when every step has succeeded. The chart is pushed to a registry last.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import Distribution, distributions
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[1]
PROJECT: Final = "pyproject.toml"
CHANGELOG: Final = "CHANGELOG.md"
UPGRADING: Final = "charts/dubstage/UPGRADING.md"
UNRELEASED: Final = "## [Unreleased]"
DISTRIBUTIONS: Final = {"dubstage": "protos", "dubstage-suite": ".", "dubstage-research": "research"}
"""Folder that each distribution is built from."""

_IMAGE: Final = r"dubstage/[<>$\w]+:(?P<version>\d+\.\d+\.\d+)"
_CHART: Final = r"^(?:appVersion| *version): (?P<version>\S+)$"
VERSION_PATTERNS: Final[tuple[tuple[str, str], ...]] = (
    (PROJECT, r'^version = "(?P<version>[^"]+)"$'),
    (PROJECT, r'^  "dubstage==(?P<version>[^"]+)",$'),
    ("protos/pyproject.toml", r'^version = "(?P<version>[^"]+)"$'),
    ("research/pyproject.toml", r'^version = "(?P<version>[^"]+)"$'),
    ("research/pyproject.toml", r'"dubstage-suite\[[\w,]+\]==(?P<version>[^"]+)"'),
    ("charts/dubstage/Chart.yaml", _CHART),
    ("charts/dubstage/charts/*/Chart.yaml", _CHART),
    ("charts/dubstage/values-gpu.yaml", r"^ +tag: (?P<version>\d+\.\d+\.\d+)-cuda$"),
    ("docs/quickstart.md", _IMAGE),
    ("docs/kubernetes.md", _IMAGE),
    ("docs/images.md", _IMAGE),
    ("docs/images.md", r"\bVERSION=(?P<version>\d+\.\d+\.\d+)"),
)
"""Files, as globs, and where the version is in each file. The first is the version itself; the others repeat it."""


class ReleaseError(Exception):
    """A release that cannot be made; the message names the file or option, and the remedy."""


class VersionLine(NamedTuple):
    """A line of a file that has the version of the suite."""

    path: str
    """Relative to the checkout."""
    line: int
    """From 1."""
    version: str


@dataclass(frozen=True)
class Release:
    """A release that has passed all checks."""

    root: Path
    """The checkout."""
    version: str
    notes: str
    """Text under `Unreleased`."""
    author: tuple[str, str]
    """Name and e-mail address for the commit and the tag."""
    output: Path
    """Folder of all releases; the release becomes its folder `version`."""
    images: bool
    registry: str | None
    key: str | None

    @property
    def folder(self) -> Path:
        """Return the folder of the finished release."""
        return self.output / self.version

    @property
    def chart(self) -> str:
        """Return the file name of the packaged chart."""
        return f"dubstage-{self.version}.tgz"

    def steps(self) -> list[str]:
        """Return what the release does, in order."""
        found = [
            f"clone {self.root} at its last commit into a temporary folder, and work there",
            f"{CHANGELOG}: move the notes under Unreleased to [{self.version}] with the date",
            f"write {self.version} to {', '.join(sorted({line.path for line in version_lines(self.root)}))}",
            f"commit `Release {self.version}`",
            f"build the wheels of {', '.join(DISTRIBUTIONS)}",
            f"package the chart: {self.chart}",
            "write the bill of materials (CycloneDX) and NOTES.md",
            *(["build the images with charts/images/build.sh; they are not pushed"] if self.images else []),
            "write SHA256SUMS",
            f"sign SHA256SUMS with cosign and {self.key}" if self.key else "not signed: no --cosign-key",
            f"take over the commit, and tag it v{self.version}",
            f"move the files to {self.folder}",
        ]
        return [*found, f"push the chart to oci://{self.registry}"] if self.registry else found


def program(name: str) -> list[str]:
    """Return the beginning of a command: the program beside this Python, or else in the PATH.

    Raises:
        ReleaseError: the program is in neither place.
    """
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.is_file() else shutil.which(name)
    if not found:
        remedy = "install cosign, or leave out --cosign-key" if name == "cosign" else "run make setup-dev"
        raise ReleaseError(f"the program {name} is neither beside {sys.executable} nor in the PATH: {remedy}")
    return [found]


def run(command: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None, show: bool = False) -> str:
    """Run a command in a folder, and return its standard output; `show` prints the output instead, as it comes.

    Raises:
        ReleaseError: the command failed, with its last 20 lines.
    """
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **(environment or {})}, capture_output=not show, text=True, check=False
    )
    if done.returncode != 0:
        last = "" if show else "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise ReleaseError(f"`{' '.join(map(str, command))}` in {folder} ended with {done.returncode}:\n{last}")
    return done.stdout or ""


def git(root: Path, *arguments: str) -> str:
    """Run git in the checkout, and return its output without the last line feed."""
    return run(["git", *arguments], root).rstrip("\n")


def _matches(root: Path) -> Iterator[tuple[Path, list[re.Match[str]]]]:
    for glob, pattern in VERSION_PATTERNS:
        remedy = "correct the file, or VERSION_PATTERNS in charts/release.py"
        paths = sorted(root.glob(glob))
        if not paths:
            raise ReleaseError(f"{glob}: there is no such file: {remedy}")
        for path in paths:
            found = list(re.finditer(pattern, path.read_text(encoding="utf-8"), re.MULTILINE))
            if not found:
                raise ReleaseError(f"{path.relative_to(root)}: has no version where the pattern {pattern} expects one: {remedy}")
            yield path, found


def version_lines(root: Path) -> list[VersionLine]:
    """Return every line with the version of the suite, that of pyproject.toml first.

    Raises:
        ReleaseError: a file of `VERSION_PATTERNS` is missing, or has no version.
    """
    return [
        VersionLine(path.relative_to(root).as_posix(), match.string.count("\n", 0, match.start("version")) + 1, match["version"])
        for path, matches in _matches(root)
        for match in matches
    ]


def write_version(root: Path, version: str) -> None:
    """Write the version to every line of `version_lines`.

    Raises:
        ReleaseError: a file of `VERSION_PATTERNS` is missing, or has no version.
    """
    for path, matches in _matches(root):
        text = matches[0].string
        for match in reversed(matches):
            text = text[: match.start("version")] + version + text[match.end("version") :]
        path.write_text(text, encoding="utf-8")


def unreleased_notes(root: Path) -> str:
    """Return the notes under `Unreleased` in the changelog.

    Raises:
        ReleaseError: there is no such section, or it has no notes.
    """
    text = (root / CHANGELOG).read_text(encoding="utf-8")
    parts = re.split(rf"^{re.escape(UNRELEASED)}$", text, flags=re.MULTILINE)
    if len(parts) != 2:
        raise ReleaseError(
            f"{CHANGELOG}: expected one section `{UNRELEASED}`, found {len(parts) - 1}: write one above the last version"
        )
    notes = re.split(r"^## ", parts[1], maxsplit=1, flags=re.MULTILINE)[0].strip()
    if not re.search(r"^\s*[-*] \S", notes, re.MULTILINE):
        raise ReleaseError(
            f"{CHANGELOG}: no notes under `{UNRELEASED}`: write at least one line (`- ...`) that says what users must know"
        )
    return notes


def date_notes(root: Path, version: str, date: str) -> None:
    """Move the notes under `Unreleased` to the version, with the date (YYYY-MM-DD), and leave `Unreleased` empty."""
    path = root / CHANGELOG
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(UNRELEASED, f"{UNRELEASED}\n\n## [{version}] - {date}", 1), encoding="utf-8")


def check_version(root: Path, version: str) -> None:
    """Check that a release of a version is possible, from its number, the tags, the changelog and the chart's page on upgrades.

    Raises:
        ReleaseError: the release is not possible.
    """
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        raise ReleaseError(f"VERSION: {version!r} is no version; expected MAJOR.MINOR.PATCH, such as 0.2.0")
    present = version_lines(root)[0].version
    if tuple(map(int, version.split("."))) < tuple(map(int, present.split("."))):
        raise ReleaseError(f"VERSION: {version} is lower than {present}, the version in {PROJECT}: give {present} or a higher one")
    if git(root, "tag", "--list", f"v{version}"):
        raise ReleaseError(f"VERSION: the tag v{version} exists: give a higher version")
    if re.search(rf"^## \[{re.escape(version)}\]", (root / CHANGELOG).read_text(encoding="utf-8"), re.MULTILINE):
        raise ReleaseError(f"{CHANGELOG}: has a section [{version}] already: give a higher version")
    if not re.search(rf"^\| {re.escape(version)} \|", (root / UPGRADING).read_text(encoding="utf-8"), re.MULTILINE):
        row = f"| {version} | {present} | steps of an upgrade |"
        raise ReleaseError(f"{UPGRADING}: the table has no row for {version}: add `{row}`")


def committer(root: Path) -> tuple[str, str]:
    """Return name and e-mail address of the user of git.

    Raises:
        ReleaseError: git has none.
    """
    try:
        identity = git(root, "var", "GIT_COMMITTER_IDENT")
    except ReleaseError as error:
        raise ReleaseError("git has no name and address for the commit: set `git config user.name` and `user.email`") from error
    name, address = identity.rsplit("> ", 1)[0].split(" <", 1)
    return name, address


def signing_key(given: str | None) -> str | None:
    """Return the key as cosign takes it from any folder: the URI of a key, or the whole path of a key file.

    Raises:
        ReleaseError: there is no such file, or no cosign.
    """
    if given is None:
        return None
    if "://" not in given and not Path(given).is_file():
        raise ReleaseError(
            f"--cosign-key: there is no file {given}: make one with `cosign generate-key-pair`, or give the URI of a key"
        )
    program("cosign")
    return given if "://" in given else str(Path(given).resolve())


def check(root: Path, given: argparse.Namespace) -> Release:
    """Return the release that the arguments ask for, without changing anything.

    Raises:
        ReleaseError: the version, the checkout, the changelog or an option does not allow the release.
    """
    version: str = given.version
    check_version(root, version)
    if changed := git(root, "status", "--porcelain").splitlines():
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        names = ", ".join(line[3:] for line in changed[:5])
        raise ReleaseError(f"{root}: not committed: {names}{more}. Commit or remove these files")
    notes = unreleased_notes(root)
    output = root / given.output
    if (output / version).exists():
        raise ReleaseError(f"--output: {output / version} exists: remove it, or give another folder")
    if given.push and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*(:\d+)?(/[a-z0-9._-]+)*", given.push):
        expected = "HOST[:PORT][/PATH] in lower case, such as registry.example/team"
        raise ReleaseError(f"--push: {given.push!r} is no registry; expected {expected}")
    for name in ("helm", "cyclonedx-py"):
        program(name)
    return Release(
        root=root,
        version=version,
        notes=notes,
        author=committer(root),
        output=output,
        images=given.images,
        registry=given.push,
        key=signing_key(given.cosign_key),
    )


def build_wheels(source: Path, target: Path, version: str, epoch: str) -> list[Path]:
    """Build the three wheels from a source tree with the packages of this Python, without network.

    Args:
        source: a clone that has the version.
        target: folder for the wheels.
        version: version that the wheels must have.
        epoch: time for the files in the wheels, in seconds since 1970.

    Raises:
        ReleaseError: a build failed, or a wheel has another name than expected.
    """
    # The build hook of the contracts starts the plugins of protoc by name.
    environment = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "SOURCE_DATE_EPOCH": epoch}
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--disable-pip-version-check",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
    ]
    run([*command, "--wheel-dir", target, *(str(source / folder) for folder in DISTRIBUTIONS.values())], source, environment)
    wheels = [target / f"{name.replace('-', '_')}-{version}-py3-none-any.whl" for name in DISTRIBUTIONS]
    if missing := [wheel.name for wheel in wheels if not wheel.is_file()]:
        raise ReleaseError(
            f"pip wheel built {', '.join(sorted(path.name for path in target.iterdir()))}, and not {', '.join(missing)}"
        )
    return wheels


def _metadata_of(distribution: Distribution) -> str:
    text = distribution.read_text("METADATA")
    if text is None:
        raise ReleaseError(f"the package {distribution.name} has no METADATA: install it again (make setup-dev)")
    return text


def _find(name: str, path: Sequence[str]) -> Distribution:
    for distribution in distributions(name=name, path=list(path)):
        return distribution
    raise ReleaseError(f"the bill of materials needs the package {name}, which is not installed: run make setup-dev")


def needed(names: Sequence[str], path: Sequence[str]) -> dict[str, Distribution]:
    """Return the distributions that requirements need, directly or through others, by canonical name.

    Args:
        names: requirements, such as `dubstage-suite[audio]`.
        path: folders with installed distributions.

    Raises:
        ReleaseError: a distribution is not installed.
    """
    found: dict[str, Distribution] = {}
    done: set[tuple[str, str]] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras} - {extra for known, extra in done if known == name}:
            done.add((name, extra))
            distribution = found.setdefault(name, _find(requirement.name, path))
            children = map(Requirement, distribution.requires or [])
            waiting += [child for child in children if child.marker is None or child.marker.evaluate({"extra": extra})]
    return found


def suite_requirements(root: Path) -> tuple[str, str]:
    """Return the suite with the extras of its image, and the requirement that the image installs without dependencies."""
    rows = [line.split(maxsplit=6) for line in (root / "charts/images/services.txt").read_text(encoding="utf-8").splitlines()]
    row = next(row for row in rows if row[0] == "suite")
    return f"dubstage-suite[{row[4]}]", row[5]


def write_bom(wheels: Sequence[Path], source: Path, target: Path) -> None:
    """Write a CycloneDX bill of materials: the wheels, and the installed packages that the suite and its research part need.

    Args:
        wheels: the three wheels.
        source: the clone that they were built from.
        target: JSON file to write.

    Raises:
        ReleaseError: a package is not installed, or cyclonedx-py failed.
    """
    with TemporaryDirectory() as folder:
        # An environment with nothing but METADATA: paths of this machine are in other files.
        venv.create(folder, with_pip=False)
        (site,) = Path(folder).glob("lib/python*/site-packages")
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                archive.extract(next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA")), site)
        suite, alone = suite_requirements(source)
        found = needed([suite, "dubstage-research"], [str(site), *sys.path])
        found |= {name: _find(name, sys.path) for name in [canonicalize_name(Requirement(alone).name)]}
        for name, distribution in found.items():
            if name not in DISTRIBUTIONS:
                info = site / f"{name.replace('-', '_')}-{distribution.version}.dist-info"
                info.mkdir()
                (info / "METADATA").write_text(_metadata_of(distribution), encoding="utf-8")
        options = [
            "--output-reproducible",
            "--mc-type",
            "application",
            "--pyproject",
            str(source / PROJECT),
            "--output-file",
            str(target),
        ]
        run([*program("cyclonedx-py"), "environment", *options, str(Path(folder) / "bin/python")], source)


def write_checksums(folder: Path) -> Path:
    """Write SHA256SUMS of all files of a folder, in the format of `sha256sum --check`, and return its path."""
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(folder.iterdir())]
    path = folder / "SHA256SUMS"
    path.write_text("".join(sums), encoding="ascii")
    return path


def make(release: Release) -> None:
    """Make a checked release, and print each step.

    Raises:
        ReleaseError: a step failed. The checkout and the output are then as before.
    """
    version, root = release.version, release.root
    release.output.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{version}.", dir=release.output) as scratch:
        source, files = Path(scratch, "source"), Path(scratch, "files")
        files.mkdir()
        git(root, "clone", "--quiet", "--no-checkout", str(root), str(source))
        git(source, "checkout", "--quiet", "--detach", git(root, "rev-parse", "HEAD"))
        date_notes(source, version, f"{datetime.now(UTC):%Y-%m-%d}")
        write_version(source, version)
        name, address = release.author
        git(
            source,
            "-c",
            f"user.name={name}",
            "-c",
            f"user.email={address}",
            "commit",
            "--quiet",
            "--all",
            "--message",
            f"Release {version}",
        )
        print("wheels: build", flush=True)
        wheels = build_wheels(source, files, version, git(source, "show", "--no-patch", "--format=%ct"))
        print("chart: package", flush=True)
        run([*program("helm"), "package", "charts/dubstage", "--destination", files], source)
        print("bill of materials: write", flush=True)
        write_bom(wheels, source, files / f"dubstage-{version}.cdx.json")
        (files / "NOTES.md").write_text(f"# dubstage {version}\n\n{release.notes}\n", encoding="utf-8")
        if release.images:
            registry = {"REGISTRY": release.registry} if release.registry and not os.environ.get("REGISTRY") else {}
            run(["charts/images/build.sh"], source, {"VERSION": version, **registry}, show=True)
        sums = write_checksums(files)
        if release.key:
            bundle = f"{sums}.sigstore.json"
            run([*program("cosign"), "sign-blob", "--yes", "--key", release.key, "--bundle", bundle, str(sums)], files)
            print(f"signed: {sums.name} with {release.key}")
        else:
            print("not signed: no --cosign-key")
        git(root, "fetch", "--quiet", "--no-tags", str(source), "HEAD")
        git(root, "merge", "--quiet", "--ff-only", "FETCH_HEAD")
        git(root, "tag", "--annotate", f"v{version}", "--message", f"Release {version}")
        files.rename(release.folder)
    print(f"released: {release.folder}, commit `Release {version}`, tag v{version}. Publish them: git push --follow-tags")


def push(release: Release) -> None:
    """Push the chart of a finished release to its registry.

    Raises:
        ReleaseError: helm failed; the message has the command to repeat.
    """
    command = [*program("helm"), "push", str(release.folder / release.chart), f"oci://{release.registry}"]
    try:
        run(command, release.root)
    except ReleaseError as error:
        again = f"Repeat `{' '.join(command)}` after the repair."
        raise ReleaseError(f"the release is complete, but the chart was not pushed. {again} {error}") from error
    print(f"pushed: oci://{release.registry}/dubstage:{release.version}")


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Make a release, and return the exit code: 0, or 1 after an error on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m charts.release", description="Make a release: wheels, chart, notes, bill of materials, checksums."
    )
    parser.add_argument("version", metavar="VERSION", help="MAJOR.MINOR.PATCH, the version in pyproject.toml or a higher one")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("out/release"),
        metavar="FOLDER",
        help="folder for the folder VERSION (default: out/release)",
    )
    parser.add_argument(
        "--push",
        metavar="REGISTRY",
        help="registry to push the chart to as OCI artefact, such as registry.example/team (log in with `helm registry login`)",
    )
    parser.add_argument(
        "--images",
        action="store_true",
        help="build the images too, with the settings of charts/images/build.sh; they are not pushed",
    )
    parser.add_argument(
        "--cosign-key",
        metavar="KEY",
        help="key file or URI of a key, to sign SHA256SUMS with cosign (its password: COSIGN_PASSWORD)",
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything, list the steps, change nothing")
    given = parser.parse_args(arguments)
    try:
        release = check(root, given)
        if given.dry_run:
            print("\n".join(f"{index}. {step}" for index, step in enumerate(release.steps(), 1)))
        else:
            make(release)
            if release.registry:
                push(release)
    except ReleaseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
