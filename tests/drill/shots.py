"""Real shots of some seconds, cut from clips of several people."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path

import av

SHOT_S = 2.0
BETWEEN_S = 3.0
"""Seconds from the end of one shot to the beginning of the next shot of the same clip."""
METHODS = ("dubstage", "ugc", "everybody", "hetero", "everyone")


@dataclass(frozen=True)
class Cut:
    """One shot on disk.

    Attributes:
        id: name of the shot.
        footage: file name below the media folder.
    """

    id: str
    footage: str
    method: str


def cut_shots(clips: list[Path], folder: Path, count: int) -> list[Cut]:
    """Write `count` shots to the folder, from each clip in turn.

    Raises:
        SystemExit: the clips are too short for so many shots.
    """
    begins = {clip: _begins(clip) for clip in clips}
    wanted = [(clip, begin) for turn in range(count) for clip in clips for begin in begins[clip][turn : turn + 1]][:count]
    if len(wanted) < count:
        every = SHOT_S + BETWEEN_S
        raise SystemExit(
            f"the clips hold {len(wanted)} shots, one in {every:g} s, and {count} are wanted: give more or longer clips"
        )
    cuts = []
    for number, ((clip, begin), method) in enumerate(zip(wanted, islice(cycle(METHODS), count), strict=True)):
        cut = Cut(f"s{number:02d}_{clip.stem}_{method}", f"s{number:02d}.mp4", method)
        _cut(clip, folder / cut.footage, begin)
        cuts.append(cut)
    return cuts


def _begins(clip: Path) -> list[float]:
    with av.open(str(clip)) as footage_file:
        seconds = float(footage_file.duration or 0) / av.time_base
    count = int((seconds - SHOT_S) // (SHOT_S + BETWEEN_S)) + 1 if seconds >= SHOT_S else 0
    return [number * (SHOT_S + BETWEEN_S) for number in range(count)]


def _cut(clip: Path, target: Path, begin_s: float) -> None:
    """Write the pictures and the sound of a span, coded anew."""
    with av.open(str(clip)) as footage_file, av.open(str(target), "w") as writer:
        video, sound = footage_file.streams.video[0], footage_file.streams.audio[0]
        rate = video.average_rate or Fraction(25)
        pictures = writer.add_stream("libx264", rate=rate)
        pictures.width, pictures.height, pictures.pix_fmt = video.width, video.height, "yuv420p"
        pictures.options = {"crf": "14", "threads": "1"}
        tones = writer.add_stream("aac", rate=sound.rate)
        for frame in footage_file.decode(video, sound):
            if frame.time is None or not begin_s <= frame.time < begin_s + SHOT_S:
                continue
            frame.pts = None if isinstance(frame, av.AudioFrame) else round((frame.time - begin_s) * rate)
            if isinstance(frame, av.VideoFrame):
                frame.time_base = 1 / rate
                writer.mux(pictures.encode(frame))
            else:
                writer.mux(tones.encode(frame))
        writer.mux(pictures.encode(None))
        writer.mux(tones.encode(None))
