"""Parts that system tests share: the demo's speech, dubs in this process, cuts of clips, and checks of the videos."""

import hashlib
import wave
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.audio.resampler import AudioResampler

from gateway.actors.create import EnrolRequest, create_actor
from gateway.actors.store import ActorStore
from gateway.actors.stored import StoredActor
from gateway.dub.choices import EnrolOptions
from gateway.dub.job.dub_job import DubJob
from gateway.dub.job.outcome import DubOutcome
from gateway.dub.request.dub_request import DubRequest
from gateway.dub.state.records import FACE_RECORD
from gateway.live.client import PacedSpeech
from gateway.live.streams import LiveStreams
from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from gateway.provenance.seal import Sealer
from gateway.settings import GatewaySettings
from gateway.stages.interface import Stages
from research.stage_host import StageHost
from services.common.store.artefacts import ArtefactStore
from services.face.tracking import FaceTracker, Networks
from services.face.types import FrameFaces, TrackOptions
from tests.written_pictures import write_pictures

ROOT = Path(__file__).parents[2]
SPEECH = ROOT / "gateway" / "cli" / "demo_speech.flac"
UNPERSONALIZED = EnrolOptions(personalize_renderer=False, personalize_motion=False)
"""`dubstage evaluate` measures the look of the picture; these tests hold that the right frames are dubbed, exactly."""


@dataclass(frozen=True)
class Dubbed:
    """A dub and what its first pass saw: FACE_RECORDs, one a face a frame."""

    outcome: DubOutcome
    faces: npt.NDArray[Any]


@dataclass(frozen=True)
class Dubber:
    """Runs dubs in this process on one set of warm stages."""

    host: StageHost
    store: ArtefactStore
    jobs: Path

    def __call__(self, request: DubRequest, enrol: EnrolOptions = UNPERSONALIZED, *, sealer: Sealer | None = None) -> DubOutcome:
        return self.with_faces(request, enrol, sealer=sealer).outcome

    def with_faces(self, request: DubRequest, enrol: EnrolOptions = UNPERSONALIZED, *, sealer: Sealer | None = None) -> Dubbed:
        job = DubJob(replace(request, enrol=enrol), self.host.stages, self.store, self.jobs, sealer=sealer)
        outcome = self.host.run(job.run(lambda *_: None))
        assert job.folder is not None
        faces = np.fromfile(job.folder / "faces.bin", FACE_RECORD)
        job.discard()
        return Dubbed(outcome, faces)


class WrappedStages:
    """Stages around others. Subclasses add the calls.

    Args:
        stages: the stages that answer.
    """

    def __init__(self, stages: Stages) -> None:
        self._stages = stages

    @property
    def face_model(self) -> str:
        return self._stages.face_model

    @property
    def call_deadline_s(self) -> float | None:
        return self._stages.call_deadline_s


class Counted(WrappedStages):
    """Stages that count the calls of each RPC."""

    def __init__(self, stages: Stages) -> None:
        super().__init__(stages)
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._stages, name)

        def begin(rpc: Any, requests: Any) -> Any:
            self.calls[rpc.path] += 1
            return call(rpc, requests)

        return begin


@dataclass(frozen=True)
class Streamed:
    """A live stream: the actor who was enrolled for the stream, and the pictures, RGB."""

    actor: StoredActor
    pictures: list[npt.NDArray[np.uint8]]


def enrol(host: StageHost, settings: GatewaySettings, actors: ActorStore, name: str, footage: Path) -> StoredActor:
    """Enrol a person for `dubstage` without personalised networks."""
    request = EnrolRequest(actor_id=name, footage=footage, method="dubstage", options=UNPERSONALIZED)
    store = ArtefactStore(settings.artefacts_url)
    return host.run(create_actor(request, host.stages, actors, store, settings.data_dir / "jobs", on_progress=lambda *_: None))


