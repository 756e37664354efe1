"""Files of a dub: the speech, the output, and the checks of both before any computation."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from gateway.consent.record import consent_line
from gateway.media.background_film import own_timeline
from gateway.media.encoders import EncoderChoice
from gateway.media.inspection import inspect_film, inspect_sound
from gateway.media.marking import MARK
from gateway.media.regular_file import reading
from gateway.media.sound import SoundReader, Speech
from gateway.media.stills import as_shown, check_opaque, is_still
from gateway.media.types import MediaInfo
from gateway.media.write_settings import WriteSettings
from gateway.media.writer import Seal, VideoWriter
from gateway.pipeline.dub_request import DubRequest, has_own_timeline, what_is_synthetic
from services.common.errors import InvalidRequest


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal.

    Raises:
        MediaUnsupported: the file is missing, no regular file, empty, or may not be read.
    """
    with reading(path, field="video") as handle, open(handle, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_speech(request: DubRequest, info: MediaInfo) -> Speech:
    """Return the speech of a dub: the sound file of the request, or the sound of the footage.

    Raises:
        InvalidRequest: the request has no sound file, and the footage has no sound.
        MediaUnsupported: the sound cannot be read, or has no samples.
    """
    if request.speech is not None:
        inspect_sound(request.speech)
        return SoundReader(request.speech).speech()
    if not info.audio:
        raise InvalidRequest(f"{info.path} has no sound to dub to: give new speech with --audio FILE", field="audio")
    own = SoundReader(info.path, origin=info.video.start)
    own.check_sound()
    return own.speech()


def open_writer(
    request: DubRequest,
    film: MediaInfo,
    speech: Speech,
    *,
    dubbed: bool = True,
    takes_over: bool = False,
    seal: Seal | None = None,
) -> VideoWriter:
    """Return the writer of a dub's output. The output is checked and not begun.

    Args:
        request: the dub request.
        film: film that is dubbed in place.
        speech: speech of the dub.
        dubbed: whether the mouth of any frame is rendered, for the mark in the output.
        takes_over: whether the unfinished file of a process that did this dub before is removed, even if the process holds it.
        seal: signs the film; None: the film gets no manifest.

    Raises:
        InvalidRequest, MediaUnsupported: the output cannot be written as requested.
    """
    new_sound = (request.speech is not None or film.path != request.footage or not film.audio) and not request.keep_audio
    return VideoWriter(
        request.output,
        film,
        speech=speech if new_sound else None,
        settings=WriteSettings(
            codec=request.codec,
            keep_audio=request.keep_audio,
            marking=f"{what_is_synthetic(request, dubbed=dubbed)} ({MARK}); {consents(request)}.",
            threads=request.threads,
            overwrite=request.overwrite,
            takes_over=takes_over,
        ),
        speech_file=request.speech,
        seal=seal,
    )


def consents(request: DubRequest) -> str:
    """Return one line about the consent of the person who is dubbed and, if there is one, of the person in the reference."""
    line = consent_line(request.named_consent)
    if request.reference is None:
        return line
    return f"{line}; appearance of another picture: {consent_line(request.reference_consent)}"


def check_request(request: DubRequest) -> None:
    """Check the files of a request before any stage is started.

    Raises:
        DubstageError: as `DubJob.run`, for errors that can be found without decoding the footage.
    """
    info = inspect_film(request.footage)
    check_output(request, info, open_speech(request, info))
    if request.reference is not None:
        inspect_film(request.reference)


def check_output(request: DubRequest, info: MediaInfo, speech: Speech) -> EncoderChoice:
    """Check the output of a dub, and return how the film will be encoded.

    Raises:
        InvalidRequest, MediaUnsupported: as `open_writer` and `has_own_timeline`.
    """
    film = info
    if has_own_timeline(request, info):
        if is_still(info):
            check_opaque(info)
        # Two frames, because a film of one frame has no rate.
        film = own_timeline(as_shown(info) if is_still(info) else info, 2)
    return open_writer(request, film, speech).choice


def refuse_input(output: Path, file: Path, what: str) -> None:
    """Raise InvalidRequest if the output is an input file, also through links.

    Args:
        output: file to write.
        file: the input file.
        what: what the input file is, for the message.
    """
    # os.path raises no error for an impossible name. Such a name is reported later, when the place of the output is checked.
    if os.path.exists(output) and os.path.exists(file) and os.path.samefile(output, file):
        raise InvalidRequest(f"--output {output} is {what}; choose another output file", field="output")
