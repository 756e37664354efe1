"""Videos that get the length of the speech out of the footage's own frames."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.dub.request.dub_request import DubRequest
from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from services.common.errors import InvalidRequestError
from tests.refusals import raised
from tests.system.dubbing import SPEECH, Dubber, cut, decoded, write_wav
from tests.system.test_speech_lengths import demo_speech
from tests.written_pictures import write_pictures


@pytest.mark.long
def test_retimed_video_has_speech_length(clips: Any, dubber: Dubber, tmp_path: Path) -> None:
    """The video is as long as the speech and shows the footage in its order."""
    footage = cut(clips.path("video/vr_face5.mp4"), tmp_path / "footage.mp4", 0, 1.8)
    speech = write_wav(tmp_path / "speech.wav", demo_speech(16000, 2.5), 16000)
    output = tmp_path / "dub.nut"
    outcome = dubber(DubRequest(footage=footage, speech=speech, output=output, method="dubstage", fit="retime"))
    assert outcome.plan.num_frames == probe(output).video.num_frames == 63
    assert outcome.plan.rendered().all()
    assert len(probe(output).audio) == 1
    # Rows above the face are untouched: they tell which footage frame is shown.
    before = [planes[0][:40].tobytes() for planes in decoded(footage)]
    shown = np.array([before.index(planes[0][:40].tobytes()) for planes in decoded(output)])
    assert set(np.diff(shown)) <= {0, 1}
    assert np.bincount(shown).max() <= 2


def test_retimed_video_keeps_shot_cuts(clips: Any, dubber: Dubber, tmp_path: Path) -> None:
    """The mouth does not fade before a shot without a face, as it fades where a face is lost in a shot."""
    with VideoReader(probe(clips.path("video/vr_face5.mp4"))) as reader:
        person = [to_rgb(frame) for frame in reader.frames(0, 28)]
    height, width, _ = person[0].shape
    wall = np.broadcast_to(np.linspace(0, 255, width).astype(np.uint8)[:, None], (height, width, 3))
    footage = write_pictures(tmp_path / "footage.mkv", [*person, *[wall] * 4])
    # So much speech shows each frame of the footage twice.
    speech = write_wav(tmp_path / "speech.wav", demo_speech(16000, 2.56), 16000)
    dub = DubRequest(footage=footage, speech=speech, output=tmp_path / "dub.mkv", method="dubstage", fit="retime")
    plan = dubber(dub).plan
    assert plan.rendered().tolist() == [True] * 56 + [False] * 8
    assert plan.strength[plan.rendered()].min() == 1.0


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"method": "dubstage", "fit": "retime", "keep_audio": True}, "keep_audio"),
        ({"fit": "retime", "method": "portrait"}, "fit"),
        ({"method": "dubstage", "fit": "retime"}, "head_motion"),
    ],
)
def test_what_does_not_go_together_is_refused(request_: Any, field: str, clips: Any, dubber: Dubber, tmp_path: Path) -> None:
    footage = cut(clips.path("video/vr_face5.mp4"), tmp_path / "footage.mp4", 0, 1.2)
    with raised(InvalidRequestError, field=field):
        dubber(DubRequest(footage=footage, speech=SPEECH, output=tmp_path / "dub.mp4", **request_))
    assert not (tmp_path / "dub.mp4").exists()
