"""The wheels `dubstage-mediapipe`: the same files under other metadata."""

from __future__ import annotations

import base64
import csv
import hashlib
import subprocess
import sys
import zipfile
from email import message_from_bytes
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from services.common.errors import InvalidRequestError
from services.face import mediapipe_wheel
from services.face.mediapipe_wheel import NAME, PLATFORM, REQUIRES, SHA256, VERSION, download, repack

FILES = {
    "mediapipe/__init__.py": b"__version__ = '1'\n",
    "mediapipe/modules/face_landmark/model.tflite": bytes(range(256)),
    "mediapipe.libs/libEGL.so": b"\x7fELF",
}
TAG = f"cp{sys.version_info[0]}{sys.version_info[1]}-cp{sys.version_info[0]}{sys.version_info[1]}-{PLATFORM}"


def wheel_of_mediapipe(folder: Path) -> Path:
    """Write a small wheel that is laid out like MediaPipe's."""
    wheel = folder / f"mediapipe-{VERSION}-{TAG}.whl"
    info = {
        "LICENSE": b"Apache License\n",
        "METADATA": f"Metadata-Version: 2.1\nName: mediapipe\nVersion: {VERSION}\nRequires-Dist: jax\n".encode(),
        "WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: {TAG}\n".encode(),
        "RECORD": b"",
    }
    with zipfile.ZipFile(wheel, "w") as file:
        file.mkdir("mediapipe")
        for name, content in {**FILES, **{f"mediapipe-{VERSION}.dist-info/{name}": text for name, text in info.items()}}.items():
            file.writestr(zipfile.ZipInfo(name), content)
    return wheel


def test_package_files_stay_the_same(tmp_path: Path) -> None:
    """Every file of the package and the licence have their bytes, and RECORD lists every file of the wheel."""
    output = repack(wheel_of_mediapipe(tmp_path), tmp_path)
    assert output.name == f"dubstage_mediapipe-{VERSION}-{TAG}.whl"
    with zipfile.ZipFile(output) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    folder = f"dubstage_mediapipe-{VERSION}.dist-info"
    assert {name: content for name, content in contents.items() if not name.startswith(folder)} == FILES
    assert contents[f"{folder}/LICENSE"] == b"Apache License\n"
    record = {name: (digest, size) for name, digest, size in csv.reader(contents[f"{folder}/RECORD"].decode().splitlines())}
    assert record.keys() == contents.keys()
    assert record.pop(f"{folder}/RECORD") == ("", "")
    for name, (digest, size) in record.items():
        wanted = base64.urlsafe_b64encode(hashlib.sha256(contents[name]).digest()).decode().rstrip("=")
        assert (digest, int(size)) == (f"sha256={wanted}", len(contents[name]))


def test_wheels_are_repeatable(tmp_path: Path) -> None:
    """Equal input gives equal bytes, and no partial file stays."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    source = wheel_of_mediapipe(tmp_path)
    assert repack(source, first).read_bytes() == repack(source, second).read_bytes()
    assert len(list(first.iterdir())) == 1


def test_pip_installs_the_wheel(tmp_path: Path) -> None:
    """pip accepts name, version, tag and RECORD."""
    output = repack(wheel_of_mediapipe(tmp_path), tmp_path)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    subprocess.run([*command, "--target", str(tmp_path / "site"), str(output)], check=True, capture_output=True)
    assert (tmp_path / "site/mediapipe/modules/face_landmark/model.tflite").read_bytes() == bytes(range(256))
    metadata = message_from_bytes((tmp_path / f"site/dubstage_mediapipe-{VERSION}.dist-info/METADATA").read_bytes())
    assert (metadata["Name"], metadata["Version"], metadata.get_all("Requires-Dist")) == (NAME, VERSION, list(REQUIRES))


def test_other_wheel_is_refused(tmp_path: Path) -> None:
    """A wheel of another version is refused by name, and nothing is written."""
    other = wheel_of_mediapipe(tmp_path).rename(tmp_path / "mediapipe-0.10.35-py3-none-any.whl")
    with zipfile.ZipFile(other, "w") as file:
        file.writestr("mediapipe-0.10.35.dist-info/RECORD", "")
    with pytest.raises(InvalidRequestError, match=rf"mediapipe-0\.10\.35-py3-none-any\.whl has no .*wheel of mediapipe {VERSION}"):
        repack(other, tmp_path)
    assert list(tmp_path.iterdir()) == [other]


def test_dependencies_are_those_without_limits() -> None:
    """The dependencies are those of MediaPipe without upper limits, and the tests run with this version of MediaPipe."""
    assert version("mediapipe") == VERSION
    named = {Requirement(line).name for line in requires("mediapipe") or []}
    ours = [Requirement(line) for line in REQUIRES]
    unused = {"jax", "jaxlib", "sentencepiece", "sounddevice", "opencv-contrib-python"}
    assert {one.name for one in ours} == named - unused | {"opencv-python-headless"}
    assert not [one for one in ours for part in one.specifier if part.operator != ">="]


@pytest.mark.long
@pytest.mark.parametrize("python", SHA256)
def test_download_checks_the_bytes(python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel on the package index has the entered checksum and the models, and another checksum is refused."""
    wheel = download(python, tmp_path)
    with zipfile.ZipFile(wheel) as file:
        assert "mediapipe/modules/face_landmark/face_landmark_with_attention.tflite" in file.namelist()
    monkeypatch.setitem(mediapipe_wheel.SHA256, python, "0" * 64)
    with pytest.raises(InvalidRequestError, match=rf"{wheel.name} has the SHA-256 [0-9a-f]+, not 0000"):
        download(python, tmp_path)
