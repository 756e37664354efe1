"""Which clips an evaluation takes, and with which networks its stages start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.stages.opening import weights_of
from research.evaluation.clip import chosen_clips
from research.evaluation.table import overlaid
from services.common.errors import InvalidRequestError
from tests.conftest import Clips


def test_folder_stands_for_its_videos(clips: Clips, carphone: Path, tmp_path: Path) -> None:
    """A folder stands for its videos with sound of the splits."""
    single = tmp_path / "carphone.mp4"
    (tmp_path / "vr_face5.mp4").symlink_to(clips.path("video/vr_face5.mp4"))
    single.symlink_to(carphone)
    (tmp_path / "page.txt").write_text("no video")
    rows = ("vr_face5.mp4,dev", "carphone.mp4,dev", "page.txt,dev", "elsewhere.mp4,train")
    (tmp_path / "catalogue.csv").write_text("\n".join(("file,use", *rows)))
    assert chosen_clips([tmp_path, single], ["dev"]) == [tmp_path / "vr_face5.mp4", single]
    assert chosen_clips([single], []) == [single]
    with pytest.raises(InvalidRequestError, match="elsewhere"):
        chosen_clips([tmp_path], ["train"])
    with pytest.raises(InvalidRequestError, match="of use test"):
        chosen_clips([tmp_path], ["dev", "test"])


def test_folder_without_catalogue(tmp_path: Path) -> None:
    """A folder without a catalogue says what is missing."""
    with pytest.raises(InvalidRequestError, match="columns file and use"):
        chosen_clips([tmp_path], ["dev"])


def test_concurrent_start_serves_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages that start meanwhile serve the files of a folder."""
    own, other = tmp_path / "own", tmp_path / "other"
    for folder, content in ((own, "own"), (other / "render", "other")):
        folder.mkdir(parents=True)
        (folder / "a.onnx").write_text(content)
    (own / "b.onnx").write_text("own")
    monkeypatch.setenv("DUBSTAGE_RENDER_WEIGHTS", str(own))
    motion = weights_of("motion")
    with overlaid(other):
        served = weights_of("render")
        assert {path.name: path.read_text() for path in served.iterdir()} == {"a.onnx": "other", "b.onnx": "own"}
        assert weights_of("motion") == motion
    assert weights_of("render") == own
    assert not served.exists()
    assert "DUBSTAGE_MOTION_WEIGHTS" not in os.environ
    with overlaid(None):
        assert weights_of("render") == own


def test_a_folder_without_networks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="dubstage export"), overlaid(tmp_path):
        pass
