"""Short shots of real footage, and the manifest of their batch."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Final

import av

SHOT_S: Final = 3.0
"""Length of a shot, seconds."""
MANIFEST: Final = "shots.jsonl"


def write_shots(footage: Path, speech: Path, count: int, method: str, folder: Path) -> list[str]:
    """Write shots and their manifest to a folder, and return the names of the films that the manifest asks for.

    The shots begin at equal distances, and overlap if the footage is short.

    Args:
        footage: film of a person.
        speech: what the person shall say in every shot; a file of the folder.
        count: number of shots, at least 1.
        method: method that dubs them.
        folder: gets the files; paths in the manifest are relative to the folder.

    Raises:
        ValueError: the footage is shorter than a shot.
    """
    with av.open(str(footage)) as film:
        seconds = float(film.duration or 0) / av.time_base
    if seconds < SHOT_S:
        raise ValueError(f"{footage} is {seconds:.1f} s long, and a shot has {SHOT_S:g} s: give longer footage")
    rows: list[dict[str, object]] = [{"defaults": {"speech": speech.name, "method": method, "personalize": False}}]
    films = []
    for number in range(count):
        name, begin_s = f"shot{number + 1}", (seconds - SHOT_S) * number / max(1, count - 1)
        _cut(footage, folder / f"{name}.mp4", begin_s)
        films.append(f"batch/{name}.mp4")
        rows.append({"id": name, "footage": f"{name}.mp4", "output": films[-1]})
    (folder / MANIFEST).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return films


def _cut(footage: Path, target: Path, begin_s: float) -> None:
    """Write the pictures of a span, coded anew."""
    with av.open(str(footage)) as film, av.open(str(target), "w") as writer:
        video = film.streams.video[0]
        rate = video.average_rate or Fraction(25)
        pictures = writer.add_stream("libx264", rate=rate)
        pictures.width, pictures.height, pictures.pix_fmt = video.width, video.height, "yuv420p"
        pictures.options = {"crf": "14", "threads": "1"}
        for frame in film.decode(video):
            if frame.time is not None and begin_s <= frame.time < begin_s + SHOT_S:
                frame.time_base, frame.pts = 1 / rate, round((frame.time - begin_s) * rate)
                writer.mux(pictures.encode(frame))
        writer.mux(pictures.encode(None))
