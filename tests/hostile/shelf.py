"""Good media files that cases copy and change."""

import shutil
from itertools import cycle, islice
from pathlib import Path

import av
import numpy as np
import soundfile

from tests.unit.media.made_footage import Clip, make_clip, make_sound
from tests.written_pictures import write_pictures

SPEECH = Path(__file__).parents[2] / "gateway" / "cli" / "demo_speech.flac"
SHORT = tuple(range(0, 5 * 512, 512))
NUM_FACE_FRAMES = 26
"""Frames of the clip with a face: as few as a method needs to learn how a head moves."""
NUM_TALKING_FRAMES = 70
"""Frames of the clip with a face and sound: an evaluation enrols on two fifths of them, and an enrolment needs 25."""


class MediaShelf:
    """Good files that cases copy and change.

    Args:
        folder: where they are made.
        carphone: real footage without sound.
        astronaut: a real portrait.
    """

    def __init__(self, folder: Path, carphone: Path, astronaut: Path) -> None:
        self.folder = folder
        self._carphone, self._astronaut = carphone, astronaut

    def stock(self) -> None:
        """Make the good files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for suffix, codec in ((".mp4", "libx264"), (".mkv", "ffv1"), (".mov", "prores_ks"), (".avi", "mpeg4"), (".ts", "libx264")):
            pixel = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
            rate = 16000 if suffix in (".mp4", ".mkv") else 0
            make_clip(self.folder / f"clip{suffix}", Clip(pixel, codec, pts=SHORT, sound_rate=rate))
        speech, rate_hz = soundfile.read(SPEECH, dtype="int16")
        soundfile.write(self.folder / "speech.wav", speech[: int(0.4 * rate_hz)], rate_hz)
        samples = np.random.default_rng(1).normal(0.0, 0.1, (6400, 1)).astype(np.float32)
        make_sound(self.folder / "speech.flac", samples, 16000, "flac")
        make_sound(self.folder / "speech.mka", samples, 16000)
        shutil.copy(self._astronaut, self.folder / "portrait.png")
        _short_clip(self._carphone, self.folder / "footage.mp4", NUM_FACE_FRAMES)
        # Equal footage has equal blobs: a person who is erased has footage of their own.
        _short_clip(self._carphone, self.folder / "other.mp4", NUM_FACE_FRAMES + 4)
        _short_clip(self._carphone, self.folder / "mute.mp4", NUM_FACE_FRAMES, NUM_TALKING_FRAMES)
        _with_sound(self.folder / "mute.mp4", SPEECH, self.folder / "talking.mp4")

    def copy(self, name: str, folder: Path, new_name: str | None = None) -> Path:
        """A copy of a good file."""
        return Path(shutil.copy(self.folder / name, folder / (new_name or name)))


def _short_clip(source: Path, target: Path, num_frames: int, length: int = 0) -> None:
    """The last frames of a video, twice as large; shown forwards and backwards in turn until there are `length` of them."""
    with av.open(str(source)) as reader:
        pictures = [frame.to_ndarray(format="rgb24") for frame in reader.decode(video=0)][-num_frames:]
    height, width, _ = pictures[0].shape
    frames = (av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in cycle([*pictures, *reversed(pictures)]))
    larger = (frame.reformat(2 * width, 2 * height) for frame in islice(frames, length or num_frames))
    write_pictures(target, larger, "libx264", crf="12")


def _with_sound(video: Path, speech: Path, target: Path) -> None:
    """Copy the picture of a video, and add as much of a speech as the video is long."""
    with av.open(str(video)) as pictures, av.open(str(speech)) as sounds, av.open(str(target), "w") as writer:
        picture = pictures.streams.video[0]
        copied = writer.add_stream_from_template(picture)
        sound = writer.add_stream("aac", rate=sounds.streams.audio[0].rate, layout="mono")
        seconds = float(picture.duration * picture.time_base) if picture.duration and picture.time_base else 0.0
        for packet in pictures.demux(picture):
            if packet.dts is not None:
                packet.stream = copied
                writer.mux(packet)
        for frame in sounds.decode(audio=0):
            if frame.time >= seconds:
                break
            writer.mux(sound.encode(frame))
        writer.mux(sound.encode(None))
