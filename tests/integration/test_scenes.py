"""CreateDub with lines, and DetectFaces."""

import wave
from datetime import timedelta
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from dubstage.client import Connection, DubstageCallError
from dubstage.client import gateway as client
from dubstage.common.v1 import common_pb2
from dubstage.gateway.v1 import consent_pb2, dub_pb2
from dubstage.gateway.v1 import gateway_pb2 as pb
from tests.integration.client_calls import enrolment
from tests.integration.servers import RunningGateway
from tests.integration.videos import NUM_FRAMES, Media
from tests.refusals import refused


def scene(output: str, *lines: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return the arguments of the client's `dub` for lines over the short clip."""
    return {"footage": "footage.mp4", "output": output, "lines": lines, "personalize": False, "codec": "ffv1", **more}


def line(start_s: float, **more: Any) -> dict[str, Any]:
    return {"start_time": timedelta(seconds=start_s), "speech_uri": "speech.wav", "face_id": 0, **more}


def boxed(frame: int, left: float = 0, top: float = 0, width: float = 50, height: float = 50) -> dub_pb2.FrameBox:
    return dub_pb2.FrameBox(frame_index=frame, box=dub_pb2.FaceBox(left=left, top=top, width=width, height=height))


def spoken(*boxes: dub_pb2.FrameBox, start_s: float = 0.0) -> dict[str, Any]:
    """A line whose face boxes name."""
    return {"start_time": timedelta(seconds=start_s), "speech_uri": "short.wav", "boxes": boxes}


@pytest.fixture(autouse=True, scope="module")
def _short_speech(media: Media) -> None:
    """Half a second of the short speech."""
    with wave.open(str(media.speech)) as source, wave.open(str(media.root / "short.wav"), "wb") as target:
        target.setparams(source.getparams())
        target.writeframes(source.readframes(source.getframerate() // 2))


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])


def test_lines_dub_their_frames(gateway: RunningGateway, connection: Connection, actor: str, media: Media) -> None:
    """Frames before the line keep every sample. A second request with another line takes no window of the first."""
    jobs = set((gateway.data / "jobs").iterdir())
    result = client.dub(connection, **scene("lines.mp4", line(0.4, actor_id=actor))).wait(timeout_s=300)
    later = client.dub(connection, **scene("later.mp4", line(0.8, actor_id=actor))).wait(timeout_s=300)
    (face,) = result.faces
    assert (face.face_id, face.first_frame, face.num_frames) == (0, 10, NUM_FRAMES - 10)
    assert face.num_dubbed == result.num_dubbed >= 0.9 * face.num_frames
    assert face.why == "chosen by its number"
    assert result.consent_on_record
    footage, dubbed = frames_of(media.footage), frames_of(media.root / "lines.mp4")
    np.testing.assert_array_equal(dubbed[:10], footage[:10])
    assert not np.array_equal(dubbed[12], footage[12])
    assert later.faces[0].first_frame == 20
    # The folder stays for a changed line, and one folder serves both requests.
    after = set((gateway.data / "jobs").iterdir())
    assert after
    assert len(after - jobs) <= 1


@pytest.mark.long
def test_actor_is_the_face_of_a_line(connection: Connection, actor: str) -> None:
    """A line that names its actor alone is spoken by the face that is the actor's."""
    named = {key: value for key, value in line(0.2, actor_id=actor).items() if key != "face_id"}
    result = client.dub(connection, **scene("actor.mp4", named)).wait(timeout_s=300)
    assert result.faces[0].face_id == 0
    assert result.faces[0].why.startswith(f"the face of the actor {actor} (distance 0.")


@pytest.mark.long
def test_boxes_name_the_face_of_a_line(connection: Connection, media: Media) -> None:
    """The line of a face's box equals the line of its number. From a box without a face on, frames pass through."""
    (found,) = client.detect_faces(connection, footage="footage.mp4", skip_pictures=True).wait(timeout_s=300).faces
    box = dub_pb2.FrameBox(frame_index=0, box=found.box)
    one, other, short = (
        client.dub(connection, **scene(f"{name}.mkv", given)).wait(timeout_s=300)
        for name, given in (
            ("number", line(0.2, speech_uri="short.wav")),
            ("boxes", spoken(box, start_s=0.2)),
            ("short", spoken(box, boxed(10), start_s=0.2)),
        )
    )
    with pytest.raises(DubstageCallError) as caught:
        client.dub(connection, **scene("never.mkv", spoken(boxed(NUM_FRAMES)))).wait(timeout_s=300)
    assert other.faces[0].why == "chosen by boxes"
    assert one.num_dubbed == other.num_dubbed > 8
    np.testing.assert_array_equal(frames_of(media.root / "number.mkv"), frames_of(media.root / "boxes.mkv"))
    assert {each.reason: each.num_frames for each in short.reasons}[common_pb2.FRAME_REASON_TARGET_NOT_PRESENT] > 4
    footage, dubbed = frames_of(media.footage), frames_of(media.root / "short.mkv")
    np.testing.assert_array_equal(dubbed[10:], footage[10:])
    assert caught.value.field.removeprefix("dub.") == "lines.boxes"


@pytest.mark.long
def test_boxes_name_the_face_of_a_dub(connection: Connection, media: Media) -> None:
    given = {"footage": "footage.mp4", "speech": "speech.wav", "personalize": False, "codec": "ffv1"}
    (found,) = client.detect_faces(connection, footage="footage.mp4", skip_pictures=True).wait(timeout_s=300).faces
    boxes = [dub_pb2.FrameBox(frame_index=0, box=found.box), boxed(30)]
    client.dub(connection, output="plain.mkv", **given).wait(timeout_s=300)
    whole = client.dub(connection, output="whole.mkv", boxes=boxes[:1], **given).wait(timeout_s=300)
    part = client.dub(connection, output="part.mkv", boxes=boxes, **given).wait(timeout_s=300)
    plain, followed, cut = (frames_of(media.root / f"{name}.mkv") for name in ("plain", "whole", "part"))
    assert whole.faces[0].why == "chosen by boxes"
    assert 20 < part.num_dubbed <= 30 < whole.num_dubbed
    # The dubs have different watermarks.
    assert np.abs(plain.astype(int) - followed).max() < 12
    np.testing.assert_array_equal(cut[30:], frames_of(media.footage)[30:])


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"lines": [line(0.0, speech_uri="none.wav")]}, "lines[0].speech_uri"),
        ({"lines": [line(0.0), line(1.0, speech_uri="../speech.wav")]}, "lines[1].speech_uri"),
        ({"lines": [{"speech_uri": "speech.wav", "face_id": 0}]}, "lines[0].start_time"),
        ({"lines": [{**line(0.0), "start_time": timedelta(seconds=-1)}]}, "lines[0].start_time"),
        ({"lines": [{"speech_uri": "speech.wav", "face_id": 0, "start_timecode": "soon"}]}, "lines[0].start"),
        ({"lines": [{"speech_uri": "speech.wav", "start_timecode": "00:00:00:01"}]}, "lines[0].face"),
        ({"lines": [{**line(0.0), "face_rule": dub_pb2.FACE_RULE_UNSPECIFIED}]}, "lines[0].face_rule"),
        ({"lines": [line(0.0, consent=consent_pb2.ConsentRecord(subject="x"))]}, "lines[0].consent.granted_by"),
        ({"lines": [{**line(0.0), "boxes": [boxed(0)]}]}, "lines[0].boxes"),
        ({"lines": [spoken(boxed(3), boxed(3))]}, "lines[0].boxes"),
        ({"lines": [spoken(boxed(0, width=0))]}, "lines[0].boxes"),
        ({"lines": [spoken(boxed(-1))]}, "lines.boxes.frame_index"),
        ({"lines": [spoken(*[boxed(frame) for frame in range(10_001)])]}, "lines.boxes"),
        ({"boxes": [boxed(0)], "face": "0"}, "boxes"),
        ({"boxes": [boxed(0), boxed(0)]}, "boxes"),
        ({"boxes": [boxed(0)], "speech": "speech.wav", "fit": "loop"}, "boxes"),
        ({"boxes": [boxed(0)], "lines": [line(0.0)]}, "face"),
        ({"lines": [line(0.0)], "speech": "speech.wav"}, "speech_uri"),
        ({"lines": [line(0.0)], "face": "speaker"}, "face"),
        ({"lines": [line(0.0)], "fit": "loop"}, "fit"),
        ({"lines": [line(0.0)], "mix": "none.wav"}, "mix_uri"),
        ({"lines": [line(0.0)], "mix": "speech.wav", "keep_audio": True}, "mix_uri"),
    ],
)
def test_unusable_line_refused_at_once(gateway: RunningGateway, fields: dict[str, Any], field: str) -> None:
    with gateway.connect() as connection, refused(reason="INVALID_REQUEST") as caught:
        client.dub(connection, footage="footage.mp4", output="refused.mp4", **fields)
    assert caught.value.field.removeprefix("dub.") == field


