"""Tests of the list of faces of a video."""

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gateway.api.operations import FACES, stages_of
from gateway.dub.analyse.face_choice import FaceChoice
from gateway.dub.learn.analysis import FootageAnalysis
from gateway.dub.learn.face_list import FaceList, list_faces
from gateway.dub.state.workspace import Workspace
from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from gateway.stages.interface import stage_of
from gateway.stages.timing import LABELS, StageClock, TimedStages
from research.stage_host import StageHost
from services.common.errors import InvalidRequestError
from services.common.methods import method_named
from tests.system.dubbing import PersonClip, side_by_side
from tests.system.test_stills import written

SECONDS = 4.8


@pytest.fixture(scope="module")
def two_people(clips: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The left person speaks in the first half, the right one in the second."""
    people = [PersonClip(clips.path("people/dev_4.mp4")), PersonClip(clips.path("video/hp_31.mp4"))]
    return side_by_side(people, tmp_path_factory.mktemp("faces") / "two.mkv", SECONDS, voices=[0, 1])


@pytest.fixture(scope="module")
def clock() -> StageClock:
    """The calls of the stages for the list."""
    return StageClock()


@pytest.fixture(scope="module")
def listed(two_people: Path, host: StageHost, clock: StageClock, tmp_path_factory: pytest.TempPathFactory) -> FaceList:
    stages = TimedStages(host.stages, clock)
    with Workspace(tmp_path_factory.mktemp("records") / "job") as workspace:
        return host.run(list_faces(stages, probe(two_people), workspace, threads=1, on_progress=lambda *_: None))


def test_a_list_calls_only_its_stages(listed: FaceList, clock: StageClock) -> None:
    """An autoscaler lets the other stages rest."""
    called = {time.name for time in clock.stages()}
    assert {stage_of(rpc) for rpc, label in LABELS.items() if label.name in called} == set(stages_of(FACES))


def test_faces_have_times_and_spans(listed: FaceList) -> None:
    """Faces have times and shares, and speak in the half of the person's own voice and not in the other."""
    assert len(listed.faces) == 2
    for face in listed.faces:
        assert (face.first_s, face.last_s) == pytest.approx((0.0, SECONDS - 0.04))
        assert face.num_frames == round(SECONDS * 25)
        assert face.usable_share > 0.95
    assert listed.default == (listed.faces[0].face_id if listed.speaker is None else listed.speaker)
    assert (listed.num_frames, listed.omitted) == (round(SECONDS * 25), 0)
    left, right = sorted(listed.faces, key=lambda face: face.box[0])
    half = SECONDS / 2
    for face, begin, end in ((left, 0.0, half), (right, half, SECONDS)):
        assert sum(min(span.end_s, end) - max(span.begin_s, begin) for span in face.speaks) > 0.6 * half
        assert all(span.begin_s > begin - 0.6 and span.end_s < end + 0.6 for span in face.speaks)
        assert all(span.confidence > 0.25 for span in face.speaks)


def test_pictures_show_the_faces(listed: FaceList, two_people: Path) -> None:
    """The picture of a face is the face's part of the named frame."""
    for face in listed.faces:
        with VideoReader(probe(two_people)) as reader:
            rgb = to_rgb(next(reader.frames(face.frame)))
        left, top, width, height = face.box
        inside = rgb[int(top) : int(top + height), int(left) : int(left + width)]
        assert 100 < max(face.picture.shape[:2]) <= 256
        assert np.abs(face.picture.mean(axis=(0, 1)) - inside.mean(axis=(0, 1))).max() < 60.0


def test_photograph_counts_its_own_pixels(two_people: Path, host: StageHost, tmp_path: Path) -> None:
    """Faces of a photograph that is too large for a video are listed, named and chosen in pixels of the photograph."""
    with VideoReader(probe(two_people)) as reader:
        rgb = to_rgb(next(iter(reader)))
    large = cv2.resize(rgb, None, fx=4000 / rgb.shape[1], fy=4000 / rgb.shape[1], interpolation=cv2.INTER_CUBIC)
    photograph = probe(written(tmp_path / "photograph.jpg", np.asarray(large, np.uint8)))
    with Workspace(tmp_path / "listed") as workspace:
        faces = host.run(list_faces(host.stages, photograph, workspace, threads=1, on_progress=lambda *_: None)).faces
        opening = FootageAnalysis.open(host.stages, method_named("portrait"), photograph, workspace, threads=1)
        analysis = host.run(opening)
        host.run(analysis.track(lambda _: None))
        for face in faces:
            left, top, width, height = face.box
            centre = (left + width / 2, top + height / 2)
            for choice in (FaceChoice("point", point=centre), FaceChoice("box", box=face.box)):
                assert host.run(analysis.select(choice)) == face.face_id
            with pytest.raises(InvalidRequestError, match=f"{centre[0]:.0f},{centre[1]:.0f}"):
                host.run(analysis.select(FaceChoice("auto")))
    left, right = sorted(face.box[0] + face.box[2] / 2 for face in faces)
    assert left < 2000 < right


@pytest.mark.long
def test_command_writes_json_and_pictures(two_people, forked_dubstage, tmp_path) -> None:
    done = forked_dubstage("faces", two_people, "--json", "--result", tmp_path / "faces.json", "--pictures", tmp_path / "faces")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "faces.json").read_text())
    assert json.loads(done.stdout) == found
    assert {face["faceId"] for face in found["faces"]} == {"0", "1"}
    assert found.get("speakerFaceId") in {"0", "1", None}
    for face in found["faces"]:
        assert (tmp_path / "faces" / f"face_{face['faceId']}.png").read_bytes().startswith(b"\x89PNG")
        assert face["speaking"]
    assert re.search("a dub without --face takes face [01]: the ", done.stderr)
    assert "speaks" in done.stderr
    again = forked_dubstage("faces", two_people, "--result", tmp_path / "faces.json")
    assert again.returncode == 10
    assert "faces.json exists" in again.stderr