def streamed(host: StageHost, settings: GatewaySettings, name: str, footage: Path, speech: npt.NDArray[np.float32]) -> Streamed:
    """Enrol a person without personalised networks, and stream the person with speech of 16 kHz, faster than it is spoken."""
    store = ArtefactStore(settings.artefacts_url)
    with ActorStore(settings) as actors:
        actor = enrol(host, settings, actors, name, footage)
        streams = LiveStreams(lambda: host.stages, actors, store, max_message_bytes=settings.max_message_bytes)

        async def stream() -> list[npt.NDArray[np.uint8]]:
            sound = PacedSpeech(speech, 16000, in_real_time=False)
            return [frame.picture async for frame in streams.frames(name, sound.chunks(), sample_rate_hz=16000, channels=1)]

        return Streamed(actor, host.run(stream()))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def cut(source: Path, target: Path, begin_s: float, end_s: float) -> Path:
    """Part of a clip, without loss: every decoded sample of its pictures and its sound, re-coded as ffv1 and flac."""
    with av.open(str(source)) as footage_file, av.open(str(target), "w") as output:
        pictures = footage_file.streams.video[0]
        assert pictures.time_base is not None
        sounds = footage_file.streams.audio[0] if footage_file.streams.audio else None
        video = output.add_stream("ffv1", rate=pictures.average_rate)
        video.width, video.height, video.pix_fmt = pictures.width, pictures.height, pictures.pix_fmt
        video.time_base = pictures.time_base
        video.codec_context.time_base = pictures.time_base
        audio = output.add_stream("flac", rate=sounds.rate) if sounds else None
        to_flac = AudioResampler(format="s16", layout=sounds.layout.name, rate=sounds.rate) if sounds else None
        over: set[type] = set()
        for frame in footage_file.decode(*(stream for stream in (pictures, sounds) if stream)):
            if frame.time is None or frame.time < begin_s - 1e-6:
                continue
            if frame.time >= end_s - 1e-6:
                over.add(type(frame))
                if len(over) == (2 if sounds else 1):
                    break
                continue
            frame.pts -= round(Fraction(begin_s) / frame.time_base)
            if isinstance(frame, av.VideoFrame):
                frame.pict_type = av.video.frame.PictureType.NONE
                output.mux(video.encode(frame))
            elif audio and to_flac:
                output.mux([packet for part in to_flac.resample(frame) for packet in audio.encode(part)])
        for stream in (video, audio):
            if stream:
                output.mux(stream.encode())
    return target


def first_seconds(source: Path, target: Path, seconds: float) -> Path:
    """The beginning of a clip as it is coded, in the same container, up to a place at which no frame needs a later packet."""
    with av.open(str(source)) as footage_file, av.open(str(target), "w") as output:
        streams = [*footage_file.streams.video, *footage_file.streams.audio]
        copies = {stream.index: output.add_stream_from_template(stream) for stream in streams}
        packets = [packet for packet in footage_file.demux(streams) if packet.pts is not None and packet.dts is not None]
        times = [float(packet.pts * packet.time_base) for packet in packets if packet.stream.type == "video"]
        whole = [number for number in range(1, len(times)) if max(times[:number]) < min(times[number:]) <= seconds]
        count = whole[-1] if times[-1] >= seconds else len(times)
        end = min(times[count:], default=float("inf"))
        for packet in packets:
            if packet.stream.type == "video":
                count -= 1
            if count >= 0 if packet.stream.type == "video" else packet.pts * packet.time_base < end:
                packet.stream = copies[packet.stream.index]
                output.mux(packet)
    return target


def frame_seconds(path: Path) -> list[Fraction]:
    """The exact presentation time of every frame, seconds after the first: videos that dubstage writes begin at 0."""
    video = probe(path).video
    return [int(pts - video.pts[0]) * video.time_base for pts in video.pts]


