"""The watermark of dubbed mouths: `python -m research.bench.watermark dubs|windows` (docs/watermark.md).

`dubs`: dubs of clips with their own sound, and how much of their watermark is left after re-encoding.

`windows`: false alarms of the search for public marks in undubbed videos. A video is tracked once. Its windows of some seconds,
side by side, are then read as they are, mirrored, backwards, and both: other chips are compared with every cell of such a window,
so the readings are independent.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import itertools
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, cast

import av
import cv2
import numpy as np
from av.filter import Graph

from gateway.cli.options import gateway_settings
from gateway.dub.analyse.face_records import face_records
from gateway.dub.analyse.footage import tracked_frames
from gateway.dub.analyse.watermark_reading import likeliest, responses_of_faces
from gateway.dub.choices import EnrolOptions
from gateway.dub.job.dub_job import DubJob
from gateway.dub.request.dub_request import DubRequest
from gateway.media.inspection import inspect_video
from gateway.media.probe import probe
from gateway.provenance.installation import open_sealer
from gateway.provenance.seal import Sealer
from gateway.provenance.verdict import verdict_of
from gateway.provenance.watermark.detection import (
    CONFIRMED_LOG10,
    FALSE_ALARM_LOG10,
    STEP_S,
    Detector,
    ResponseSpan,
    projected,
    responses,
    seen_spans,
)
from gateway.provenance.watermark.pattern import (
    RecentMean,
    at_first_frames,
    reduced,
)
from gateway.provenance.watermark.payload import WORD_BITS, Payload
from gateway.settings import GatewaySettings
from gateway.stages.interface import Stages
from gateway.stages.opening import open_stage, open_stages
from research.bench.runs import rows_of, table, tell
from research.evaluation.clip import chosen_clips
from services.common.array_types import Float64, UInt8
from services.common.errors import DubstageError
from services.common.methods import DEFAULT_METHOD, METHODS
from services.common.store.artefacts import ArtefactStore
from tests.system.dubbing import first_seconds

_HALF: Final = ("scale", "trunc(iw/4)*2:trunc(ih/4)*2")
_CRF_28: Final = (("crf", "28"),)
AS_WRITTEN: Final = "as written"
"""Row of the dub itself."""
_SIDE: Final = 80
"""Pixels of the render boxes that are kept, half of the box's: the search uses 40 and 20."""
VARIANTS: Final = tuple(itertools.product((False, True), repeat=2))
"""Whether a video is mirrored, and whether it is backwards."""


@dataclass(frozen=True, slots=True)
class Recoding:
    """One way of encoding a video again.

    Attributes:
        filters: chain of FFmpeg's filters, each with its arguments.
        encoder: name of FFmpeg's encoder.
        options: options of the encoder.
    """

    filters: tuple[tuple[str, str], ...] = ()
    encoder: str = "libx264"
    options: tuple[tuple[str, str], ...] = (("crf", "23"),)
    ending: str = "mp4"


RECODINGS: Final = {
    "H.264 crf 28": Recoding(options=_CRF_28),
    "half scale": Recoding((_HALF,)),
    "10 % crop": Recoding((("crop", "trunc(iw*0.45)*2:trunc(ih*0.45)*2"),)),
    "30 frames/s": Recoding((("fps", "30"),)),
    "blur and gamma": Recoding((("gblur", "sigma=1.2"), ("lutyuv", "y=gammaval(0.8)"))),
    "WebM (VP9)": Recoding((), "libvpx-vp9", (("crf", "33"), ("b", "0"), ("cpu-used", "4")), "webm"),
    "half scale, crf 28": Recoding((_HALF,), options=_CRF_28),
}
"""By name. The last one is harder than what the watermark is made for."""


def recoded(video: Path, target: Path, how: Recoding) -> Path:
    """Write the pictures of a video, filtered and encoded again; return the file.

    Raises:
        ValueError: the video has no pictures.
    """
    with av.open(str(video)) as source, av.open(str(target), "w") as output:
        old = source.streams.video[0]
        graph = Graph()
        filters = (*how.filters, ("format", "yuv420p"))
        chain = [graph.add_buffer(template=old), *(graph.add(name, text) for name, text in filters), graph.add("buffersink")]
        graph.link_nodes(*chain).configure()
        asked = [text for name, text in how.filters if name == "fps"]
        new: av.VideoStream | None = None
        for pushed in (*source.decode(old), None):
            graph.push(pushed)
            while True:
                try:
                    picture = graph.vpull()
                except (av.BlockingIOError, av.EOFError):
                    break
                if new is None:
                    rate = Fraction(asked[0]) if asked else old.average_rate
                    new = cast(av.VideoStream, output.add_stream(how.encoder, rate=rate, options=dict(how.options)))
                    new.width, new.height, new.pix_fmt = picture.width, picture.height, "yuv420p"
                    new.codec_context.time_base = cast(Fraction, picture.time_base)
                picture.pict_type = av.video.frame.PictureType.NONE
                output.mux(new.encode(picture))
        if new is None:
            raise ValueError(f"{video} has no pictures")
        output.mux(new.encode())
    return target


