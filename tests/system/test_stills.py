"""A single picture as footage: what it becomes, and what is said of one that can't be used."""

from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from gateway.dub.request.dub_request import DubRequest
from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from research.evaluation.bilabials import bilabial_times
from research.evaluation.mouth_metrics import CLOSED_OPENING_PX, closures
from services.common.array_types import Float32, UInt8
from services.common.errors import InvalidRequestError, NoUsableFootageError
from services.common.face.crops import BOX_SIZE, apply_affine, box_from_frame, fit_head_pose
from services.common.face.landmarks import LIPS_OUTER, NOSE_BASE, lip_width, mouth_opening
from services.face.types import FrameFaces
from tests.refusals import raised
from tests.system.dubbing import SPEECH, Dubber, track, write_wav
from tests.system.test_bad_input import assert_fails_well
from tests.system.test_speech_lengths import demo_speech

SECONDS = 2.0
PAUSE_S = 1.2
"""Silence after the speech. A mouth needs 0.6 s to shut."""
CLOSED_SHARE = 0.9
"""Share of p, b and m with shut lips. Dubs of GRID reach .92; a mouth that opened half as far as people do reached .95."""
LEAST_OPENING = 0.14
"""Opening that one frame in ten exceeds, mouth widths. Eleven speakers have .15 to .39."""
MARKED = 7.0
"""Difference of `darkness_below_the_nose` with and without a second pair of nostrils, percent. In wide open mouths without such a
pair, as seen, the border of the upper lip reaches 5."""


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    return write_wav(tmp_path / "speech.wav", demo_speech(16000, SECONDS), 16000)


def written(path: Path, picture: UInt8) -> Path:
    assert cv2.imwrite(str(path), picture[..., ::-1])
    return path


