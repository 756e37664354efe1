"""`buf breaking` guards v1: today's contracts break nothing, and a removed field would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

CHECKOUT = Path(__file__).parents[3]
IMAGE = CHECKOUT / "protos" / "gen" / "dubstage" / "contracts.binpb"
BUF = Path(sys.executable).with_name("buf")


def breaking(image: Path) -> subprocess.CompletedProcess[str]:
    against = CHECKOUT / "protos" / "v1.binpb.gz"
    command = [str(BUF), "breaking", str(image), "--against", str(against), "--config", "buf.yaml", "--path", "dubstage"]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(not BUF.exists(), reason="needs buf")
def test_contracts_break_nothing(tmp_path: Path) -> None:
    """Today's contracts hold what v1 promises. A field that is gone, or a new type of a field, is found."""
    assert breaking(IMAGE).stdout == ""
    image = descriptor_pb2.FileDescriptorSet.FromString(IMAGE.read_bytes())
    (file,) = (file for file in image.file if file.name == "dubstage/gateway/v1/gateway.proto")
    messages = {message.name: message for message in file.message_type}
    del messages["CreateDubRequest"].field[1]
    messages["Actor"].field[0].type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
    broken = tmp_path / "broken.binpb"
    broken.write_bytes(image.SerializeToString())
    found = breaking(broken)
    assert found.returncode == 100
    assert '"CreateDubRequest"' in found.stdout
    assert '"Actor"' in found.stdout