@dataclass(frozen=True, slots=True)
class Studio:
    """Stages, folders and settings that dubs are rendered with.

    Attributes:
        folder: for jobs, artefacts and videos.
        sealer: signs videos and marks mouths, with the key of this installation.
        threads: threads of decoder and encoder.
    """

    stages: Stages
    folder: Path
    sealer: Sealer
    threads: int

    async def dub(self, footage: Path, output: Path, method: str, *, personalize: bool) -> None:
        """Dub footage with its own sound, and keep the video alone.

        Raises:
            DubstageError: the footage cannot be dubbed.
        """
        enrol = EnrolOptions(personalize_renderer=personalize, personalize_motion=personalize)
        request = DubRequest(
            footage=footage, speech=None, output=output, method=method, enrol=enrol, threads=self.threads, overwrite=True
        )
        artefacts = ArtefactStore(str(self.folder / "artefacts"))
        job = DubJob(request, self.stages, artefacts, self.folder / "jobs", sealer=self.sealer)
        try:
            await job.run(lambda *_: None)
        finally:
            job.discard()


@asynccontextmanager
async def open_studio(settings: GatewaySettings) -> AsyncIterator[Studio]:
    """Open the stages, with a folder that is removed in the end.

    Raises:
        DubstageError: the stages cannot be opened, or the key cannot be read.
    """
    with TemporaryDirectory(prefix="dubstage-bench-") as folder:
        marks = {"watermark": True, "watermark_public": True}
        own = settings.model_copy(update={"artefacts_url": str(Path(folder) / "artefacts"), **marks})
        async with open_stages(own) as stages:
            yield Studio(stages, Path(folder), open_sealer(own), own.compute_threads)


NAMES: Final = (AS_WRITTEN, *RECODINGS)


@dataclass(frozen=True, slots=True)
class RecodingRow:
    """The public watermark of one dub after one re-encoding, as anybody reads it, and its confirmation by the installation.

    Attributes:
        clip: name of the clip.
        face_px: width of the largest face in the first frame that shows one, pixels of the dub.
        seconds: length of the dub.
        recoding: how the dub was encoded again.
        bits_right: of 64, before error correction.
        mean_bit: mean size of a bit, standard deviations.
        log10_false_alarm: decimal logarithm of the probability that a video without the mark shows as much.
        read: whether the mark was found and names the right job.
        log10_forged: decimal logarithm of the probability that somebody without the key writes what the installation confirms.
    """

    clip: str
    method: str
    face_px: int
    seconds: float
    recoding: str
    bits_right: int
    mean_bit: float
    log10_false_alarm: float
    read: bool
    log10_forged: float