def darkness_below_the_nose(picture: UInt8, landmarks: Float32) -> float:
    """Darkest marks between nose and upper lip, percent of the skin's luma: a second pair of nostrils has 10 to 40.

    A mark is darker than what is above and below it within 4 pixels of the render box (a black top-hat). The region begins 3 pixels
    below the nose and ends at six tenths of the way to the upper lip. The figure is the 95th percentile of the region.
    """
    box_from = box_from_frame(fit_head_pose(landmarks))
    box = cv2.warpAffine(picture, box_from, (BOX_SIZE, BOX_SIZE), flags=cv2.INTER_LINEAR)
    luma = cv2.GaussianBlur(cv2.cvtColor(box, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.0)
    nose, lip = (apply_affine(box_from, landmarks[list(of), :2].astype(np.float64)) for of in (NOSE_BASE, LIPS_OUTER[2:9]))
    way = np.interp(nose[:, 0], lip[:, 0], lip[:, 1]) - nose[:, 1]
    below = np.zeros((BOX_SIZE, BOX_SIZE), np.uint8)
    top, bottom = (nose + np.stack([np.zeros_like(way), down], 1) for down in (np.full_like(way, 3.0), 0.6 * way))
    corners = np.concatenate([top, bottom[::-1]])
    cv2.fillPoly(below, [np.rint(corners).astype(np.int32)], 255)
    marks = cv2.morphologyEx(luma, cv2.MORPH_BLACKHAT, np.ones((9, 3), np.uint8))
    return 100.0 * float(np.quantile(marks[below > 0], 0.95) / np.median(luma[below > 0]))


class Spoken(NamedTuple):
    """A still that says the demo's sentence: faces and pictures of the still and of the video, as the tracker sees them."""

    still: FrameFaces
    faces: list[FrameFaces]
    darkness: tuple[float, list[float]]


@pytest.fixture(scope="module", params=["laughing", pytest.param("speaking", marks=pytest.mark.long)])
def spoken(request: pytest.FixtureRequest, dubber: Dubber, tmp_path_factory: pytest.TempPathFactory) -> Spoken:
    """The astronaut, who laughs with all her teeth, and a woman in the middle of a word, if the clips are there."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "laughing":
        picture = astronaut()
    else:
        clips: Any = request.getfixturevalue("clips")
        with VideoReader(probe(clips.path("video/hp_31.mp4"))) as reader:
            (picture,) = (to_rgb(frame).copy() for frame in reader.frames(40, 41))
    still, output = written(folder / "still.png", picture), folder / "dub.mp4"
    sound = np.concatenate([demo_speech(16000, 60.0), np.zeros(round(16000 * PAUSE_S))])
    speech = write_wav(folder / "speech.wav", sound, 16000)
    dubber(DubRequest(footage=still, speech=speech, output=output, method="portrait"))
    (own,), faces = track(still), track(output)
    with VideoReader(probe(output)) as reader:
        pictures = zip(reader, faces, strict=True)
        seen = [darkness_below_the_nose(to_rgb(frame), found.faces[0].landmarks) for frame, found in pictures]
    return Spoken(own, faces, (darkness_below_the_nose(picture, own.faces[0].landmarks), seen))


@pytest.mark.long
def test_still_shuts_open_lips(spoken: Spoken) -> None:
    """A still with open lips shuts them on p, b and m, and in silence."""
    opening = np.array([mouth_opening(frame.faces[0].mouth_landmarks) for frame in spoken.faces])
    assert mouth_opening(spoken.still.faces[0].mouth_landmarks) > 10.0
    seconds = np.arange(len(opening)) / 25
    sound = demo_speech(16000, 60.0)
    said = bilabial_times(sound.astype(np.float32), SPEECH.with_suffix(".txt").read_text())
    found = closures(np.zeros_like(opening), opening, seconds, said)
    assert len(found.result) >= 20
    assert found.result.mean() >= CLOSED_SHARE
    assert opening[-8:].max() < CLOSED_OPENING_PX, "after the last word the mouth is shut"
    width = np.median([lip_width(frame.faces[0].mouth_landmarks) for frame in spoken.faces])
    assert np.quantile(opening, 0.9) > LEAST_OPENING * width, "it opens in between"


@pytest.mark.long
def test_no_frame_shows_a_second_pair_of_nostrils(spoken: Spoken) -> None:
    own, seen = spoken.darkness
    assert max(seen) < own + MARKED


def test_a_portrait_speaks_and_moves_its_head(dubber: Dubber, speech: Path, tmp_path: Path) -> None:
    portrait = written(tmp_path / "astronaut.png", astronaut()[:, :400])
    output = tmp_path / "dub.mp4"
    outcome = dubber(DubRequest(footage=portrait, speech=speech, output=output, method="portrait"))
    assert outcome.plan.rendered().all()
    video = probe(output)
    assert (video.video.num_frames, video.video.average_rate, video.video.pixel.name) == (round(25 * SECONDS), 25, "yuv420p")
    assert len(video.audio) == 1
    assert video.metadata["comment"].startswith("The mouth and the motion of the head in this video are synthetic")
    frames = track(output)
    assert all(len(frame.faces) == 1 for frame in frames)
    opening = np.array([mouth_opening(frame.faces[0].mouth_landmarks) for frame in frames])
    assert opening.max() - opening.min() > 6.0
    poses = [fit_head_pose(frame.faces[0].landmarks) for frame in frames]
    turns = np.array([(pose.pitch_degrees, pose.yaw_degrees, pose.roll_degrees) for pose in poses])
    assert np.ptp(turns, axis=0).max() > 1.0, "the head moves"
    assert np.abs(np.diff(turns, axis=0)).max() < 4.0, "it does not jump"


@pytest.mark.parametrize("method", ["dubstage", "everybody", "portrait+dubstage"])
def test_methods_that_need_footage_refuse_a_picture(method: str, dubber: Dubber, speech: Path, tmp_path: Path) -> None:
    portrait = written(tmp_path / "astronaut.png", astronaut())
    with raised(InvalidRequestError, match=r"astronaut.png is a single picture.*portrait, headpose", field="method"):
        dubber(DubRequest(footage=portrait, speech=speech, output=tmp_path / "dub.mp4", method=method))


def test_a_picture_without_a_face_is_refused(dubber: Dubber, speech: Path, tmp_path: Path) -> None:
    wall = written(tmp_path / "wall.png", np.full((256, 256, 3), 180, np.uint8))
    with pytest.raises(NoUsableFootageError, match=r"wall.png shows no face"):
        dubber(DubRequest(footage=wall, speech=speech, output=tmp_path / "dub.mp4", method="portrait"))
    assert not (tmp_path / "dub.mp4").exists()


def test_two_faces_require_a_point(dubber: Dubber, speech: Path, tmp_path: Path) -> None:
    """A picture with two faces needs a point that selects one."""
    face = astronaut()[:300, 60:400]
    pair = written(tmp_path / "pair.png", np.concatenate([face, face[:, ::-1]], axis=1))
    with raised(InvalidRequestError, match=r"shows 2 faces, at .*: choose one with face_id, point", field="face"):
        dubber(DubRequest(footage=pair, speech=speech, output=tmp_path / "dub.mp4", method="portrait"))


def test_the_command_line_says_so_in_one_line(forked_dubstage, speech, tmp_path) -> None:
    portrait = written(tmp_path / "astronaut.png", astronaut())
    output = tmp_path / "out" / "dub.mp4"
    output.parent.mkdir()
    refused = forked_dubstage("dub", portrait, "--audio", speech, "-o", output, "--method", "dubstage")
    assert_fails_well(refused, output, "single picture", "portrait, headpose")
    silent = forked_dubstage("dub", portrait, "-o", output)
    assert_fails_well(silent, output, "has no sound", "--audio FILE")
