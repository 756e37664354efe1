"""A single picture as footage: what it becomes, and what is said of one that can't be used."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from gateway.media.probe import probe
from gateway.pipeline.dub_request import DubRequest
from services.common.array_types import UInt8
from services.common.errors import InvalidRequest, NoUsableFootage
from services.common.face.crops import fit_head_pose
from services.common.face.landmarks import mouth_opening
from tests.system.dubbing import Dubber, track, write_wav
from tests.system.test_bad_input import assert_fails_well
from tests.system.test_speech_lengths import demo_speech

SECONDS = 2.0


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    return write_wav(tmp_path / "speech.wav", demo_speech(16000, SECONDS), 16000)


def written(path: Path, picture: UInt8) -> Path:
    assert cv2.imwrite(str(path), picture[..., ::-1])
    return path


def test_a_portrait_speaks_and_moves_its_head(dubber: Dubber, speech: Path, tmp_path: Path) -> None:
    portrait = written(tmp_path / "astronaut.png", astronaut()[:, :400])
    output = tmp_path / "dub.mp4"
    outcome = dubber(DubRequest(footage=portrait, speech=speech, output=output, method="headpose"))
    assert outcome.plan.rendered().all()
    film = probe(output)
    assert (film.video.num_frames, film.video.average_rate, film.video.pixel.name) == (round(25 * SECONDS), 25, "yuv420p")
    assert len(film.audio) == 1
    assert film.metadata["comment"].startswith("The mouth and the motion of the head in this film are synthetic")
    frames = track(output)
    assert all(len(frame.faces) == 1 for frame in frames)
    opening = np.array([mouth_opening(frame.faces[0].mouth_landmarks) for frame in frames])
    assert opening.max() - opening.min() > 6.0
    poses = [fit_head_pose(frame.faces[0].landmarks) for frame in frames]
    turns = np.array([(pose.pitch_degrees, pose.yaw_degrees, pose.roll_degrees) for pose in poses])
    assert np.ptp(turns, axis=0).max() > 1.0, "the head moves"
    assert np.abs(np.diff(turns, axis=0)).max() < 4.0, "it does not jump"


@pytest.mark.parametrize("method", ["ugc", "everybody", "headpose+ugc"])
def test_methods_that_need_footage_refuse_a_picture(method: str, dubber: Dubber, speech: Path, tmp_path: Path) -> None:
    portrait = written(tmp_path / "astronaut.png", astronaut())
    with pytest.raises(InvalidRequest, match=r"astronaut.png is a single picture.*headpose") as caught:
        dubber(DubRequest(footage=portrait, speech=speech, output=tmp_path / "dub.mp4", method=method))
    assert caught.value.field == "method"


def test_a_picture_without_a_face_is_refused(dubber: Dubber, speech: Path, tmp_path: Path) -> None:
    wall = written(tmp_path / "wall.png", np.full((256, 256, 3), 180, np.uint8))
    with pytest.raises(NoUsableFootage, match=r"wall.png shows no face"):
        dubber(DubRequest(footage=wall, speech=speech, output=tmp_path / "dub.mp4", method="headpose"))
    assert not (tmp_path / "dub.mp4").exists()


def test_a_picture_with_two_faces_needs_to_be_told_which(dubber: Dubber, speech: Path, tmp_path: Path) -> None:
    face = astronaut()[:300, 60:400]
    pair = written(tmp_path / "pair.png", np.concatenate([face, face[:, ::-1]], axis=1))
    with pytest.raises(InvalidRequest, match=r"shows 2 faces, at .*--face X,Y") as caught:
        dubber(DubRequest(footage=pair, speech=speech, output=tmp_path / "dub.mp4", method="headpose"))
    assert caught.value.field == "face"


def test_the_command_line_says_so_in_one_line(
    forked_dubstage: Callable[..., subprocess.CompletedProcess[str]], speech: Path, tmp_path: Path
) -> None:
    portrait = written(tmp_path / "astronaut.png", astronaut())
    output = tmp_path / "out" / "dub.mp4"
    output.parent.mkdir()
    assert_fails_well(forked_dubstage("dub", portrait, "--audio", speech, "-o", output), output, "single picture", "headpose")
    refused = forked_dubstage("dub", portrait, "--method", "headpose", "-o", output)
    assert_fails_well(refused, output, "has no sound", "--audio FILE")
