"""What a dub is asked for, and what is wrong with it before anything is computed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from dubstage.texture.v1alpha1 import texture_pb2
from gateway.consent import Consent, consent_line
from gateway.media.background_film import own_timeline
from gateway.media.inspection import inspect_film, inspect_sound
from gateway.media.marking import MARK
from gateway.media.regular_file import reading
from gateway.media.sound import SoundReader, Speech
from gateway.media.stills import as_shown, is_still
from gateway.media.types import MediaInfo
from gateway.media.writer import VideoWriter, WriteSettings
from gateway.methods import METHODS, Method, method_named
from gateway.pipeline.enrol import EnrolledActor, EnrolOptions
from gateway.pipeline.faces import FaceChoice
from gateway.pipeline.speech import FEATURE_BLOCK
from services.common.errors import InvalidRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class DubRequest:
    """What is to be dubbed, and how.

    Attributes:
        footage: video file.
        speech: sound file; None: the footage's own sound.
        output: file to write.
        method: row of gateway.methods.
        face: whose mouth.
        actor: enrolled before; None: enrolled from this footage in passing.
        consent: for the mark in the output.
        keep_audio: the output keeps the footage's sound.
        codec: of the output; None: chosen by the container.
        enrol: what of an enrolment in passing is done.
        warp: texture mode.
        threads: of decoder and encoder.
        feature_block: feature frames a message to the motion stage; changes no byte of the result.
        retime: the film gets the speech's length and a head motion that goes with it, out of the footage's own frames.
        overwrite: replace the file at `output` whatever it is; without it, only a film that dubstage wrote.
    """

    footage: Path
    speech: Path | None
    output: Path
    method: str = "ugc"
    face: FaceChoice = FaceChoice("largest")
    actor: EnrolledActor | None = None
    consent: Consent | None = None
    keep_audio: bool = False
    codec: str | None = None
    enrol: EnrolOptions = EnrolOptions()
    warp: texture_pb2.WarpMode.ValueType = texture_pb2.WARP_MODE_TEMPORAL_WARP_NETWORK
    threads: int = 2
    feature_block: int = FEATURE_BLOCK
    retime: bool = False
    overwrite: bool = False


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises:
        MediaUnsupported: it is missing, no regular file, empty, or may not be read.
    """
    with reading(path, field="video") as handle, open(handle, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_speech(request: DubRequest, info: MediaInfo) -> Speech:
    """The speech of a dub: the file that was given, or the footage's own sound.

    Raises:
        InvalidRequest: no file was given and the footage has no sound.
        MediaUnsupported: the file has no sound that can be read, or not one sample of it.
    """
    if request.speech is not None:
        inspect_sound(request.speech)
        return SoundReader(request.speech).speech()
    if not info.audio:
        raise InvalidRequest(f"{info.path} has no sound to dub to: give new speech with --audio FILE", field="audio")
    own = SoundReader(info.path, origin=info.video.start)
    own.check_sound()
    return own.speech()


def open_writer(request: DubRequest, film: MediaInfo, speech: Speech, *, dubbed: bool = True) -> VideoWriter:
    """The output of a dub, checked but not begun. `dubbed`: whether the mouth of any frame is rendered, for the mark in the film.

    Raises:
        InvalidRequest, MediaUnsupported: it can't be written as asked.
    """
    new_sound = (request.speech is not None or film.path != request.footage or not film.audio) and not request.keep_audio
    return VideoWriter(
        request.output,
        film,
        speech=speech if new_sound else None,
        settings=WriteSettings(
            codec=request.codec,
            keep_audio=request.keep_audio,
            marking=f"{_made(request, dubbed)} ({MARK}); {consent_line(request.consent)}.",
            threads=request.threads,
            overwrite=request.overwrite,
        ),
        speech_file=request.speech,
    )


def _made(request: DubRequest, dubbed: bool) -> str:
    if method_named(request.method).moves_head:
        what = "The mouth and the motion of the head in this film are" if dubbed else "The motion of the head in this film is"
        return f"{what} synthetic"
    return "The mouth in this film is synthetic" if dubbed else "No mouth in this film is synthetic"


def check_footage(method: Method, footage: Path, info: MediaInfo) -> None:
    """Raise InvalidRequest where footage is a single picture and the method needs a film."""
    if is_still(info) and not method.takes_still:
        able = ", ".join(name for name, row in METHODS.items() if row.takes_still)
        raise InvalidRequest(
            f"{footage} is a single picture, method {method.name} needs footage; of a picture one can dub with {able}",
            field="method",
        )


def has_own_timeline(request: DubRequest, info: MediaInfo) -> bool:
    """Whether the film's frames are not the footage's, one for one.

    Raises:
        InvalidRequest: the request's parts do not go together.
    """
    method = method_named(request.method)
    check_footage(method, request.footage, info)
    return wants_own_timeline(method, retime=request.retime, keep_audio=request.keep_audio)


def wants_own_timeline(method: Method, *, retime: bool, keep_audio: bool) -> bool:
    """As `has_own_timeline`, without a look at the footage."""
    if retime and method.moves_head:
        raise InvalidRequest(f"method {method.name} makes the head motion itself: there is nothing to retime", field="retime")
    own = retime or method.moves_head
    if own and keep_audio:
        raise InvalidRequest("the film gets a timeline of its own: the footage's sound can't be kept with it", field="keep_audio")
    return own


def check_request(request: DubRequest) -> None:
    """Find what is wrong with a request's files before any stage is started.

    Raises:
        DubstageError: as `DubJob.run`, for whatever can be seen without decoding the footage.
    """
    info = inspect_film(request.footage)
    check_output(request, info, open_speech(request, info))


def check_output(request: DubRequest, info: MediaInfo, speech: Speech) -> None:
    """Raise what `open_writer` and `has_own_timeline` would."""
    film = info
    if has_own_timeline(request, info):
        film = as_shown(info) if is_still(info) else own_timeline(info, 1)
    open_writer(request, film, speech)
