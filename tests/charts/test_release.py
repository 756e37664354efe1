"""`python -m charts.release` in a git repository with the product's files. All parts are really built."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import tomllib
import zipfile
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from charts.release import DISTRIBUTIONS, Release, ReleaseError, main, push, version_lines, write_version

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
NEXT = f"{int(VERSION.split('.')[0]) + 1}.0.0"
PRODUCT = (
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "constraints.txt",
    ".gitignore",
    "protos",
    "services",
    "gateway",
    "research",
    "charts",
    "docs",
)
COSIGN = """#!/bin/sh
printf '%s\\n' "$@" > "$RECORD"
while [ "$1" != --bundle ]; do shift; done
echo '{"signed": true}' > "$2"
"""


class Registry:
    """A registry of OCI artefacts without TLS: the part of the distribution specification that `helm push` uses."""

    def __init__(self, refuse: bool = False) -> None:
        self.manifests: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self, status: int, **headers: str) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": "0", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()

            def do_HEAD(self) -> None:
                self.answer(404)

            def do_POST(self) -> None:
                self.answer(403) if refuse else self.answer(202, Location=f"{self.path}1")

            def do_PUT(self) -> None:
                content, address = self.rfile.read(int(self.headers["Content-Length"])), urlsplit(self.path)
                digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
                if "/manifests/" in address.path:
                    registry.manifests[address.path] = content
                elif parse_qs(address.query)["digest"] == [digest]:
                    registry.blobs[digest] = content
                else:
                    self.answer(400)
                    return
                self.answer(201, Location=address.path, **{"Docker-Content-Digest": digest})

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("localhost", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.name = f"localhost:{self.server.server_port}"

    def __enter__(self) -> Registry:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one commit, without networks, whose changelog and page on upgrades are ready for NEXT."""
    folder = tmp_path_factory.mktemp("release") / "product"
    folder.mkdir()
    ignore = shutil.ignore_patterns("__pycache__", "gen", "*.pyc", "*.safetensors", "*.onnx")
    for name in PRODUCT:
        path = ROOT / name
        shutil.copytree(path, folder / name, ignore=ignore) if path.is_dir() else shutil.copy(path, folder)
    (folder / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- A whisper.\n\n## [0.0.1] - 2020-01-01\n\n- A word.\n"
    )
    upgrading = folder / "charts/dubstage/UPGRADING.md"
    first = f"| {VERSION} | - | first version |\n"
    text = upgrading.read_text(encoding="utf-8")
    assert f"| {VERSION} |" in text
    upgrading.write_text(
        re.sub(rf"^\| {re.escape(VERSION)} \|.*\n", f"{first}| {NEXT} | {VERSION} | none |\n", text, flags=re.MULTILINE)
    )
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "config", "user.name", "A. Releaser")
    git(folder, "config", "user.email", "releaser@example.com")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Add the product")
    return folder


