"""One stage, called by somebody who knows nothing of the others."""

from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from dubstage.audio.v1 import audio_pb2
from dubstage.client import audio, face, motion, render
from tests.integration.servers import RunningStages
from tests.integration.videos import Media
from tests.refusals import refused


def pictures(path: Path, count: int) -> list[npt.NDArray[np.uint8]]:
    with av.open(str(path)) as video:
        found = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    return [np.asarray(picture, np.uint8) for picture in found[:count]]


def test_features_of_speech(stages: RunningStages, samples: tuple[npt.NDArray[np.float32], int]) -> None:
    speech, rate = samples
    with stages.connect("audio") as connection:
        kinds = ("mel", "mfcc", "posteriorgram")
        blocks = audio.extract_features(connection, audio.pieces(speech), sample_rate_hz=rate, kinds=kinds)
        features = audio.join(blocks)
        cut = audio.join(audio.extract_features(connection, [speech], sample_rate_hz=rate, num_frames=10))
    assert features["mel"].shape == (50, 4, 80)
    assert features["mfcc"].shape == features["posteriorgram"].shape == (50, 4, 40)
    np.testing.assert_allclose(features["posteriorgram"].sum(axis=-1), 1.0, atol=1e-4)
    np.testing.assert_array_equal(cut["mel"], features["mel"][:10])


def test_faces_of_frames(stages: RunningStages, media: Media) -> None:
    frames = pictures(media.footage, 12)
    with stages.connect("face") as connection:
        tracked = list(face.track(connection, frames))
    assert [frame.frame_index for frame in tracked] == list(range(12))
    (one,) = {found.face_id for frame in tracked for found in frame.faces}
    assert one >= 0
    assert tracked[5].faces[0].landmarks.shape == (478, 3)
    assert tracked[5].faces[0].reason == "DUBBED"


def test_models_of_the_renderer(stages: RunningStages) -> None:
    with stages.connect("render") as connection:
        models = render.list_models(connection)
    assert [model.name for model in models if model.name == "ugc"]


def test_wrong_sound_is_refused(stages: RunningStages) -> None:
    """Samples that are no numbers, and sound out of order, are refused."""
    with stages.connect("audio") as connection, refused(reason="INVALID_REQUEST", stage="audio"):
        list(audio.extract_features(connection, [np.full(16000, np.nan, np.float32)], sample_rate_hz=16000))
    chunk = audio_pb2.AudioChunk(first_sample=320, pcm_f32=np.zeros(320, "<f4").tobytes())
    with stages.connect("audio") as connection, refused(reason="INVALID_REQUEST"):
        list(audio.extract_features(connection, [chunk], sample_rate_hz=16000))


def test_wrong_landmark_shape_is_named(stages: RunningStages) -> None:
    with stages.connect("motion") as connection, refused(match="58", field="mouth_landmarks"):
        motion.encode_style(connection, method="ugc", mouth_landmarks=np.zeros((30, 58, 3)), usable=np.ones(30, bool))


def test_a_picture_over_the_message_limit_is_refused(stages: RunningStages) -> None:
    from dubstage.client import connect

    large = np.zeros((2400, 2400, 3), np.uint8)
    target = f"127.0.0.1:{stages.ports['face']}"
    with connect(target, max_message_bytes=64 << 20, timeout_s=300) as connection, refused(code="RESOURCE_EXHAUSTED"):
        list(face.track(connection, [large]))
