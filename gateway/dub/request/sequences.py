"""Dubs of image sequences: the options that a sequence takes, and a request whose footage is the video of a sequence."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gateway.async_utilities import in_stoppable_thread
from gateway.dub.request.dub_request import DubRequest
from gateway.media.choices import OcioSettings
from gateway.media.sequence_names import is_sequence
from gateway.media.sequences import OnFrame, SequenceSettings, parse_rate, without_config
from gateway.provenance.binding import read_sidecar, sidecar_of
from services.common.errors import InvalidRequestError, WorkCancelledError
from services.common.methods import DEFAULT_METHOD, combined, method_named
from services.common.texts import Option, Text


def sequence_settings(footage: Path, *, rate: str, sound: Path | None, colour: OcioSettings) -> SequenceSettings | None:
    """Return what options say about an image sequence; None: the footage is a video.

    Raises:
        InvalidRequestError: an option is wrong, or is given for a video.
    """
    if is_sequence(footage):
        if not colour.config and colour != OcioSettings():
            raise without_config()
        return SequenceSettings(rate=parse_rate(rate) if rate else None, sound=sound, colour=colour)
    given = {
        "rate": rate,
        "footage_sound": sound,
        "ocio": colour.config,
        "input_colourspace": colour.colourspace,
        "display": colour.display,
        "view": colour.view,
    }
    for field, value in given.items():
        if value:
            raise InvalidRequestError(
                Text(
                    "{option} is for image sequences, and {footage} is none; give a sequence as a pattern such as shot.%04d.exr",
                    option=Option(field),
                    footage=footage,
                ),
                field=field,
            )
    return None


def check_sequence_options(*, fit: str, method: str | None, codec: str | None, encode_quality: str = "") -> None:
    """Check that no option is given that an image sequence does not take.

    Args:
        method: name of the method; None: the default.
        encode_quality: quality of the pictures; empty: none is given.

    Raises:
        InvalidRequestError: there is such an option.
    """
    if encode_quality:
        raise InvalidRequestError(
            "frames of an image sequence keep their own format: give no quality of the pictures", field="encode_quality"
        )
    if codec is not None:
        raise InvalidRequestError(
            Text("frames of an image sequence keep their own format: leave {codec} out", codec=Option("codec")), field="codec"
        )
    if fit not in ("", "cut"):
        raise InvalidRequestError(
            Text("an image sequence keeps its frames: leave {option} {fit} out", option=Option("fit"), fit=fit), field="fit"
        )
    check_sequence_method(combined(method or DEFAULT_METHOD))


def check_sequence_method(method: str) -> None:
    """Raise InvalidRequestError if the videos of a method do not have the frames of their footage."""
    if method_named(method).own_timeline:
        raise InvalidRequestError(
            f"an image sequence keeps its frames, and videos of method {method} are as long as the speech; choose another method",
            field="method",
        )


def with_files(request: DubRequest, footage: Path, output: Path) -> DubRequest:
    """Return a request for the video of a sequence in place of the sequence, to be dubbed without loss."""
    lines = tuple(replace(line, dub=replace(line.dub, footage=footage, output=output)) for line in request.lines)
    return replace(request, footage=footage, output=output, overwrite=True, codec="ffv1", lines=lines)


def is_signed(listing: Path) -> bool:
    """Return whether a list of the files of a dubbed sequence has a manifest beside it, so that dubstage wrote the list. Blocks."""
    return bool(read_sidecar(sidecar_of(listing)))


async def frame_by_frame(work: Callable[..., None], on_frame: OnFrame) -> None:
    """Run work on frames in a thread. If this task is cancelled, the work ends with its present frame, and nothing stays.

    Args:
        work: called with `on_frame`.
        on_frame: called in the thread after each frame.
    """
    cancelled = threading.Event()

    def counted(done: int, total: int) -> None:
        if cancelled.is_set():
            raise WorkCancelledError("the work on the frames was cancelled")
        on_frame(done, total)

    await in_stoppable_thread(lambda: work(on_frame=counted), cancelled.set)
