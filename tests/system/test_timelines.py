"""A timeline of a real man, from the editing program through a real dub and a review back to the editing program."""

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import opentimelineio as otio
import pytest

from tests.system.dubbing import SPEECH

RATE = Fraction(30000, 1001)
CUTS = ((10, 34), (70, 100))
"""First frame and end of the clips, frames of the media."""
HANDLES = 6
LABELS = ("01:00:00;04", "01:00:02;04")
"""Timecodes of the first frames of the videos, handles included."""

EDL = """TITLE: night
FCM: DROP FRAME

001  CARPHONE V     C        01:00:00;10 01:00:01;04 10:00:00;00 10:00:00;24
* FROM CLIP NAME:  sc010
002  CARPHONE V     C        01:00:02;10 01:00:03;10 10:00:00;24 10:00:01;24
* FROM CLIP NAME:  sc020
"""


def write_media(source: Path, target: Path) -> Path:
    """The man, twice as large, with a timecode."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = writer.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 352, 288, "yuv420p"
        stream.options = {"crf": "12", "preset": "superfast"}
        stream.metadata["timecode"] = "01:00:00;00"
        for frame in reader.decode(video=0):
            larger = av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), format="rgb24").reformat(352, 288)
            writer.mux(stream.encode(larger))
        writer.mux(stream.encode())
    return target


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="gray").astype(np.float32) for frame in video.decode(video=0)]


@pytest.mark.long
def test_a_timeline_is_dubbed_and_conformed(dubstage, carphone, tmp_path) -> None:
    """Two clips of a drop-frame EDL are dubbed for real. Each frame of the conformed cut shows its frame of the media."""
    media = tmp_path / "media"
    media.mkdir()
    footage = pictures(write_media(carphone, media / "carphone.mov"))
    timeline = tmp_path / "cut.edl"
    timeline.write_text(EDL)
    (tmp_path / "script.csv").write_text(f"start,language,speaker,speech\n10:00:00;02,de,MAN,{SPEECH}\n")
    folder = tmp_path / "night"
    options = ("--script", tmp_path / "script.csv", "--media", media, "--handles", HANDLES, "--rate", "29.97", "--output", folder)
    made = dubstage("batch", "from-timeline", timeline, *options, "--set", "personalize=false")
    assert made.returncode == 0, made.stderr
    first, second = [json.loads(line) for line in (folder / "night.jsonl").read_text().splitlines()][1:]
    assert first["lines"][0]["start"] == "00:00:00:08"
    assert second["lines"][0]["speech"].startswith("speech/")

    dubbed = dubstage("batch", "submit", folder / "night.jsonl", "--workers", 1)
    assert dubbed.returncode == 0, dubbed.stderr
    again = dubstage("batch", "submit", folder / "night.jsonl", "--workers", 1)
    assert "batch night exists and goes on: 2 shots, 2 done" in again.stderr, again.stderr
    assert dubstage("batch", "review", "night", first["id"], "--approve", "--by", "Ada").returncode == 0

    back = tmp_path / "back.otio"
    conformed = dubstage("batch", "conform", "night", timeline, "--rate", "29.97", "--output", back)
    assert conformed.returncode == 0, conformed.stderr
    _, track = otio.adapters.read_from_file(str(back)).video_tracks()
    assert len(track[0].markers) == 1
    for (begin, end), label, item in zip(CUTS, LABELS, track, strict=True):
        video = Path(item.media_reference.target_url.removeprefix("file://"))
        offset = round((item.source_range.start_time - item.media_reference.available_range.start_time).value)
        assert (offset, round(item.source_range.duration.value)) == (HANDLES, end - begin)
        shown = pictures(video)[offset : offset + end - begin]
        for number, picture in enumerate(shown, begin):
            # Above the eyes nothing is dubbed, and the man moves: no other frame is so near.
            differences = [float(np.abs(picture[:96] - other[:96]).mean()) for other in footage]
            assert int(np.argmin(differences)) == number
        with av.open(str(video)) as opened:
            assert label in {stream.metadata.get("timecode") for stream in opened.streams}
    changed = np.abs(np.stack(pictures(folder / first["output"])) - np.stack(pictures(folder / first["footage"])))
    assert changed[:, 150:].max() > 20