def write_wav(path: Path, samples: npt.NDArray[np.float64], rate: int) -> Path:
    """16-bit sound from float [T] or [T, channels] in -1 to 1."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def decoded(path: Path) -> Iterator[tuple[npt.NDArray[Any], ...]]:
    """Copies of the planes of every frame."""
    with VideoReader(probe(path)) as reader:
        for frame in reader:
            yield tuple(plane.copy() for plane in frame.planes)


def track(path: Path, half_width: int = 0) -> list[FrameFaces]:
    """Faces of every frame; half_width 0: as measured, not smoothed."""
    networks = Networks()
    try:
        tracker = FaceTracker(networks, TrackOptions(half_width=half_width))
        with VideoReader(probe(path), threads=1) as reader:
            frames = [done for frame in reader for done in tracker.push(to_rgb(frame))]
        return frames + tracker.finish()
    finally:
        networks.close()


@dataclass(frozen=True)
class PersonClip:
    """A clip for one place of `side_by_side`, from `begin_s` of the clip."""

    path: Path
    begin_s: float = 0.0


def side_by_side(people: list[PersonClip], target: Path, seconds: float, *, voices: list[int], side: int = 288) -> Path:
    """People beside each other in one video without loss, each in a square of `side` pixels, at 25 frames per second.

    Args:
        voices: whose sound is heard, in parts of equal length.
    """
    count = round(seconds * 25)
    pictures = [_squares(person, count, side) for person in people]
    edges = [part * round(seconds * 16000) // len(voices) for part in range(len(voices) + 1)]
    heard = [samples_of(people[voice], seconds)[begin:end] for voice, (begin, end) in zip(voices, pairwise(edges), strict=True)]
    return write_video(target, [np.hstack(row) for row in zip(*pictures, strict=True)], np.concatenate(heard))


def write_video(target: Path, pictures: Sequence[npt.NDArray[np.uint8]], samples: npt.NDArray[np.float64]) -> Path:
    """RGB pictures of one size at 25 frames per second, and mono sound at 16 kHz, -1 to 1, without loss."""
    with av.open(str(target), "w") as output:
        video = output.add_stream("ffv1", rate=25)
        video.height, video.width, _ = pictures[0].shape
        video.pix_fmt = "yuv420p"
        sound = output.add_stream("flac", rate=16000, layout="mono")
        for picture in pictures:
            output.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(video.encode())
        sixteen_bits = np.round(np.clip(samples[None], -1, 1) * 32767).astype("<i2")
        frame = av.AudioFrame.from_ndarray(sixteen_bits, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
        output.mux([*sound.encode(frame), *sound.encode()])
    return target


def _squares(person: PersonClip, count: int, side: int) -> list[npt.NDArray[np.uint8]]:
    found: list[npt.NDArray[np.uint8]] = []
    with av.open(str(person.path)) as clip:
        for frame in clip.decode(video=0):
            if frame.time is None or frame.time < person.begin_s - 1e-6:
                continue
            short = min(frame.width, frame.height)
            picture = frame.to_ndarray(format="rgb24")
            top, left = (frame.height - short) // 2, (frame.width - short) // 2
            square = np.ascontiguousarray(picture[top : top + short, left : left + short])
            found.append(av.VideoFrame.from_ndarray(square, format="rgb24").reformat(side, side).to_ndarray())
            if len(found) == count:
                return found
    raise AssertionError(f"{person.path} is too short")


def samples_of(person: PersonClip, seconds: float) -> npt.NDArray[np.float64]:
    """The sound of a clip from `begin_s` on, 16 kHz mono, -1 to 1."""
    resampler = AudioResampler(format="flt", layout="mono", rate=16000)
    with av.open(str(person.path)) as clip:
        parts = [part.to_ndarray()[0] for frame in clip.decode(audio=0) for part in resampler.resample(frame)]
    begin = round(person.begin_s * 16000)
    return np.concatenate(parts)[begin : begin + round(seconds * 16000)].astype(np.float64)


def joined(videos: list[Path], target: Path) -> Path:
    """The pictures of videos of one size, one after the other, without loss and without sound."""
    pictures = []
    for path in videos:
        with av.open(str(path)) as video:
            pictures += [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    return write_pictures(target, pictures)