def test_scene_is_estimated(connection: Connection, actor: str, media: Media) -> None:
    """Frames with a line count once, mouths by lines."""
    lines = line(0.2, actor_id=actor, speech_uri="short.wav"), line(0.8, speech_uri="short.wav")
    one, both, learned = (
        client.estimate(connection, client.dub.request(**scene("estimated.mp4", *chosen, **more)).dub)
        for chosen, more in ((lines[:1], {}), (lines, {}), (lines, {"personalize": True}))
    )
    with pytest.raises(DubstageCallError) as caught:
        client.estimate(connection, client.dub.request(**scene("estimated.mp4", line(99.0))).dub)
    assert (one.num_frames, both.num_frames) == (NUM_FRAMES, NUM_FRAMES)
    assert both.num_rendered == 2 * one.num_rendered > 20
    times = [found.processor_duration.ToTimedelta() for found in (learned, both, one)]
    assert times[0] > times[1] > times[2]
    assert caught.value.field.removeprefix("dub.") == "lines.start"
    assert not (media.root / "estimated.mp4").exists()


def test_line_after_the_end_fails(gateway: RunningGateway, media: Media) -> None:
    with gateway.connect() as connection, pytest.raises(DubstageCallError) as caught:
        client.dub(connection, **scene("never.mp4", line(0.1), line(99.0))).wait(timeout_s=300)
    assert caught.value.field.removeprefix("dub.") == "lines.start"
    assert "lines[1]: 99.000 s is after the end of the video" in caught.value.message
    assert not list(media.root.glob("*never*"))