async def rows_of_clip(studio: Studio, clip: Path, method: str, seconds: float, *, personalize: bool) -> AsyncIterator[RecodingRow]:
    """Dub the beginning of a clip, and yield a row for each re-encoding.

    Args:
        studio: makes the dubs.
        clip: footage with sound.
        method: name of a method.
        seconds: length of the beginning.
        personalize: whether the networks are trained on the person before the dub.

    Raises:
        DubstageError: the clip cannot be dubbed or read.
        ValueError: the dub has no watermark.
    """
    begin, video = clip, studio.folder / "dub.mp4"
    if float(probe(clip).video.duration) > seconds:
        begin = first_seconds(clip, studio.folder / clip.name, seconds)
    await studio.dub(begin, video, method, personalize=personalize)
    facts, key = verdict_of(video).dub, studio.sealer.watermark_key
    if facts is None or not facts.watermark or key is None:
        raise ValueError(f"{video}: no frame was dubbed, so the video has no watermark")
    word = Payload.of_message(int(facts.watermark, 16)).word
    width, length = await _face_width(studio.stages, video), float(probe(video).video.duration)
    for recoding in NAMES:
        again = video
        if recoding != AS_WRITTEN:
            how = RECODINGS[recoding]
            again = recoded(video, studio.folder / f"again.{how.ending}", how)
        faces = await responses_of_faces(studio.stages, probe(again), threads=studio.threads, on_frame=lambda _: None)
        detection, own = likeliest(faces, Detector()), likeliest(faces, Detector(key))
        bits = detection.soft if detection is not None else np.zeros(WORD_BITS)
        yield RecodingRow(
            clip=clip.stem,
            method=f"{method}, personalised" if personalize else method,
            face_px=width,
            seconds=round(length, 2),
            recoding=recoding,
            bits_right=int(((bits > 0) == (word > 0)).sum()) if detection is not None else 0,
            mean_bit=round(float(np.abs(bits).mean()), 2),
            log10_false_alarm=round(detection.log10_chance, 1) if detection is not None else 0.0,
            read=detection is not None and detection.found and detection.right and str(detection.payload) == facts.watermark,
            log10_forged=round(own.log10_forged, 1) if own is not None and own.found else 0.0,
        )


async def _face_width(stages: Stages, video: Path) -> int:
    async with aclosing(tracked_frames(stages, probe(video), 1)) as frames:
        async for frame in frames:
            if frame.faces.faces:
                return round(float(max(row["box"][2] for row in face_records(frame.faces, frame.cut_box, frame.scale))))
    return 0


