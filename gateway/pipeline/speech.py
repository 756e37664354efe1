"""Speech: samples to features on the motion grid, on disk, and features to the motion of every frame."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
import numpy.typing as npt

from dubstage.audio.v1alpha1 import audio_pb2
from dubstage.common.v1alpha1 import common_pb2
from dubstage.motion.v1alpha1 import motion_pb2
from gateway.media.sound import Speech
from gateway.methods import FEATURES, FeatureKinds
from gateway.pipeline.messages import pose_from, rational
from gateway.pipeline.records import FEATURE_RECORD, MOTION_RECORD, RecordFile
from gateway.stages.attempts import until_done
from gateway.stages.interface import Stages
from services.common.arrays import from_tensor, to_tensor
from services.common.errors import ContractBroken, InvalidRequest
from services.common.head_pose_vectors import pose_vectors
from services.common.landmarks import NUM_MOUTH_AREA
from services.common.timeline import MOTION_RATE

FEATURE_BLOCK: Final = 64
"""Feature frames a message to the motion stage."""


UNHEARD_PER_S: Final = 25
"""Speech may be longer than its film by a second divided by this before the user is told that it is cut."""


def motion_frames_for(duration: Fraction) -> int:
    """Frames of the motion grid that cover a film, with what its last frames' look-ahead needs."""
    return math.ceil(duration * MOTION_RATE) + 3


def speech_duration(speech: Speech) -> Fraction:
    """How long speech is, seconds; goes through all of it.

    Raises:
        InvalidRequest: there is not one sample.
        MediaUnsupported: it can't be read.
    """
    samples = sum(len(chunk) for chunk in speech.chunks)
    if not samples:
        raise InvalidRequest("the speech has no sound in it", field="audio")
    return Fraction(samples, speech.sample_rate_hz)


@dataclass(frozen=True, slots=True)
class SpeechExtent:
    """How long speech is against its film: seconds of it that were used, and whether some was left over."""

    used_s: float
    longer: bool


async def extract_features(
    stages: Stages, speech: Speech, features: RecordFile, num_frames: int, film: Fraction, kinds: FeatureKinds = FEATURES["ugc"]
) -> SpeechExtent:
    """Fill `features` with FEATURE_RECORDs of `num_frames` frames of the motion grid, for a film of `film` seconds.

    Raises:
        DubstageError: from the audio stage, or from reading the sound.
    """
    total_samples, counted = 0, False
    limit = math.ceil(film * speech.sample_rate_hz)
    enough = limit + speech.sample_rate_hz // UNHEARD_PER_S

    async def requests() -> AsyncIterator[audio_pb2.ExtractFeaturesRequest]:
        nonlocal total_samples, counted
        total_samples = sent = 0
        counted = False
        yield audio_pb2.ExtractFeaturesRequest(
            config=audio_pb2.ExtractFeaturesConfig(
                sample_rate_hz=speech.sample_rate_hz,
                channels=speech.channels,
                timeline=common_pb2.Timeline(frame_rate=rational(MOTION_RATE)),
                kinds=kinds,
                num_frames=num_frames,
            )
        )
        chunks = iter(speech.chunks)
        while (chunk := await asyncio.to_thread(_next_chunk, chunks)) is not None:
            piece = chunk[: limit - sent]
            total_samples += len(chunk)
            if len(piece):
                pcm = np.ascontiguousarray(piece, dtype="<f4").tobytes()
                message = audio_pb2.AudioChunk(first_sample=sent, pcm_f32=pcm)
                yield audio_pb2.ExtractFeaturesRequest(chunk=message)
                sent += len(piece)
            if total_samples > enough:
                break
        counted = True

    async def hear() -> None:
        features.clear()
        async for reply in stages.extract_features(requests()):
            features.append(feature_records(reply.block))
        features.sync()

    await until_done(hear)
    if features.num_rows != num_frames:
        raise ContractBroken(f"the audio stage answered {features.num_rows} of {num_frames} frames")
    if not counted:  # the stage had what it needs before the speech was read up to here
        total_samples = await asyncio.to_thread(_count_samples, speech, enough)
    return speech_extent(total_samples, limit, speech.sample_rate_hz)


