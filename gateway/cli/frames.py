"""`dubstage frames`: image sequences as videos for batches and timelines, and their dubs as image sequences again."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli import options
from gateway.cli.app import command_group, run_async
from gateway.cli.console import say_output
from gateway.cli.progress import StepProgress
from gateway.dub.request.sequences import frame_by_frame, sequence_settings
from gateway.media.choices import OcioSettings
from gateway.media.sequence_names import is_sequence
from gateway.media.sequences import FramesOutput, SequenceSettings, colour_of, open_sequence, write_frames, write_video
from services.common.errors import InvalidRequestError

commands = command_group(
    "frames", "Make a video of an image sequence, for batches and timelines, and frames of the dub of that video."
)

_Pattern = Annotated[
    Path,
    typer.Argument(
        metavar="FRAMES", help="Image sequence: a pattern such as shot.%04d.exr, shot.####.dpx or shot.1001-1250####.tif."
    ),
]


def _settings(footage: Path, *, rate: str, sound: Path | None, colour: OcioSettings) -> SequenceSettings:
    """Return what the options say about a sequence.

    Raises:
        InvalidRequestError: the footage is no pattern of a sequence, or an option is wrong.
    """
    if not is_sequence(footage):
        raise InvalidRequestError(f"{footage}: give the pattern of an image sequence, such as shot.%04d.exr", field="footage")
    sequence = sequence_settings(footage, rate=rate, sound=sound, colour=colour)
    assert sequence is not None
    return sequence


@commands.command("to-video")
def to_video(
    frames: _Pattern,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Video to write without loss (FFV1): .mp4, .mkv or .nut.")
    ],
    rate: options.Rate = "",
    footage_sound: options.FootageSound = None,
    ocio: options.Ocio = "",
    input_colourspace: options.InputColourspace = "",
    display: options.Display = "",
    view: options.View = "",
    overwrite: options.Overwrite = False,
    _: options.AsJson = False,
) -> None:
    """Write FRAMES as a video, as a display shows them."""
    colour = OcioSettings(config=ocio, colourspace=input_colourspace, display=display, view=view)
    settings = _settings(frames, rate=rate, sound=footage_sound, colour=colour)
    sequence = open_sequence(frames, settings.rate)
    work = partial(write_video, sequence, colour_of(sequence, settings.colour), output, sound=settings.sound, overwrite=overwrite)
    with StepProgress() as progress:
        run_async(frame_by_frame(work, partial(progress, "read frames")))
    say_output(output)


@commands.command("from-video")
def from_video(
    frames: _Pattern,
    video: Annotated[Path, typer.Option(metavar="FILE", help="Video of FRAMES, written by `dubstage frames to-video`.")],
    dub: Annotated[Path, typer.Option(metavar="FILE", help="Dub of that video, made with --codec ffv1.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FRAMES", help="Pattern of the frames to write, such as dub/shot.%04d.exr.")
    ],
    rate: options.Rate = "",
    ocio: options.Ocio = "",
    input_colourspace: options.InputColourspace = "",
    display: options.Display = "",
    view: options.View = "",
    overwrite: options.Overwrite = False,
    _: options.AsJson = False,
) -> None:
    """Write FRAMES anew, with the pixels that a dub of their video has changed. Give the colour options that `to-video` got."""
    colour = OcioSettings(config=ocio, colourspace=input_colourspace, display=display, view=view)
    settings = _settings(frames, rate=rate, sound=None, colour=colour)
    sequence = open_sequence(frames, settings.rate)
    target = FramesOutput(output, sequence, overwrite=overwrite)
    work = partial(write_frames, sequence, colour_of(sequence, settings.colour), video, dub, target)
    with StepProgress() as progress:
        run_async(frame_by_frame(work, partial(progress, "write frames")))
    say_output(output)
