"""The client distribution asks for no older packages than its generated code accepts."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from dubstage import suite
from dubstage.audio.v1 import audio_pb2, audio_pb2_grpc

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "protos/pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIRED = {one.name: one.specifier for one in map(Requirement, PROJECT["dependencies"])}


def lowest(name: str) -> str:
    (version,) = (one.version for one in REQUIRED[name] if one.operator == ">=")
    return version


def test_lowest_protobuf() -> None:
    """The generated code refuses an older runtime, and one that is two major versions newer."""
    assert audio_pb2.__file__
    found = re.search(r"Domain\.PUBLIC,\s+(\d+),\s+(\d+),\s+(\d+),", Path(audio_pb2.__file__).read_text(encoding="utf-8"))
    assert found
    assert lowest("protobuf") == ".".join(found.groups())
    major = int(found[1])
    assert [n for n in range(major - 1, major + 3) if REQUIRED["protobuf"].contains(f"{n}.99.0")] == [major, major + 1]


def test_lowest_grpcio() -> None:
    assert audio_pb2_grpc.__file__
    found = re.search(r"GRPC_GENERATED_VERSION = '([\d.]+)'", Path(audio_pb2_grpc.__file__).read_text(encoding="utf-8"))
    assert found
    assert lowest("grpcio") == found[1]


def test_install_texts_name_the_version() -> None:
    """Every command that installs the suite names the version and the folder: the wheels are on no index."""
    documents = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/quickstart.md")]
    texts = "\n".join([suite.INSTALL, *documents])
    lines = [line for line in texts.splitlines() if re.search(r"install .*'dubstage\[suite\]", line)]
    assert len(lines) == 5
    for line in lines:
        assert f"'dubstage[suite]=={PROJECT['version']}'" in line
        assert "--find-links wheels/" in line
