"""The audio stage: features of speech, a block a video frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from dubstage.audio.v1alpha1 import audio_pb2 as pb
from dubstage.audio.v1alpha1 import audio_pb2_grpc
from dubstage.client.arrays import from_tensor
from dubstage.client.connection import Connection
from dubstage.common.v1alpha1 import common_pb2

CHUNK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Features:
    """Features of T video frames, four rows of 10 ms each.

    Attributes:
        mel: log-mel spectrogram, float32 [T, 4, 80].
        mfcc: MFCC 20 and their deltas, float32 [T, 4, 40].
        posteriorgram: phone probabilities, float32 [T, 4, 40].
        speech_probability: float32 [T].
    """

    mel: npt.NDArray[np.float32]
    mfcc: npt.NDArray[np.float32]
    posteriorgram: npt.NDArray[np.float32]
    speech_probability: npt.NDArray[np.float32]


def extract_features(
    connection: Connection,
    samples: npt.NDArray[np.float32],
    sample_rate_hz: int,
    *,
    frame_rate: Fraction = Fraction(25),
    num_frames: int = 0,
) -> Features:
    """Features of a whole speech.

    Args:
        connection: to the audio stage.
        samples: float32 [n] or [n, channels] in [-1, 1].
        sample_rate_hz: of them.
        frame_rate: of the video; frame k is shown at k / frame_rate seconds.
        num_frames: frames that are wanted, silence where the speech has ended; 0: those that the speech covers.

    Raises:
        DubstageCallError: the call failed.
    """
    sound = np.ascontiguousarray(samples.reshape(len(samples), -1), "<f4")

    def requests() -> Iterator[pb.ExtractFeaturesRequest]:
        rate = common_pb2.Rational(num=frame_rate.numerator, den=frame_rate.denominator)
        kinds = [pb.FEATURE_KIND_MEL, pb.FEATURE_KIND_MFCC, pb.FEATURE_KIND_POSTERIORGRAM]
        yield pb.ExtractFeaturesRequest(
            config=pb.ExtractFeaturesConfig(
                sample_rate_hz=sample_rate_hz,
                channels=sound.shape[1],
                timeline=common_pb2.Timeline(frame_rate=rate),
                kinds=kinds,
                num_frames=num_frames,
            )
        )
        step = max(1, int(CHUNK_SECONDS * sample_rate_hz))
        for first in range(0, len(sound), step):
            yield pb.ExtractFeaturesRequest(chunk=pb.AudioChunk(first_sample=first, pcm_f32=sound[first : first + step].tobytes()))

    stub = audio_pb2_grpc.AudioServiceStub(connection.channel)
    blocks = [reply.block for reply in connection.stream(stub.ExtractFeatures, requests())]

    def joined(name: str, *shape: int) -> npt.NDArray[np.float32]:
        parts = [from_tensor(getattr(block, name)) for block in blocks]
        return np.concatenate(parts) if parts else np.zeros((0, *shape), np.float32)

    return Features(joined("mel", 4, 80), joined("mfcc", 4, 40), joined("posteriorgram", 4, 40), joined("speech_probability"))