def speech_extent(num_samples: int, limit: int, sample_rate_hz: int) -> SpeechExtent:
    """How speech of `num_samples` samples, or at least as many, fits a film of `limit` samples.

    Up to a frame (1 / UNHEARD_PER_S s) that is left over is not worth a warning.
    """
    return SpeechExtent(min(num_samples, limit) / sample_rate_hz, num_samples > limit + sample_rate_hz // UNHEARD_PER_S)


def _count_samples(speech: Speech, enough: int) -> int:
    """Samples of speech, counted until there are more than `enough`."""
    total = 0
    for chunk in speech.chunks:
        total += len(chunk)
        if total > enough:
            break
    return total


def feature_records(block: audio_pb2.AudioFeatureBlock) -> npt.NDArray[np.void]:
    """FEATURE_RECORDs of a block of the contract."""
    count = block.num_frames
    rows = np.zeros(count, dtype=FEATURE_RECORD)
    rows["mel"] = from_tensor(block.mel, "mel", dtype=np.float32, shape=(count, 4, 80))
    rows["posteriorgram"] = from_tensor(block.posteriorgram, "posteriorgram", dtype=np.float32, shape=(count, 4, 40))
    if block.HasField("identity_removed"):
        rows["identity_removed"] = from_tensor(block.identity_removed, "identity_removed", dtype=np.float32, shape=(count, 4, 20))
    rows["speech_probability"] = from_tensor(block.speech_probability, "speech_probability", dtype=np.float32, shape=(count,))
    return rows


def feature_block(
    rows: npt.NDArray[np.void], first_frame: int, kinds: FeatureKinds = FEATURES["ugc"]
) -> audio_pb2.AudioFeatureBlock:
    """A block of the contract, with features of `kinds`, from FEATURE_RECORDs."""
    removed = audio_pb2.FEATURE_KIND_IDENTITY_REMOVED in kinds
    return audio_pb2.AudioFeatureBlock(
        first_frame=first_frame,
        num_frames=len(rows),
        mel=to_tensor(np.ascontiguousarray(rows["mel"])),
        posteriorgram=to_tensor(np.ascontiguousarray(rows["posteriorgram"])),
        identity_removed=to_tensor(np.ascontiguousarray(rows["identity_removed"])) if removed else None,
        speech_probability=to_tensor(np.ascontiguousarray(rows["speech_probability"])),
    )


async def predict_motion(
    stages: Stages,
    method: str,
    style: common_pb2.ArtefactRef,
    features: RecordFile,
    timeline: common_pb2.Timeline,
    num_frames: int,
    motion: RecordFile,
    *,
    without_style: bool = False,
    block: int = FEATURE_BLOCK,
) -> None:
    """Fill `motion` with a MOTION_RECORD for every frame of `timeline`."""

    async def requests() -> AsyncIterator[motion_pb2.PredictMotionRequest]:
        yield motion_pb2.PredictMotionRequest(
            config=motion_pb2.PredictMotionConfig(
                method=method,
                style=style,
                feature_rate=rational(MOTION_RATE),
                output_timeline=timeline,
                num_frames=num_frames,
                without_style=without_style,
            )
        )
        for begin in range(0, features.num_rows, block):
            rows = features.read(begin, begin + block)
            yield motion_pb2.PredictMotionRequest(features=feature_block(rows, begin, FEATURES[method]))

    async def predict() -> None:
        motion.clear()
        async for reply in stages.predict_motion(requests()):
            motion.append(motion_records(reply.frames))
        motion.sync()

    await until_done(predict)
    if motion.num_rows != num_frames:
        raise ContractBroken(f"the motion stage answered {motion.num_rows} of {num_frames} frames")


def motion_records(frames: Iterable[motion_pb2.MotionFrame]) -> npt.NDArray[np.void]:
    """MOTION_RECORDs of the contract's frames."""
    messages = list(frames)
    rows = np.zeros(len(messages), dtype=MOTION_RECORD)
    for row, message in zip(rows, messages, strict=True):
        row["mouth"] = from_tensor(message.mouth_landmarks, "mouth_landmarks", dtype=np.float32, shape=(NUM_MOUTH_AREA, 3))
        row["speech_probability"] = message.speech_probability
        row["pose"] = pose_vectors([pose_from(message.pose)])[0] if message.HasField("pose") else np.nan
        row["blink"] = message.blink
    return rows


def _next_chunk(chunks: Iterator[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32] | None:
    return next(chunks, None)
