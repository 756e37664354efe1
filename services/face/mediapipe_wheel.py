"""Wheels `dubstage-mediapipe`: MediaPipe's wheels with dependencies that fit those of dubstage. `make release` writes them.

MediaPipe 0.10.21 is the last version with models inside, and its wheels ask for numpy < 2, protobuf < 5, jax and a second OpenCV.
No installer can combine these with dubstage (docs/decisions/0015-mediapipe-wheel.md). All files of the package `mediapipe` stay as
Google published them. Only the metadata of the distribution is written anew.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from services.common.errors import BackendUnavailableError, DubstageError, InvalidRequestError

VERSION: Final = "0.10.21"
"""Version of MediaPipe, and of the wheels that are written."""
NAME: Final = "dubstage-mediapipe"
PLATFORM: Final = "manylinux_2_28_x86_64"
"""Only this platform: dubstage runs on Linux, and MediaPipe has no wheel of this version for Linux on ARM."""
SHA256: Final = {
    "3.11": "05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3",
    "3.12": "956eb1ebc275c629e61b085b2cab89c3a5b9e93bad1bb107348d98dafb5a4bb5",
}
"""Checksum of MediaPipe's wheel on PyPI by version of Python. There is none for 3.13."""
REQUIRES: Final = (
    "absl-py",
    "attrs>=19.1.0",
    "flatbuffers>=2.0",
    "matplotlib",
    "numpy",
    "opencv-python-headless",
    "protobuf>=4.25.3",
)
"""Dependencies that the parts which dubstage imports need. Those of MediaPipe, without upper limits, and without jax, jaxlib,
sentencepiece and sounddevice, which only other parts use; opencv-python-headless has the module of opencv-contrib-python."""
_OLD: Final = f"mediapipe-{VERSION}.dist-info"
_NEW: Final = f"{NAME.replace('-', '_')}-{VERSION}.dist-info"
_METADATA: Final = f"""Metadata-Version: 2.1
Name: {NAME}
Version: {VERSION}
Summary: MediaPipe {VERSION} with its models, for dubstage: the same files with fewer dependencies
Home-page: https://github.com/google-ai-edge/mediapipe
Author: The MediaPipe Authors
License: Apache 2.0
License-File: LICENSE
Requires-Python: >=3.11,<3.13
Description-Content-Type: text/markdown
{"".join(f"Requires-Dist: {line}{chr(10)}" for line in REQUIRES)}
# {NAME}

The package `mediapipe` {VERSION} by The MediaPipe Authors (Apache-2.0), for dubstage. All files of the package are those of the
wheel `mediapipe` {VERSION} on PyPI. The authors of dubstage changed the metadata (this file, RECORD and the name of their folder):
the dependencies have no upper limits, and packages that dubstage does not use are left out. Parts of MediaPipe that need jax,
sentencepiece or sounddevice do not work without these packages.

Do not install `mediapipe` into the same environment: both have the folder `mediapipe`.
"""


def download(python: str, folder: Path) -> Path:
    """Download MediaPipe's wheel from the package index of pip, and return its path.

    Args:
        python: a version of Python, a key of SHA256.
        folder: where the wheel is written.

    Raises:
        BackendUnavailableError: pip failed.
        InvalidRequestError: the wheel has another checksum.
    """
    words = ["download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", f"mediapipe=={VERSION}"]
    words += ["--python-version", python, "--platform", PLATFORM, "--dest", str(folder)]
    done = subprocess.run([sys.executable, "-m", "pip", *words], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise BackendUnavailableError(f"pip {' '.join(words)} failed: {done.stderr.strip()[-600:]}")
    (wheel,) = folder.glob(f"mediapipe-{VERSION}-cp{python.replace('.', '')}-*.whl")
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if sha256 != SHA256[python]:
        raise InvalidRequestError(f"{wheel.name} has the SHA-256 {sha256}, not {SHA256[python]} as the release of MediaPipe")
    return wheel


def repack(wheel: Path, folder: Path) -> Path:
    """Write the wheel of dubstage-mediapipe made of a wheel of MediaPipe, and return its path. Equal input gives equal bytes.

    Args:
        wheel: MediaPipe's wheel, any platform.
        folder: where the new wheel is written.

    Raises:
        InvalidRequestError: the file is no wheel of this version of MediaPipe.
    """
    output = folder / wheel.name.replace("mediapipe-", f"{NAME.replace('-', '_')}-", 1)
    partial = output.with_suffix(".partial")
    records: list[tuple[str, str, str]] = []
    with zipfile.ZipFile(wheel) as source:
        if f"{_OLD}/RECORD" not in source.namelist():
            raise InvalidRequestError(f"{wheel.name} has no {_OLD}/RECORD: expected a wheel of mediapipe {VERSION}")
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as target:
        record = source.getinfo(f"{_OLD}/RECORD")
        for entry in source.infolist():
            if entry is record or entry.is_dir():
                continue
            content = _METADATA.encode() if entry.filename == f"{_OLD}/METADATA" else source.read(entry)
            entry.filename = entry.filename.replace(f"{_OLD}/", f"{_NEW}/", 1)
            target.writestr(entry, content, zipfile.ZIP_DEFLATED)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            records.append((entry.filename, f"sha256={digest}", str(len(content))))
        record.filename = f"{_NEW}/RECORD"
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows([*records, (record.filename, "", "")])
        target.writestr(record, table.getvalue(), zipfile.ZIP_DEFLATED)
    partial.replace(output)
    return output


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m services.face.mediapipe_wheel", description=__doc__)
    parser.add_argument("--directory", type=Path, required=True, help="Folder for the wheels, one for each version of Python.")
    folder: Path = parser.parse_args().directory
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory() as downloads:
            for python in SHA256:
                print(repack(download(python, Path(downloads)), folder))
    except DubstageError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
