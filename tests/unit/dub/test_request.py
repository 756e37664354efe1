"""

Tests of a video's comment: that its mouth is synthetic, but only where it is.
"""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from dubstage.gateway.v1 import batch_pb2, gateway_pb2
from dubstage.motion.v1 import motion_pb2
from gateway.dub.choices import LEAST_EXPRESSIVENESS, MOST_EXPRESSIVENESS, Expression, Fit, expression_named
from gateway.dub.request import (
    DubRequest,
    check_output,
    open_speech,
    open_writer,
    sha256_of,
    wants_own_timeline,
)
from gateway.media.output import is_marked
from gateway.media.probe import probe
from gateway.media.reader import VideoReader
from services.common.errors import InvalidRequestError, MediaUnsupportedError
from services.common.methods import method_named
from services.common.server.bounds import declared
from tests.unit.media.made_footage import Clip, make_clip, make_sound, tone


@pytest.mark.parametrize(
    ("method", "dubbed", "words"),
    [
        ("ugc", True, "The mouth in this film is synthetic (made with dubstage); "),
        ("ugc", False, "No mouth in this film is synthetic (made with dubstage); "),
        ("headpose", True, "The mouth and the motion of the head in this film are synthetic (made with dubstage); "),
        ("headpose", False, "The motion of the head in this film is synthetic (made with dubstage); "),
    ],
)
def test_the_mark_says_what_is_synthetic(tmp_path: Path, method: str, dubbed: bool, words: str) -> None:
    footage = make_clip(tmp_path / "clip.mp4", Clip(sound_rate=16000))
    request = DubRequest(footage=footage, speech=None, output=tmp_path / "out.mp4", method=method)
    info = probe(footage)
    with open_writer(request, info, open_speech(request, info), dubbed=dubbed) as writer, VideoReader(info) as reader:
        for frame in reader:
            writer.write(frame)
    with av.open(str(request.output)) as video:
        assert video.metadata["comment"].startswith(words)
        assert is_marked(dict(video.metadata))


def test_a_digest_is_taken_of_files_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_of(tmp_path / "file").startswith("ba7816bf")
    with pytest.raises(MediaUnsupportedError, match="is a folder"):
        sha256_of(tmp_path)


@pytest.mark.parametrize(("method", "still"), [("ugc", False), ("headpose", False), ("headpose", True)])
def test_own_timeline_mxf(tmp_path: Path, method: str, *, still: bool) -> None:
    """A video with its own timeline can be an MXF."""
    footage, speech = tmp_path / "footage.png", make_sound(tmp_path / "speech.wav", tone(16000, 1600), 16000)
    if still:
        assert cv2.imwrite(str(footage), np.full((120, 100, 3), 90, np.uint8))
    else:
        footage = make_clip(tmp_path / "clip.mp4")
    request = DubRequest(
        footage=footage, speech=speech, output=tmp_path / "out.mxf", method=method, fit="retime" if method == "ugc" else "cut"
    )
    info = probe(footage)
    check_output(request, info, open_speech(request, info))


def test_own_timeline_mxf_rate(tmp_path: Path) -> None:
    """A video with its own timeline is no MXF at a rate that MXF lacks."""
    footage = make_clip(tmp_path / "clip.mp4", Clip(pts=range(0, 12 * 800, 800), sound_rate=16000))
    request = DubRequest(footage=footage, speech=None, output=tmp_path / "out.mxf", method="ugc", fit="retime")
    info = probe(footage)
    with pytest.raises(MediaUnsupportedError, match="mpeg2video cannot run at 16 frames a second"):
        check_output(request, info, open_speech(request, info))


@pytest.mark.parametrize(
    ("method", "fit", "expression", "kept"),
    [
        ("ugc", "cut", None, True),
        ("hetero", "cut", "keep", True),
        ("ugc", "cut", "neutral", False),
        ("ugc", "loop", None, False),
        ("headpose", "cut", None, False),
        ("headpose+ugc", "cut", None, False),
    ],
)
def test_same_frames_keep_expression(method: str, fit: Fit, expression: Expression | None, kept: bool) -> None:
    """Videos with the frames of the footage keep its expression."""
    video = Path("video.mp4")
    request = DubRequest(footage=video, speech=None, output=video, method=method, fit=fit, expression=expression)
    assert request.keeps_expression is kept


@pytest.mark.parametrize(("method", "fit"), [("headpose", "cut"), ("ugc", "pad")])
def test_own_timeline_cannot_keep_expression(method: str, fit: Fit) -> None:
    """A video with its own timeline cannot keep the expression."""
    assert wants_own_timeline(method_named(method), fit=fit, keep_audio=False, expression="neutral")
    with pytest.raises(InvalidRequestError, match="timeline") as caught:
        wants_own_timeline(method_named(method), fit=fit, keep_audio=False, expression="keep")
    assert caught.value.field == "expression"


def test_unknown_expression_lists_values() -> None:
    """An unknown expression is refused with those there are."""
    assert [expression_named(name) for name in ("", "keep", "neutral")] == [None, "keep", "neutral"]
    with pytest.raises(InvalidRequestError, match="keep, neutral") as caught:
        expression_named("smile")
    assert caught.value.field == "expression"


def test_expressiveness_range_in_contracts() -> None:
    """The contracts declare the same range of the expressiveness."""
    for message in (
        gateway_pb2.CreateDubRequest,
        gateway_pb2.LiveConfig,
        batch_pb2.BatchRow,
        motion_pb2.PredictMotionConfig,
    ):
        bounds = declared(message.DESCRIPTOR.fields_by_name["expressiveness"])
        assert bounds is not None
        assert (bounds.min, bounds.max, bounds.zero_ok) == (LEAST_EXPRESSIVENESS, MOST_EXPRESSIVENESS, False)