@pytest.mark.long
def test_erased_actor_of_a_scene_leaves_nothing(gateway: RunningGateway, connection: Connection, actor: str) -> None:
    """The folder of a scene ends with the erasure of any of its actors, and so do the consent records of the scene's request."""
    made = enrolment("passing")
    client.enrol(connection, **made).wait(timeout_s=300)
    consent = consent_pb2.ConsentRecord(**{**made["consent"], "reference": "box of the second line"})
    lines = line(0.0, actor_id=actor, speech_uri="short.wav"), line(0.8, actor_id="passing", consent=consent)
    dub = client.dub(connection, **scene("erased.mp4", *lines))
    dub.wait(timeout_s=300)
    jobs = set((gateway.data / "jobs").iterdir())
    client.erase_actor(connection, "passing")
    assert dub.state().done
    assert b"box of the second line" not in (gateway.data / "actors.sqlite").read_bytes()
    assert set((gateway.data / "jobs").iterdir()) < jobs


def test_faces_are_detected(connection: Connection, media: Media) -> None:
    seen: list[pb.OperationProgress] = []
    operation = client.detect_faces(connection, footage="footage.mp4")
    found = operation.wait(timeout_s=300, on_progress=seen.append)
    assert isinstance(operation.state().progress, pb.OperationProgress)
    plain = client.detect_faces(connection, footage="footage.mp4", skip_pictures=True).wait(timeout_s=300)
    with pytest.raises(DubstageCallError) as caught:
        client.detect_faces(connection, footage="none.mp4")
    assert caught.value.field.removeprefix("dub.") == "footage_uri"
    (face,) = found.faces
    assert (face.face_id, found.speaker_face_id, found.num_frames) == (0, 0, NUM_FRAMES)
    assert found.duration.ToTimedelta() == timedelta(seconds=NUM_FRAMES / 25)
    assert face.num_usable_frames >= 0.9 * face.num_frames
    assert face.picture.startswith(b"\xff\xd8")
    assert face.box.width > 44
    assert not face.speaking
    assert plain.faces[0].picture == b""
    assert seen[-1].total > 0
