"""The networks that `dubstage doctor` reports: folder, name, digest and card, and what is wrong with them."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import services
from gateway.cli.doctor import NETWORK_STAGES, network_rows
from gateway.stages.local import compose_stages
from services.common.errors import ArtefactCorruptError, DubstageError, ModelNotFoundError

SHIPPED = Path(str(services.__file__)).parent


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Return a function that gives a stage a folder of the user's own, a copy of the folder that comes with dubstage."""

    def make(stage: str) -> Path:
        folder = tmp_path / "my weights" / stage
        shutil.copytree(SHIPPED / stage / "weights", folder)
        monkeypatch.setenv(f"DUBSTAGE_{stage.upper()}_WEIGHTS", str(folder))
        return folder

    return make


@pytest.mark.parametrize("stage", NETWORK_STAGES)
def test_own_networks_listed_with_digests(own_folder: Callable[[str], Path], stage: str) -> None:
    """The networks of a folder of the user's own are listed with their digests."""
    folder = own_folder(stage)
    first, *networks = network_rows(stage)
    assert first == (f"{stage} networks", str(folder))
    assert {row.name.strip(): row.finding.partition(",")[0] for row in networks if row.name not in {"  card", "  computed by"}} == {
        path.stem: hashlib.sha256(path.read_bytes()).hexdigest()[:12] for path in folder.glob("*.onnx")
    }


def test_model_cards_are_shown(own_folder: Callable[[str], Path]) -> None:
    """The card of a network is shown beside it and other cards below."""
    folder = own_folder("audio")
    (folder / "ppg.card.md").write_text("# ppg")
    (folder / "both.card.md").write_text("# both")
    rows = network_rows("audio")
    (found,) = [row.finding for row in rows if row.name == "  ppg"]
    assert re.fullmatch(rf"[0-9a-f]{{12}}, card {re.escape(str(folder))}/ppg\.card\.md", found)
    assert rows[-1] == ("  card", str(folder / "both.card.md"))


def test_what_computes_the_renderers_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert network_rows("render")[1].name == "  computed by"
    assert re.fullmatch(r"(onnxruntime int8|openvino bfloat16), chosen for \w+", network_rows("render")[1].finding)
    monkeypatch.setenv("DUBSTAGE_BACKEND", "openvino")
    monkeypatch.setenv("DUBSTAGE_PRECISION", "float32")
    assert network_rows("render")[1].finding == "openvino float32"


def test_the_texture_stage_takes_the_file_itself_too(own_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    file = own_folder("texture") / "temporal_warp.onnx"
    monkeypatch.setenv("DUBSTAGE_TEXTURE_WEIGHTS", str(file))
    assert [row.name for row in network_rows("texture")] == ["texture networks", "  temporal_warp"]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def _one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("stage", "file", "damage", "error"),
    [
        ("audio", "ppg.onnx", Path.unlink, ModelNotFoundError),
        ("audio", "silero_vad.onnx", Path.unlink, ModelNotFoundError),
        ("audio", "ppg.onnx", _one_bit, ArtefactCorruptError),
        ("audio", "ppg.json", _cut, ArtefactCorruptError),
        ("motion", "style_encoder.onnx", Path.unlink, ModelNotFoundError),
        ("motion", "motion_constants.safetensors", _one_bit, ArtefactCorruptError),
        ("texture", "temporal_warp.onnx", _cut, ArtefactCorruptError),
        ("render", "ugc.onnx", _one_bit, ArtefactCorruptError),
        ("render", "ugc.export.json", _cut, ArtefactCorruptError),
    ],
)
def test_a_missing_or_damaged_file_is_named(
    own_folder: Callable[[str], Path], stage: str, file: str, damage: Callable[[Path], None], error: type[DubstageError]
) -> None:
    path = own_folder(stage) / file
    damage(path)
    with pytest.raises(error, match=re.escape(str(path))):
        network_rows(stage)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUBSTAGE_MOTION_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(ModelNotFoundError, match="nowhere: no such folder"):
        network_rows("motion")
    (tmp_path / "nowhere").mkdir()
    with pytest.raises(ModelNotFoundError, match="nowhere holds"):
        network_rows("motion")


@pytest.mark.parametrize(
    ("stage", "file", "damage"),
    [
        ("audio", "silero_vad.onnx", Path.unlink),
        ("audio", "silero_vad.onnx", _cut),
        ("motion", "motion_constants.safetensors", _one_bit),
        ("motion", "sync_mouth.onnx", _cut),
        ("texture", "temporal_warp.onnx", Path.unlink),
        ("render", "ugc.int8.onnx", Path.unlink),
        ("render", "ugc.int8.onnx", _one_bit),
    ],
)
def test_missing_network_prevents_start(
    own_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, stage: str, file: str, damage: Callable[[Path], None]
) -> None:
    """A stage does not start with a missing or damaged file."""
    monkeypatch.setenv("DUBSTAGE_BACKEND", "onnxruntime")
    monkeypatch.setenv("DUBSTAGE_PRECISION", "int8")
    path = own_folder(stage) / file
    damage(path)
    parts = compose_stages(names=(stage,))[stage]
    try:
        with pytest.raises((ModelNotFoundError, ArtefactCorruptError), match=re.escape(str(path))):
            parts.warm_up()
    finally:
        for pool in parts.workers:
            pool.shutdown()