@pytest.fixture
def clone(product: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "clone"
    git(product, "clone", "--quiet", str(product), str(folder))
    git(folder, "config", "user.name", "A. Releaser")
    git(folder, "config", "user.email", "releaser@example.com")
    return folder


@dataclass(frozen=True)
class Pushed:
    manifests: dict[str, bytes]
    blobs: dict[str, bytes]
    cosign: list[str]
    printed: str


@pytest.fixture(scope="module")
def release(product: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Pushed]:
    """A repository after a release of NEXT that was signed and pushed: helm is real, cosign records how it is called."""
    folder = tmp_path_factory.mktemp("released")
    checkout, programs = folder / "checkout", folder / "bin"
    git(product, "clone", "--quiet", str(product), str(checkout))
    git(checkout, "config", "user.name", "A. Releaser")
    git(checkout, "config", "user.email", "releaser@example.com")
    programs.mkdir()
    (folder / "cosign.key").write_text("a key")
    (programs / "cosign").write_text(COSIGN)
    (programs / "cosign").chmod(0o755)
    printed = StringIO()
    with pytest.MonkeyPatch.context() as patch, Registry() as registry, redirect_stdout(printed):
        # A build must not need the import path of the tests.
        patch.delenv("PYTHONPATH", raising=False)
        patch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("RECORD", str(folder / "record"))
        assert main([NEXT, "--push", f"{registry.name}/team", "--cosign-key", str(folder / "cosign.key")], checkout) == 0
    return checkout, Pushed(registry.manifests, registry.blobs, (folder / "record").read_text().splitlines(), printed.getvalue())


@pytest.fixture
def released(release: tuple[Path, Pushed]) -> Path:
    return release[0]


def commit(folder: Path, path: str, text: str) -> None:
    (folder / path).write_text(text, encoding="utf-8")
    git(folder, "commit", "--quiet", "--all", "--message", f"Change {path}")


def refusal(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the message of a release that is refused, and check that the release has changed nothing."""
    before = git(folder, "rev-parse", "HEAD"), git(folder, "status", "--porcelain", "--ignored"), git(folder, "tag")
    assert main(list(arguments), folder) == 1
    assert before == (git(folder, "rev-parse", "HEAD"), git(folder, "status", "--porcelain", "--ignored"), git(folder, "tag"))
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    return message


def test_version_is_repeated_everywhere() -> None:
    """Every file that repeats the version has that of the project."""
    assert [line for line in version_lines(ROOT) if line.version != VERSION] == []


def test_no_other_file_repeats_the_version(product: Path, tmp_path: Path) -> None:
    """Writes a version that is nowhere else, and looks for places that still have the former one."""
    folder = tmp_path / "written"
    shutil.copytree(product, folder, ignore=shutil.ignore_patterns(".git", "weights"))
    write_version(folder, "971.0.3")
    former = re.compile(rf"(dubstage|version|tag)\S* ?[:=/]+ ?\S*\b{re.escape(VERSION)}\b", re.IGNORECASE)
    texts = [path for path in folder.rglob("*") if path.suffix in (".toml", ".yaml", ".tpl", ".json", ".md", ".py", ".sh", ".txt")]
    found = [
        f"{path.relative_to(folder)}: {line}"
        for path in texts
        for line in path.read_text("utf-8").splitlines()
        if former.search(line)
    ]
    assert found == []
    assert {line.version for line in version_lines(folder)} == {"971.0.3"}


def test_a_missing_place_of_the_version_is_named(product: Path, tmp_path: Path) -> None:
    folder = tmp_path / "written"
    shutil.copytree(product, folder, ignore=shutil.ignore_patterns(".git", "weights"))
    values = folder / "charts/dubstage/values-gpu.yaml"
    values.write_text(values.read_text().replace("-cuda", "-gpu"))
    with pytest.raises(ReleaseError, match=r"charts/dubstage/values-gpu\.yaml: has no version"):
        version_lines(folder)


@pytest.mark.long
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_each_wheel_has_the_version(released: Path, name: str) -> None:
    wheel = released / "out/release" / NEXT / f"{name.replace('-', '_')}-{NEXT}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (message_from_bytes(archive.read(name)) for name in names if name.endswith(".dist-info/METADATA"))
    assert (metadata["Name"], metadata["Version"]) == (name, NEXT)
    own = [line for line in metadata.get_all("Requires-Dist") if line.startswith("dubstage")]
    assert [line.rsplit("==", 1)[1] for line in own] == ([] if name == "dubstage" else [NEXT])
    content = {
        "dubstage": "dubstage/gateway/v1/gateway_pb2.py",
        "dubstage-suite": "gateway/api/server.py",
        "dubstage-research": "research/bench/__main__.py",
    }
    assert content[name] in names


@pytest.mark.long
def test_the_client_wheel_runs_alone(released: Path, tmp_path: Path) -> None:
    """Imports the client from the wheel, and not from the checkout."""
    with zipfile.ZipFile(released / "out/release" / NEXT / f"dubstage-{NEXT}-py3-none-any.whl") as archive:
        archive.extractall(tmp_path)
    code = "import dubstage.client, importlib.metadata as m; print(dubstage.client.__file__, m.version('dubstage'))"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert shown.stdout.split() == [f"{tmp_path}/dubstage/client/__init__.py", NEXT]


@pytest.mark.long
def test_the_chart_and_its_parts_have_the_version(released: Path) -> None:
    with tarfile.open(released / "out/release" / NEXT / f"dubstage-{NEXT}.tgz") as archive:
        pages = {name: archive.extractfile(name).read().decode() for name in archive.getnames() if name.endswith("/Chart.yaml")}
    assert len(pages) == 8
    for name, page in pages.items():
        assert f"\nversion: {NEXT}\n" in page, name
        assert name == "dubstage/charts/library/Chart.yaml" or f"\nappVersion: {NEXT}" in page, name


@pytest.mark.long
def test_bill_of_materials_is_complete(released: Path) -> None:
    """The bill of materials has the wheels and what they need and no path of this machine."""
    text = (released / "out/release" / NEXT / f"dubstage-{NEXT}.cdx.json").read_text()
    bom = json.loads(text)
    assert (bom["bomFormat"], bom["metadata"]["component"]["name"]) == ("CycloneDX", "dubstage-suite")
    versions = {part["name"].lower(): part["version"] for part in bom["components"]}
    assert versions["dubstage"] == versions["dubstage-research"] == bom["metadata"]["component"]["version"] == NEXT
    assert {"numpy", "torch", "s3fs", "mediapipe", "onnxscript"} <= set(versions)
    assert not {"pytest", "mypy", "moto", "helm-binary"} & set(versions)
    licences = {part["name"]: part.get("licenses") for part in bom["components"]}
    assert licences["numpy"]
    needs = {entry["ref"].split("==")[0]: entry.get("dependsOn", []) for entry in bom["dependencies"]}
    assert any(ref.startswith("botocore") for ref in needs["aiobotocore"])
    assert "file:" not in text
    assert str(released.parent) not in text


@pytest.mark.long
def test_release_commit_tag_and_notes(released: Path) -> None:
    """The release is a commit with a tag and dated notes."""
    assert git(released, "show", "--no-patch", "--format=%s by %an") == f"Release {NEXT} by A. Releaser"
    assert git(released, "rev-parse", f"v{NEXT}^{{commit}}") == git(released, "rev-parse", "HEAD")
    assert git(released, "status", "--porcelain") == ""
    assert {line.version for line in version_lines(released)} == {NEXT}
    notes = "### Added\n\n- A whisper.\n"
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    changelog = (released / "CHANGELOG.md").read_text()
    heading = rf"# Changelog\n\n## \[Unreleased\]\n\n## \[{re.escape(NEXT)}\] - (\d{{4}}-\d\d-\d\d)\n\n"
    found = re.match(rf"{heading}{re.escape(notes)}\n## \[0\.0\.1\]", changelog)
    assert found is not None, changelog
    assert found[1] <= today
    assert (released / "out/release" / NEXT / "NOTES.md").read_text() == f"# dubstage {NEXT}\n\n{notes}"


@pytest.mark.long
def test_checksums_cover_all_files(released: Path) -> None:
    """Checksums are of all files and nothing else is left."""
    output = released / "out/release"
    assert [path.name for path in output.iterdir()] == [NEXT]
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=output / NEXT, check=True, capture_output=True, text=True
    )
    names = {line.split(":")[0] for line in checked.stdout.splitlines()}
    assert names | {"SHA256SUMS", "SHA256SUMS.sigstore.json"} == {path.name for path in (output / NEXT).iterdir()}
    assert len(names) == 6


@pytest.mark.long
def test_a_second_release_of_the_version_is_refused(released: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"the tag v{NEXT} exists" in refusal(released, capsys, NEXT)


def test_a_release_without_notes_is_refused(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`Unreleased` has a heading, and no line under the heading."""
    commit(clone, "CHANGELOG.md", "# Changelog\n\n## [Unreleased]\n\n### Added\n\n## [0.0.1] - 2020-01-01\n\n- A word.\n")
    message = refusal(clone, capsys, NEXT)
    assert "CHANGELOG.md: no notes under `## [Unreleased]`: write at least one line" in message


def test_missing_changelog_section_refused(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A changelog without a section for notes is refused."""
    commit(clone, "CHANGELOG.md", "# Changelog\n\n## [0.0.1] - 2020-01-01\n\n- A word.\n")
    assert "CHANGELOG.md: expected one section `## [Unreleased]`, found 0" in refusal(clone, capsys, NEXT)


def test_a_version_that_the_changelog_has_is_refused(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit(clone, "CHANGELOG.md", f"# Changelog\n\n## [Unreleased]\n\n- A.\n\n## [{NEXT}] - 2020-01-01\n\n- B.\n")
    assert f"CHANGELOG.md: has a section [{NEXT}] already" in refusal(clone, capsys, NEXT)


def test_missing_upgrading_row_refused(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A version without a row on upgrading is refused."""
    higher = f"{int(NEXT.split('.', maxsplit=1)[0]) + 1}.2.3"
    assert f"UPGRADING.md: the table has no row for {higher}: add `| {higher} | {VERSION} |" in refusal(clone, capsys, higher)


@pytest.mark.parametrize("change", ["changed", "new"])
def test_dirty_checkout_refused(clone: Path, change: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkout with changes is refused with their names."""
    name = "README.md" if change == "changed" else "services/forgotten.py"
    (clone / name).write_text("Not committed.\n")
    message = refusal(clone, capsys, NEXT)
    assert f"not committed: {name}. Commit or remove" in message


@pytest.mark.parametrize("version", ["1.2", "v1.2.3", "1.2.3-rc.1", "1.2.03", ""])
def test_what_is_no_version_is_refused(product: Path, version: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"VERSION: {version!r} is no version; expected MAJOR.MINOR.PATCH" in refusal(product, capsys, version)


def test_a_lower_version_is_refused(product: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"VERSION: 0.0.9 is lower than {VERSION}" in refusal(product, capsys, "0.0.9")


@pytest.mark.parametrize("registry", ["https://registry.example", "Registry.example/Team"])
def test_what_is_no_registry_is_refused(product: Path, registry: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"--push: {registry!r} is no registry" in refusal(product, capsys, NEXT, "--push", registry)


def test_a_missing_key_is_refused(product: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--cosign-key: there is no file missing.key" in refusal(product, capsys, NEXT, "--cosign-key", "missing.key")


def test_a_folder_that_exists_is_refused(clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "releases" / NEXT).mkdir(parents=True)
    message = refusal(clone, capsys, NEXT, "--output", str(tmp_path / "releases"))
    assert f"--output: {tmp_path / 'releases' / NEXT} exists" in message


def test_dry_run_changes_nothing(product: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run lists the steps and changes nothing."""
    before = git(product, "rev-parse", "HEAD"), git(product, "status", "--porcelain", "--ignored"), git(product, "tag")
    assert main([NEXT, "--dry-run", "--images", "--push", "registry.example/team"], product) == 0
    assert before == (git(product, "rev-parse", "HEAD"), git(product, "status", "--porcelain", "--ignored"), git(product, "tag"))
    shown = capsys.readouterr().out
    for part in (
        "CHANGELOG.md",
        "pyproject.toml",
        "wheels",
        "chart",
        "images",
        "not signed",
        f"v{NEXT}",
        "oci://registry.example/team",
    ):
        assert part in shown


@pytest.mark.long
def test_failed_build_changes_nothing(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A failed build leaves checkout and output as they were."""
    commit(clone, "protos/dubstage/audio/v1/audio.proto", "syntax = 'proto3'; message {")
    before = git(clone, "rev-parse", "HEAD")
    assert main([NEXT], clone) == 1
    assert "protoc failed" in capsys.readouterr().err
    assert (git(clone, "rev-parse", "HEAD"), git(clone, "status", "--porcelain"), git(clone, "tag")) == (before, "", "")
    assert list((clone / "out/release").iterdir()) == []


@pytest.mark.long
def test_the_chart_is_pushed_as_an_artefact(release: tuple[Path, Pushed]) -> None:
    checkout, pushed = release
    assert list(pushed.manifests) == [f"/v2/team/dubstage/manifests/{NEXT}"]
    layers = [
        pushed.blobs[layer["digest"]] for layer in json.loads(pushed.manifests[f"/v2/team/dubstage/manifests/{NEXT}"])["layers"]
    ]
    assert layers == [(checkout / "out/release" / NEXT / f"dubstage-{NEXT}.tgz").read_bytes()]


@pytest.mark.long
def test_the_checksums_are_signed_with_the_key(release: tuple[Path, Pushed]) -> None:
    checkout, pushed = release
    key = str(checkout.parent / "cosign.key")
    assert pushed.cosign[0] == "sign-blob"
    assert pushed.cosign[pushed.cosign.index("--key") + 1] == key
    assert Path(pushed.cosign[-1]).name == "SHA256SUMS"
    assert json.loads((checkout / "out/release" / NEXT / "SHA256SUMS.sigstore.json").read_text()) == {"signed": True}
    assert f"signed: SHA256SUMS with {key}" in pushed.printed


@pytest.mark.long
def test_failed_push_tells_remedy(
    released: Path,
) -> None:
    """A failed push says that the release is complete and how to push again."""
    with Registry(refuse=True) as registry:
        finished = Release(released, NEXT, "", ("", ""), released / "out/release", images=False, registry=registry.name, key=None)
        chart = released / "out/release" / NEXT / f"dubstage-{NEXT}.tgz"
        with pytest.raises(ReleaseError, match=f"the release is complete, but .*helm push {chart} oci://{registry.name}`"):
            push(finished)
