"""Recording of a live stream: a video of 25 frames/s with the speech as its sound, its comment and its manifest."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import av
import numpy as np
import soxr

from gateway.actors.stored import StoredActor
from gateway.consent.record import Consent, consent_line, digest_of
from gateway.dub.request.claim import model_facts
from gateway.media.encoders import WriteSettings, container_format, encoder_options
from gateway.media.mp4 import BUFFER_BYTES
from gateway.media.output import MARK, OutputFile, check_output_file, commit_with, output_error
from gateway.media.pixels import ColourModel, ColourTags, colour_model, effective_matrix, pixel_format
from gateway.media.reader import from_rgb
from gateway.media.types import VideoInfo
from gateway.provenance.binding import sidecar_of
from gateway.provenance.claim import Claim, DubFacts, ModelFacts, SourceFile, stream_statement
from gateway.provenance.seal import Sealer, SignedDisclosure, VideoSeal
from gateway.provenance.verdict import ManifestState, verdict_of
from gateway.provenance.watermark.embedding import Mark
from gateway.stages.interface import Stages
from gateway.stages.opening import models_for
from services.common.array_types import Float32, UInt8
from services.common.errors import InvalidRequestError
from services.common.methods import method_named
from services.common.wire.timeline import MOTION_RATE

_SYNTHETIC: Final = "The mouth in this video is synthetic"
CODEC: Final = "libx264"
_SOUND_CODEC: Final = "aac"
_SOUND_RATE_HZ: Final = 48_000
"""Rate of the sound if the codec does not have the rate of the speech."""
_PIXEL: Final = pixel_format("yuv420p")
_ENDINGS: Final = (".mp4", ".m4v", ".mov", ".mkv")
"""File extensions of containers that hold H.264 and AAC."""


@dataclass(frozen=True, slots=True)
class StreamedActor:
    """Actor of a stream, as the comment and the manifest of the video name the actor.

    Attributes:
        method: name of the method that the actor is enrolled for.
        models: models of the method; empty: they are not known, because a gateway ran the stages.
        consent: consent record of the actor; None: there is none.
        job: what the watermark of the stream is bound to (stream_job); empty: it is not known, because a gateway ran the stages.
        watermark: what the watermark says, 9 hexadecimal digits; empty: the stream has no watermark, or its watermark is not known.
    """

    method: str
    models: tuple[ModelFacts, ...]
    consent: Consent | None
    job: str = ""
    watermark: str = ""

    @property
    def marking(self) -> str:
        """Text for the comment tag of the video."""
        return f"{_SYNTHETIC} ({MARK}); {consent_line(self.consent)}"

    def claim(self, num_frames: int = 0, sources: tuple[SourceFile, ...] = ()) -> Claim:
        """Return what the manifest of the video, or of a stream that has just begun, says. The mouth is synthetic in every frame.

        Args:
            num_frames: number of frames; 0: not known yet.
            sources: the speech; empty: not known yet.
        """
        return Claim(
            version=version("dubstage-suite"),
            description=f"{_SYNTHETIC}.",
            synthetic=True,
            method=self.method,
            models=self.models,
            num_frames=num_frames,
            frame_rate=MOTION_RATE,
            dubbed=(range(num_frames),) if num_frames else (),
            consents={"person": digest_of(self.consent)} if self.consent is not None else {},
            job=self.job,
            watermark=self.watermark,
            stream=bool(self.job),
            sources=sources,
        )


def disclosed_facts(disclosure: SignedDisclosure) -> DubFacts | None:
    """Return what the manifest of a gateway's stream says; None: the manifest does not hold. Blocks."""
    with tempfile.TemporaryDirectory() as folder:
        packet = Path(folder, "stream.xmp")
        packet.write_bytes(disclosure.packet)
        sidecar_of(packet).write_bytes(disclosure.manifest)
        verdict = verdict_of(packet)
    return verdict.dub if verdict.state in (ManifestState.TRUSTED, ManifestState.VALID) else None


async def streamed_actor(actor: StoredActor, stages: Stages, mark: Mark | None) -> StreamedActor:
    """Return what a video says of an actor whose stages run in this process, or are called by this process.

    Args:
        mark: watermark of the stream (`stream_mark`); None: the stream has none.

    Raises:
        ModelNotFoundError: the stages do not have the actor's method.
        DubstageError: from the stages.
    """
    method = method_named(actor.method).streamed
    models = model_facts(method, await models_for(stages, method))
    return StreamedActor(method.name, models, actor.consent, stream_job(actor), str(mark.payload) if mark is not None else "")