def write_rows(file: Path, rows: Sequence[RecodingRow]) -> None:
    """Write a table."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(RecodingRow)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def rows_of_recodings(rows: Sequence[RecodingRow]) -> list[dict[str, object]]:
    """Return one row per re-encoding: the share of bits read right, and the dubs that were read and confirmed."""
    lines = []
    for name in NAMES:
        mine = [row for row in rows if row.recoding == name]
        if mine:
            share = sum(row.bits_right for row in mine) / (WORD_BITS * len(mine))
            read = sum(row.read for row in mine)
            confirmed = sum(row.log10_forged < CONFIRMED_LOG10 for row in mine)
            lines.append({"recoding": name, "dubs": len(mine), "bits right": share, "read": read, "confirmed": confirmed})
    return lines


@dataclass(frozen=True, slots=True)
class KeptFace:
    """One face of a video.

    Attributes:
        seconds: float64 [N], times of its frames.
        boxes: uint8 [N, 80, 80], luma of its render boxes.
        cuts: indices of frames that begin a shot.
    """

    seconds: Float64 = field(repr=False)
    boxes: UInt8 = field(repr=False)
    cuts: tuple[int, ...]

    def spans(self, *, mirrored: bool, backwards: bool) -> Iterator[ResponseSpan]:
        """Yield the responses of a variant of the face, in spans without a gap."""
        seconds, boxes, cuts = self.seconds, self.boxes, list(self.cuts)
        if mirrored:
            boxes = boxes[:, :, ::-1]
        if backwards:
            seconds, boxes, cuts = seconds[-1] - seconds[::-1], boxes[::-1], [len(seconds) - cut for cut in cuts]
        moments = RecentMean()
        luma = np.array([projected(np.ascontiguousarray(box)) for box in boxes])
        pictures = np.array(
            [moments.with_frame(float(time), reduced(np.ascontiguousarray(box))) for time, box in zip(seconds, boxes, strict=True)]
        )
        for seen in seen_spans(seconds, cuts):
            first, response = responses(seconds[seen], luma[seen])
            near = at_first_frames(seconds, pictures, STEP_S * np.arange(first, first + len(response), dtype=np.float64))
            yield ResponseSpan(first, response, near)


async def kept_faces(stages: Stages, video: Path, threads: int) -> list[KeptFace]:
    """Return the faces of a video.

    Raises:
        DubstageError: the video cannot be read.
    """
    info = inspect_video(video)
    times = [float(tick * info.video.time_base) for tick in (info.video.pts - info.video.pts[0]).tolist()]
    tracks: dict[int, tuple[list[float], list[UInt8], list[int]]] = {}
    shot = 0
    async with aclosing(tracked_frames(stages, info, threads)) as frames:
        async for frame in frames:
            shot += frame.faces.shot_cut
            for row in face_records(frame.faces, frame.cut_box, frame.scale):
                seconds, boxes, shots = tracks.setdefault(int(row["face_id"]), ([], [], []))
                seconds.append(times[frame.index])
                luma = cv2.cvtColor(row["pixels"], cv2.COLOR_RGB2GRAY)
                boxes.append(np.asarray(cv2.resize(luma, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.uint8))
                shots.append(shot)
    return [
        KeptFace(np.array(seconds), np.array(boxes), tuple((np.flatnonzero(np.diff(shots)) + 1).tolist()))
        for seconds, boxes, shots in tracks.values()
    ]


def chances_of_windows(faces: Sequence[KeptFace], seconds: float) -> Float64:
    """Return the decimal logarithms of the probabilities that the search for public marks states of all windows, float64 [windows].

    Args:
        faces: faces of videos without a mark.
        seconds: length of a window.
    """
    steps, detector = round(seconds / STEP_S), Detector()
    chances = []
    for face, (mirrored, backwards) in itertools.product(faces, VARIANTS):
        for span in face.spans(mirrored=mirrored, backwards=backwards):
            for begin in range(0, len(span.responses) - steps + 1, steps):
                part = slice(begin, begin + steps)
                detection = likeliest([[ResponseSpan(span.first + begin, span.responses[part], span.pictures[part])]], detector)
                chances.append(detection.log10_chance if detection is not None else 0.0)
    return np.array(chances)


async def dubs(asked: argparse.Namespace) -> int:
    """Measure dubs, and print the tables."""
    rows: list[RecodingRow] = []
    failed = 0
    async with open_studio(gateway_settings()) as studio:
        for clip, method in itertools.product(chosen_clips(asked.clip, asked.splits), asked.method):
            try:
                async for row in rows_of_clip(studio, clip, method, asked.seconds, personalize=asked.personalize):
                    rows.append(row)
                    write_rows(asked.csv, rows)
                    tell(f"{row.clip} {row.method} {row.recoding}: {row.bits_right} bits right, {row.mean_bit:.2f}")
            except (DubstageError, ValueError) as problem:
                failed += 1
                tell(f"{clip}: {problem}")
    print(table(rows_of(rows)), table(rows_of_recodings(rows)), sep="\n\n")
    return 1 if failed else 0


async def windows(asked: argparse.Namespace) -> int:
    """Read windows of footage without a watermark as anybody reads public marks, and print how often the search sees one."""
    settings = gateway_settings()
    per_video = [np.zeros(0)]
    async with open_stage(settings, "face") as stages:
        for video in asked.clip:
            try:
                faces = await kept_faces(stages, video, settings.compute_threads)
            except DubstageError as problem:
                tell(f"{video}: not read: {problem}")
                continue
            per_video.append(await asyncio.to_thread(chances_of_windows, faces, asked.seconds))
            tell(f"{video.name}: {per_video[-1].size} windows, least 10^{per_video[-1].min(initial=0.0):.1f}")
    chances = np.concatenate(per_video)
    alarms = int((chances < FALSE_ALARM_LOG10).sum())
    shares = ", ".join(f"{np.mean(chances <= limit):.2g} state 10^{limit} or less" for limit in (-1, -2, -3, -4))
    print(f"{chances.size} windows: {alarms} false alarms, least 10^{chances.min(initial=0.0):.1f}; {shares}")
    return 1 if alarms else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m research.bench.watermark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("dubs", help="what re-encoding leaves of the watermark of dubs")
    one.add_argument("clip", nargs="+", type=Path, help="footage with sound, or a folder with --splits")
    one.add_argument("--splits", nargs="*", default=[], help="of a folder: all videos with these uses in its catalogue.csv")
    one.add_argument("--method", nargs="+", default=[DEFAULT_METHOD], choices=list(METHODS), help="methods to dub footage with")
    one.add_argument("--seconds", type=float, default=6.0, help="length of the beginning that is dubbed")
    one.add_argument("--personalize", action="store_true", help="train the networks on the person before the dub")
    one.add_argument("--csv", type=Path, required=True, help="table to write")
    one.set_defaults(run=dubs)
    two = commands.add_parser("windows", help="how often anybody sees a public watermark in windows of videos without one")
    two.add_argument("clip", nargs="+", type=Path, help="footage without a watermark")
    two.add_argument("--seconds", type=float, default=4.0, help="length of a window")
    two.set_defaults(run=windows)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 1 if a clip failed or a false alarm was seen."""
    asked = _parser().parse_args(arguments)
    return int(asyncio.run(asked.run(asked)))


if __name__ == "__main__":
    sys.exit(main())
