"""Speech of a dub: features on the motion grid, kept on disk, the motion of every frame, and posteriorgrams for renderers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from dubstage.audio.v1 import audio_pb2
from dubstage.client import audio as audio_client
from dubstage.client import motion as motion_client
from dubstage.client import rpcs
from dubstage.client.arrays import as_pcm
from dubstage.common.v1 import common_pb2
from dubstage.motion.v1 import motion_pb2
from gateway.dub.state.records import FEATURE_RECORD, MOTION_RECORD, RecordFile, RecordSpan
from gateway.media.sound import Speech
from gateway.media.voice import only_voice
from gateway.stages.calls import CallPoint, continued, until_done
from gateway.stages.interface import Stages
from services.common.array_types import Float32, Float64, Int64
from services.common.errors import ContractBrokenError, InvalidRequestError
from services.common.face.crops import pose_vectors
from services.common.face.landmarks import NUM_MOUTH_AREA
from services.common.face.mouth_bank import SPEECH_BEFORE, SPEECH_SHAPE
from services.common.methods import SHARED_FEATURES, FeatureKinds, MouthOptions, PredictorSpec
from services.common.wire.convert import from_tensor, pose_from_proto
from services.common.wire.timeline import MOTION_RATE

R = TypeVar("R", audio_pb2.ExtractFeaturesResponse, motion_pb2.PredictMotionResponse)
FEATURE_BLOCK: Final = 64
"""Feature frames per message to the motion stage. Changes no byte of the answers."""
_Further = Literal["identity_removed", "speech_states", "speech_states_live"]
_FURTHER: Final[Mapping[audio_pb2.FeatureKind.ValueType, tuple[_Further, str]]] = {
    audio_pb2.FEATURE_KIND_IDENTITY_REMOVED: ("identity_removed", "identity_removed"),
    audio_pb2.FEATURE_KIND_SPEECH_STATES: ("speech_states", "speech_states"),
    audio_pb2.FEATURE_KIND_SPEECH_STATES_LIVE: ("speech_states_live", "speech_states"),
}
"""Kinds besides SHARED_FEATURES that predictors and lags need, and their fields in AudioFeatureBlock and in FEATURE_RECORD. A
predictor takes the states of one kind of window, so both kinds have one field in FEATURE_RECORD."""
_LAST_AHEAD: Final = 11
"""Frames after the end of a video that decide its last mouths: 400 ms of look-ahead, and one frame of rounding."""
SPEECH_AFTER_S: Final = 4
"""Seconds of speech after the end of a video that are read. The last mouths need _LAST_AHEAD frames, and the windows of the speech
encoder read 2.6 s beyond these frames."""
UNWARNED_PER_S: Final = 25
"""Speech may be 1 / UNWARNED_PER_S seconds longer than its video before the user is warned that the speech is cut."""
ROWS_PER_FRAME: Final = 4
"""Rows of the posteriorgram per frame of the motion grid: one row per 10 ms."""
SPEECH_ROWS: Final = SPEECH_SHAPE[0]
"""Rows of the speech features of one frame: 200 ms."""
_ROWS_PER_S: Final = 100


def motion_frames_for(duration: Fraction) -> int:
    """Return how many frames of the motion grid cover a video of `duration` seconds and the look-ahead of its last frames."""
    return math.ceil(duration * MOTION_RATE) + _LAST_AHEAD


def speech_duration(speech: Speech) -> Fraction:
    """Return the length of speech, seconds. Reads all of the speech.

    Raises:
        InvalidRequestError: the speech has no samples.
        MediaUnsupportedError: the speech cannot be read.
    """
    samples = sum(len(chunk) for chunk in speech.chunks)
    if not samples:
        raise InvalidRequestError("the speech has no sound in it", field="audio")
    return Fraction(samples, speech.sample_rate_hz)


@dataclass(frozen=True, slots=True)
class SpeechExtent:
    """Length of speech compared with its video.

    Attributes:
        used_s: seconds of speech that the video has.
        longer: whether speech is left over after the end of the video.
    """

    used_s: float
    longer: bool


async def extract_features(
    stages: Stages,
    speech: Speech,
    features: RecordFile,
    num_frames: int,
    duration: Fraction,
    kinds: FeatureKinds = SHARED_FEATURES,
    *,
    end: Fraction | None = None,
) -> SpeechExtent:
    """Fill `features` with FEATURE_RECORDs of `num_frames` frames of the motion grid.

    Args:
        speech: what is said. Of sound whose mean of all channels loses the voice, the channels of the voice are used.
        features: gets the records; records that are there already are removed.
        num_frames: frames of the motion grid.
        duration: length of the video, seconds.
        end: speech after this time is not used, seconds; None: `duration`.

    Raises:
        DubstageError: from the audio stage, or from reading the sound.
    """
    speech = await asyncio.to_thread(only_voice, speech)
    total_samples, counted = 0, False
    limit = math.ceil(duration * speech.sample_rate_hz)
    last = math.ceil((end if end is not None else duration) * speech.sample_rate_hz)
    enough = last + speech.sample_rate_hz // UNWARNED_PER_S

    async def requests(point: CallPoint) -> AsyncIterator[audio_pb2.ExtractFeaturesRequest]:
        nonlocal total_samples, counted
        total_samples, sent = 0, point.begin
        counted = False
        call = audio_client.extract_features.requests(
            sample_rate_hz=speech.sample_rate_hz,
            channels=speech.channels,
            timeline=MOTION_RATE,
            kinds=kinds,
            num_frames=num_frames,
        )
        call.config.config.states = True
        if point.state is not None:
            call.config.config.resume.CopyFrom(point.state)
        yield call.config
        chunks = iter(speech.chunks)
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            piece = chunk[max(0, sent - total_samples) : max(0, last - total_samples)]
            total_samples += len(chunk)
            if len(piece):
                yield call.item(audio_pb2.AudioChunk(first_sample=sent, pcm_f32=as_pcm(piece, speech.channels)))
                sent += len(piece)
            if total_samples > enough:
                break
        counted = True

    features.clear()
    point = CallPoint()

    async def extract() -> None:
        async with aclosing(_answers(stages, rpcs.audio.EXTRACT_FEATURES, requests, point)) as replies:
            async for reply in replies:
                _append(features, feature_records(reply.block), reply.block.first_frame)
        features.sync()

    await until_done(extract, progress=lambda: features.num_rows)
    if features.num_rows != num_frames:
        raise ContractBrokenError(f"the audio stage answered {features.num_rows} of {num_frames} frames")
    # The stage may answer all frames before it has read all speech.
    if not counted:
        total_samples = await asyncio.to_thread(_count_samples, speech, enough)
    return speech_extent(total_samples, limit, speech.sample_rate_hz)


async def _answers(
    stages: Stages, rpc: rpcs.Stream[Any, R], requests: Callable[[CallPoint], AsyncIterator[Any]], point: CallPoint
) -> AsyncGenerator[R, None]:
    """Yield the replies of `continued` that have frames: those with a state have none. Closing the generator ends the call."""
    async with aclosing(continued(stages, rpc, requests, point)) as replies:
        async for reply in replies:
            if not reply.HasField("state"):
                yield reply


def _append(records: RecordFile, rows: npt.NDArray[np.void], first: int, on_frames: Callable[[int], None] | None = None) -> None:
    """Append the rows, the first of which is of frame `first`, that the records lack: a call may repeat rows of the call before."""
    if first > records.num_rows:
        raise ContractBrokenError(f"a stage answered frame {first} after {records.num_rows} frames")
    lacking = rows[records.num_rows - first :]
    if len(lacking):
        records.append(lacking)
        if on_frames is not None:
            on_frames(records.num_rows)


def speech_extent(num_samples: int, limit: int, sample_rate_hz: int) -> SpeechExtent:
    """Return how speech of at least `num_samples` samples fits a video of `limit` samples.

    Speech that is longer by up to 1 / UNWARNED_PER_S seconds (one frame) does not count as longer.
    """
    return SpeechExtent(min(num_samples, limit) / sample_rate_hz, num_samples > limit + sample_rate_hz // UNWARNED_PER_S)


def _count_samples(speech: Speech, enough: int) -> int:
    """Return the number of samples of speech. Counting stops at the first number above `enough`."""
    total = 0
    for chunk in speech.chunks:
        total += len(chunk)
        if total > enough:
            break
    return total


def feature_records(block: audio_pb2.AudioFeatureBlock) -> npt.NDArray[np.void]:
    """Return the FEATURE_RECORDs of an AudioFeatureBlock message."""
    count = block.num_frames
    rows = np.zeros(count, dtype=FEATURE_RECORD)
    rows["mel"] = from_tensor(block.mel, "mel", dtype=np.float32, shape=(count, 4, 80))
    rows["posteriorgram"] = from_tensor(block.posteriorgram, "posteriorgram", dtype=np.float32, shape=(count, 4, 40))
    for name, column in _FURTHER.values():
        if block.HasField(name):
            shape = FEATURE_RECORD[column].shape
            rows[column] = from_tensor(getattr(block, name), name, dtype=np.float32, shape=(count, *shape))
    rows["speech_probability"] = from_tensor(block.speech_probability, "speech_probability", dtype=np.float32, shape=(count,))
    return rows


def feature_block(
    rows: npt.NDArray[np.void], first_frame: int, kinds: FeatureKinds = SHARED_FEATURES
) -> audio_pb2.AudioFeatureBlock:
    """Return an AudioFeatureBlock message of FEATURE_RECORDs.

    Args:
        rows: FEATURE_RECORDs [N].
        first_frame: frame of the motion grid of the first record.
        kinds: kinds to put in, in addition to SHARED_FEATURES.
    """
    arrays = {name: rows[name] for name in ("mel", "posteriorgram")}
    arrays |= {name: rows[column] for kind, (name, column) in _FURTHER.items() if kind in kinds}
    return audio_client.feature_block(arrays, rows["speech_probability"], first_frame=first_frame)


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionRequest:
    """Inputs that motion is predicted from, beside the speech.

    Attributes:
        style: speaking style of the person.
        timeline: frame times of the video.
    """

    predictor: PredictorSpec
    style: common_pb2.ArtefactRef
    timeline: common_pb2.Timeline
    num_frames: int
    mouth: MouthOptions = MouthOptions()


async def predict_motion(
    stages: Stages,
    request: MotionRequest,
    features: RecordFile,
    motion: RecordFile,
    *,
    on_frames: Callable[[int], None] | None = None,
) -> None:
    """Fill `motion` with a MOTION_RECORD for every frame of the video; records that are there already are removed.

    Args:
        request: what the motion is predicted from.
        features: FEATURE_RECORDs of the speech.
        motion: gets the records.
        on_frames: called with the number of finished frames.

    Raises:
        DubstageError: from the motion stage.
    """

    async def requests(point: CallPoint) -> AsyncIterator[motion_pb2.PredictMotionRequest]:
        call = motion_client.predict_motion.requests(
            method=request.predictor.name,
            style=request.style,
            timeline=request.timeline,
            num_frames=request.num_frames,
            whole_speech=True,
            **asdict(request.mouth),
        )
        call.config.config.states = True
        if point.state is not None:
            call.config.config.resume.CopyFrom(point.state)
        yield call.config
        for begin in range(point.begin, features.num_rows, FEATURE_BLOCK):
            rows = features.read(begin, begin + FEATURE_BLOCK)
            yield call.item(feature_block(rows, begin, request.predictor.features))

    motion.clear()
    point = CallPoint()

    async def predict() -> None:
        async with aclosing(_answers(stages, rpcs.motion.PREDICT_MOTION, requests, point)) as replies:
            async for reply in replies:
                _append(motion, motion_records(reply.frames), reply.frames[0].frame_index, on_frames)
        motion.sync()

    await until_done(predict, progress=lambda: motion.num_rows)
    if motion.num_rows != request.num_frames:
        raise ContractBrokenError(f"the motion stage answered {motion.num_rows} of {request.num_frames} frames")


def motion_records(frames: Iterable[motion_pb2.MotionFrame]) -> npt.NDArray[np.void]:
    """Return the MOTION_RECORDs of MotionFrame messages."""
    messages = list(frames)
    rows = np.zeros(len(messages), dtype=MOTION_RECORD)
    for row, message in zip(rows, messages, strict=True):
        row["mouth"] = from_tensor(message.mouth_landmarks, "mouth_landmarks", dtype=np.float32, shape=(NUM_MOUTH_AREA, 3))
        row["speech_probability"] = message.speech_probability
        row["pose"] = pose_vectors([pose_from_proto(message.pose, "pose")])[0] if message.HasField("pose") else np.nan
        row["blink"] = message.blink
    return rows


@dataclass(frozen=True, slots=True)
class AlignedSpeech:
    """Speech that belongs to the frames of a video.

    Attributes:
        features: FEATURE_RECORDs of the speech. Record 0 begins at time 0 of the video.
        seconds: float64 [T], presentation time of every frame of the video from the first frame.
        lag_frames: frames of 40 ms by which the sound comes after the picture.
    """

    features: RecordFile | RecordSpan
    seconds: Float64
    lag_frames: int = 0

    def around(self, frames: Int64) -> Float32:
        """Return the speech features of frames of the video, float32 [N, 20, 40].

        A frame at time n / 25 s gets the posteriorgram rows of frames n - 1 to n + 3 of the motion grid (SPEECH_BEFORE). A frame
        at another time gets the rows that begin in the same 200 ms about the frame, to the nearest 10 ms. Rows outside the speech
        are 0.

        Args:
            frames: int64 [N], frames of the video.
        """
        nearest = np.floor(self.seconds[frames] * _ROWS_PER_S + 0.5).astype(np.int64)
        begins = nearest + (self.lag_frames - SPEECH_BEFORE) * ROWS_PER_FRAME
        return np.array([self._rows(int(begin)) for begin in begins], np.float32).reshape(-1, *SPEECH_SHAPE)

    def _rows(self, begin: int) -> Float32:
        """Return the posteriorgram rows begin to begin + 19 of the speech. The records are read frame by frame: videos have
        gaps.
        """
        rows: Float32 = np.zeros(SPEECH_SHAPE, np.float32)
        first = max(0, begin // ROWS_PER_FRAME)
        read = self.features.read(first, (begin + SPEECH_ROWS - 1) // ROWS_PER_FRAME + 1)["posteriorgram"].reshape(
            -1, SPEECH_SHAPE[1]
        )
        shift = first * ROWS_PER_FRAME - begin
        part = read[max(0, -shift) : SPEECH_ROWS - shift]
        rows[max(0, shift) : max(0, shift) + len(part)] = part
        return rows
