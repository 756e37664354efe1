"""One person in one footage: what can be found out from records that are on disk already, without any stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dubstage.common.v1 import common_pb2
from gateway.dub.analyse.face_choice import FaceChoice
from gateway.dub.choices import EnrolOptions
from gateway.dub.learn import analysis as analysis_module
from gateway.dub.learn.analysis import FootageAnalysis
from gateway.dub.learn.slow_expression import own_motion
from gateway.dub.render.backgrounds import match_head_motion
from gateway.dub.state.records import FACE_RECORD, FEATURE_RECORD, RecordFile
from gateway.dub.state.workspace import Workspace
from gateway.media.probe import probe
from gateway.media.stills import is_still
from gateway.stages.local import LocalStages, compose_stages
from services.common.errors import InvalidRequestError, NoUsableFootageError
from services.common.methods import FeatureKinds, method_named
from tests.unit.media.made_footage import Clip, make_clip

DUBBED = common_pb2.FRAME_REASON_DUBBED
NO_STAGES: Any = None


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path / "job") as made:
        yield made


def tracked(workspace: Workspace, faces: list[tuple[int, int]], reason: int = DUBBED) -> None:
    """Leave records of (frame, face id) as a finished pass does; face 1 is the larger one."""
    records = np.zeros(len(faces), FACE_RECORD)
    records["frame"] = [frame for frame, _ in faces]
    records["face_id"] = [face for _, face in faces]
    records["reason"] = reason
    records["scale"], records["rotation"] = 1.0, np.eye(3)
    records["box"] = np.array([[10.0, 10.0, 20.0 + 20.0 * face, 20.0 + 20.0 * face] for _, face in faces]).reshape(-1, 4)
    workspace.faces.append(records)
    workspace.faces.sync()
    workspace.finish("faces", {"shot_cuts": []}, workspace.faces)


async def shot_of(footage: Path, workspace: Workspace, method: str = "dubstage") -> FootageAnalysis:
    analysis = await FootageAnalysis.open(NO_STAGES, method_named(method), probe(footage), workspace, threads=1)
    await analysis.track(lambda _: None)
    return analysis


async def test_largest_face_and_rows(tmp_path: Path, workspace: Workspace) -> None:
    """The largest face is selected and its rows are known."""
    footage = make_clip(tmp_path / "clip.mp4", Clip())
    tracked(workspace, [(0, 0), (0, 1), (2, 1)])
    analysis = await shot_of(footage, workspace)
    assert await analysis.select(FaceChoice("largest")) == analysis.face_id == 1
    assert analysis.rows[:3].tolist() == [1, -1, 2]
    assert len(analysis.rows) == len(analysis.seconds) == analysis.info.video.num_frames
    assert analysis.video.info == analysis.info


async def test_footage_without_a_face_has_nobody_to_select(tmp_path: Path, workspace: Workspace) -> None:
    tracked(workspace, [])
    analysis = await shot_of(make_clip(tmp_path / "clip.mp4", Clip()), workspace)
    assert await analysis.select(FaceChoice("largest")) is None


async def test_too_little_footage_enrols_nobody(tmp_path: Path, workspace: Workspace) -> None:
    tracked(workspace, [(frame, 0) for frame in range(5)])
    analysis = await shot_of(make_clip(tmp_path / "clip.mp4", Clip()), workspace)
    await analysis.select(FaceChoice("largest"))
    with pytest.raises(NoUsableFootageError, match="only 5 frames"):
        await analysis.enrol(EnrolOptions(), lambda *_: None)


async def test_reasons_of_the_index_count(tmp_path: Path, workspace: Workspace) -> None:
    """The index knows static things before the mouth, which the face stage does not. No pass learns from such a frame."""
    footage = make_clip(tmp_path / "clip.mp4", Clip(pts=tuple(range(0, 40 * 512, 512)), sound_rate=16000))
    tracked(workspace, [(frame, 0) for frame in range(40)])
    analysis = await shot_of(footage, workspace)
    reason = np.full(40, common_pb2.FRAME_REASON_OCCLUDED_MOUTH, np.int32)
    analysis._index = replace(analysis.index, reason=reason)
    await analysis.select(FaceChoice("largest"))
    with pytest.raises(NoUsableFootageError, match="only 0 frames"):
        await analysis.enrol(EnrolOptions(), lambda *_: None)
    async with own_motion(analysis, common_pb2.ArtefactRef(), lambda *_: None) as motion:
        assert motion is None
    async with LocalStages(compose_stages(str(tmp_path / "artefacts"), names=("texture",))) as stages:
        analysis.stages = stages
        with pytest.raises(NoUsableFootageError, match="the longest usable stretch has 0"):
            await match_head_motion(analysis, np.ones((10, 6)), np.ones(6))


async def test_a_still_becomes_a_video_of_one_frame(tmp_path: Path, workspace: Workspace) -> None:
    picture = tmp_path / "portrait.png"
    assert cv2.imwrite(str(picture), np.full((120, 100, 3), 90, np.uint8))
    tracked(workspace, [(0, 0), (0, 1)])
    analysis = await shot_of(picture, workspace, "portrait")
    assert is_still(analysis.info)
    assert analysis.info.path.parent == workspace.folder
    with pytest.raises(InvalidRequestError, match="2 faces"):
        await analysis.select(FaceChoice("largest"))
    assert await analysis.select(FaceChoice("id", face_id=1)) == 1


async def test_unusable_still_enrols_nobody(tmp_path: Path, workspace: Workspace) -> None:
    """A still whose face cannot be used enrols no one."""
    picture = tmp_path / "portrait.png"
    assert cv2.imwrite(str(picture), np.full((120, 100, 3), 90, np.uint8))
    tracked(workspace, [(0, 0)], common_pb2.FRAME_REASON_PROFILE_VIEW)
    analysis = await shot_of(picture, workspace, "portrait")
    await analysis.select(FaceChoice("largest"))
    with pytest.raises(NoUsableFootageError, match="PROFILE_VIEW"):
        await analysis.enrol(EnrolOptions(), lambda *_: None)


async def test_other_features_extracted_again(tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sound is heard again for a method with other features."""
    heard: list[FeatureKinds] = []

    async def extract(_stages: Any, _speech: Any, features: RecordFile, _frames: int, _video: Any, kinds: FeatureKinds) -> None:
        heard.append(kinds)
        features.append(np.zeros(4, FEATURE_RECORD))

    monkeypatch.setattr(analysis_module, "extract_features", extract)
    footage = make_clip(tmp_path / "clip.mp4", Clip(sound_rate=16000))
    tracked(workspace, [(0, 0)])
    dubstage, everybody = await shot_of(footage, workspace, "dubstage"), await shot_of(footage, workspace, "everybody")
    await dubstage.extract_sound()
    await dubstage.extract_sound()
    await everybody.extract_sound()
    assert heard == [dubstage.method.footage_features, everybody.method.footage_features]
    assert workspace.redone == []