def stream_mark(actor: StoredActor, sealer: Sealer) -> Mark | None:
    """Return the watermark of an actor's streams; None: videos of this installation get none."""
    return sealer.mark_of(stream_statement(stream_job(actor)))


def stream_job(actor: StoredActor) -> str:
    """Return the digest that the watermark of an actor's streams is bound to: the digest of the enrolment, hexadecimal."""
    return actor.artefacts["enrolment"].sha256


def check_recording(output: Path, speech: Path, *, overwrite: bool = False) -> None:
    """Check before any work that an output can be written.

    Args:
        speech: file of the speech, which must not be overwritten.
        overwrite: replace an existing file even if dubstage did not write the file.

    Raises:
        InvalidRequestError: the file extension belongs to no container, or the file cannot be written.
    """
    if output.suffix.lower() not in _ENDINGS:
        raise InvalidRequestError(
            f"{output}: live videos are written as {' '.join(_ENDINGS)}; give the output one of these endings", field="output"
        )
    check_output_file(output, inputs=[("the speech itself", speech)], overwrite=overwrite)


def recorded_colour(video: VideoInfo) -> ColourTags:
    """Return the colour tags for a recording of footage: the footage's own. HDR footage is shown in standard range, in BT.709.

    Footage in RGB or grey has neither matrix nor range that a video in yuv420p can have: the recording has limited range and the
    matrix that players assume for the recording's size. Players choose by size where the tag is missing. If size on screen and size
    in the file lead to different matrices, the recording names the footage's.
    """
    width, height = video.orientation.upright_size
    tags = video.colour if video.colour_model.hdr is None else ColourTags(1, 1, 1, 1)
    if video.pixel.kind != "yuv":
        return replace(tags, matrix=effective_matrix(ColourTags(), width, height), color_range=1)
    matrix = effective_matrix(tags, video.width, video.height)
    return replace(
        tags,
        matrix=tags.matrix if effective_matrix(tags, width // 2 * 2, height // 2 * 2) == matrix else matrix,
        color_range=2 if video.pixel.full_range_name else tags.color_range,
    )


class Recording:
    """Video that appears at its path when it is complete, or not at all.

    Args:
        output: file to write. The file extension chooses the container.
        speech: file of the speech, which must not be overwritten.
        samples: float32 [n, channels], the speech.
        sample_rate_hz: samples per second and channel.
        marking: text for the comment tag.
        overwrite: replace an existing file even if dubstage did not write the file.
        seal_of: returns what signs a video of so many frames, of a stream with such a disclosure record; None: the video gets no
            manifest.

    Attributes:
        disclosure: signed disclosure record of the stream, as soon as it has come; None: there is none.
        warnings: warnings for the user about the manifest. Complete when the video has its path.

    Raises:
        InvalidRequestError: as `check_recording`.
    """

    def __init__(
        self,
        output: Path,
        speech: Path,
        samples: Float32,
        sample_rate_hz: int,
        *,
        marking: str,
        overwrite: bool = False,
        seal_of: Callable[[int, SignedDisclosure | None], VideoSeal] | None = None,
    ) -> None:
        check_recording(output, speech, overwrite=overwrite)
        self._output, self._overwrite = output, overwrite
        self._samples = samples
        self._rate = sample_rate_hz
        rates = av.Codec(_SOUND_CODEC, "w").audio_rates or ()
        self._sound_rate = sample_rate_hz if sample_rate_hz in rates else _SOUND_RATE_HZ
        self._marking = marking
        self._seal_of = seal_of
        self.disclosure: SignedDisclosure | None = None
        self.warnings: list[str] = []
        self._file: OutputFile | None = None
        self._container: av.container.OutputContainer | None = None
        self._picture: av.VideoStream | None = None
        self._sound: av.AudioStream | None = None
        self._colour: ColourModel | None = None
        self._written = 0

    def __enter__(self) -> Self:
        self._file = OutputFile(self._output, overwrite=self._overwrite)
        return self

    def write(self, picture: UInt8, colour: ColourTags) -> None:
        """Append a frame.

        Args:
            picture: uint8 RGB [H, W, 3]. The video's samples have half the colour resolution, so an odd row or column is left out.
            colour: colour tags of the video; those of the first frame count.

        Raises:
            DubstageError: the video cannot be written.
        """
        picture = picture[: len(picture) // 2 * 2, : picture.shape[1] // 2 * 2]
        try:
            if self._container is None:
                self._open(picture, colour)
            assert self._colour is not None
            frame = from_rgb(picture, _PIXEL, self._colour)
            frame.colorspace, frame.color_range = colour.matrix, colour.color_range
            frame.color_primaries, frame.color_trc = colour.primaries, colour.transfer
            frame.pts = self._written
            frame.time_base = Fraction(1, int(MOTION_RATE))
            self._written += 1
            assert self._picture is not None
            assert self._container is not None
            self._container.mux(self._picture.encode(frame))
        except (av.FFmpegError, OSError) as problem:
            raise output_error(problem, self._output, CODEC) or problem from problem

    def _open(self, picture: UInt8, colour: ColourTags) -> None:
        assert self._file is not None
        height, width, _ = picture.shape
        target = self._file.target(self._seal_of(0, None).padding if self._seal_of is not None else 0)
        self._container = av.open(target, "w", format=container_format(self._output), buffer_size=BUFFER_BYTES)
        self._container.metadata["comment"] = self._marking
        stream = self._container.add_stream(CODEC, rate=int(MOTION_RATE))
        assert isinstance(stream, av.VideoStream)
        self._colour = colour_model(_PIXEL, colour, width, height)
        stream.width, stream.height, stream.pix_fmt = width, height, _PIXEL.name
        context, settings = stream.codec_context, WriteSettings()
        context.colorspace, context.color_range = colour.matrix, colour.color_range
        context.color_primaries, context.color_trc = colour.primaries, colour.transfer
        stream.options = {**encoder_options("h264", _PIXEL.name, settings.crf)}
        context.thread_count = settings.threads
        sound = self._container.add_stream(_SOUND_CODEC, rate=self._sound_rate)
        assert isinstance(sound, av.AudioStream)
        sound.layout = "mono" if self._samples.shape[1] == 1 else "stereo"
        self._picture, self._sound = stream, sound

    def _finish(self) -> None:
        assert self._container is not None
        assert self._picture is not None
        assert self._sound is not None
        end = self._written * self._rate // int(MOTION_RATE)
        layout = "mono" if self._samples.shape[1] == 1 else "stereo"
        sound = self._samples[:end, :2] if self._samples.shape[1] > 1 else self._samples[:end]
        begin = 0
        for block in _blocks(sound, self._rate, self._sound_rate):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block.T), format="fltp", layout=layout)
            frame.sample_rate = self._sound_rate
            frame.pts = begin
            frame.time_base = Fraction(1, self._sound_rate)
            self._container.mux(self._sound.encode(frame))
            begin += len(block)
        self._container.mux(self._sound.encode(None))
        self._container.mux(self._picture.encode(None))
        self._container.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._file is not None
        try:
            if error is None and self._container is not None:
                self._finish()
                self._file.settle()
                seal = self._seal_of(self._written, self.disclosure) if self._seal_of is not None else None
                commit_with(self._file, seal)
                self.warnings += seal.warnings if seal is not None else ()
        except (av.FFmpegError, OSError) as problem:
            raise output_error(problem, self._output, CODEC) or problem from problem
        finally:
            if error is not None and self._container is not None:
                self._container.close()
            self._file.discard()


def _blocks(sound: Float32, rate_hz: int, wanted_hz: int) -> Iterator[Float32]:
    """Yield sound, float32 [n, channels], at another rate in blocks of about a second; no block is empty."""
    stream = soxr.ResampleStream(rate_hz, wanted_hz, sound.shape[1], dtype="float32") if wanted_hz != rate_hz else None
    for begin in range(0, len(sound), rate_hz):
        block = np.ascontiguousarray(sound[begin : begin + rate_hz])
        if stream is not None:
            block = np.asarray(stream.resample_chunk(block, last=begin + rate_hz >= len(sound)), np.float32)
        if len(block):
            yield block
