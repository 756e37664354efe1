"""Dubs of clips with their own sound, and how much of their watermark is left after re-encoding."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, cast

import av
import numpy as np
from av.filter import Graph

from gateway.dub.choices import EnrolOptions
from gateway.dub.face_records import face_records
from gateway.dub.footage import tracked_frames
from gateway.dub.job import DubJob
from gateway.dub.outcome import DubOutcome
from gateway.dub.request import DubRequest
from gateway.dub.watermark_reading import likeliest, responses_of_faces
from gateway.media.probe import probe
from gateway.provenance.claim import DubFacts
from gateway.provenance.installation import open_sealer
from gateway.provenance.seal import Sealer
from gateway.provenance.verdict import verdict_of
from gateway.provenance.watermark.detection import Detector
from gateway.provenance.watermark.payload import WORD_BITS, Payload
from gateway.settings import GatewaySettings
from gateway.stages.interface import Stages
from gateway.stages.opening import open_stages
from services.common.store.artefacts import ArtefactStore
from tests.system.dubbing import first_seconds


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


_HALF: Final = ("scale", "trunc(iw/4)*2:trunc(ih/4)*2")
_CRF_28: Final = (("crf", "28"),)
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
    """Stages, folders and settings that dubs are made with.

    Attributes:
        folder: for jobs, artefacts and videos.
        sealer: signs videos and marks mouths, with the key of this installation.
        threads: threads of decoder and encoder.
    """

    stages: Stages
    folder: Path
    sealer: Sealer
    threads: int

    def job(self, footage: Path, output: Path, method: str, *, personalize: bool, watermark: bool = True) -> DubJob:
        """Return a dub of footage with its own sound."""
        enrol = EnrolOptions(personalize_renderer=personalize, personalize_motion=personalize)
        request = DubRequest(
            footage=footage, speech=None, output=output, method=method, enrol=enrol, threads=self.threads, overwrite=True
        )
        sealer = self.sealer if watermark else replace(self.sealer, watermark_key=None)
        return DubJob(request, self.stages, ArtefactStore(str(self.folder / "artefacts")), self.folder / "jobs", sealer=sealer)

    async def dub(self, footage: Path, output: Path, method: str, *, personalize: bool) -> DubOutcome:
        """Dub footage with its own sound, and keep the video alone.

        Raises:
            DubstageError: the footage cannot be dubbed.
        """
        job = self.job(footage, output, method, personalize=personalize)
        try:
            return await job.run(lambda *_: None)
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


AS_WRITTEN: Final = "as written"
"""Row of the dub itself."""
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


async def rows_of_clip(
    studio: Studio, clip: Path, methods: Sequence[str], seconds: float, known: Collection[RecodingRow], *, personalize: bool
) -> AsyncIterator[RecodingRow]:
    """Yield the rows of a clip: of dubs of its beginning, or of the clip itself if the clip is a dub with a watermark.

    Args:
        studio: makes the dubs.
        clip: footage with sound, or a finished dub of this installation.
        methods: names of methods.
        seconds: length of the beginning.
        known: rows that are left out.
        personalize: whether the networks are trained on the person before the dub.

    Raises:
        DubstageError: the clip cannot be dubbed or read.
    """
    facts = _marked(clip)
    begin = clip
    if facts is None and float(probe(clip).video.duration) > seconds:
        begin = first_seconds(clip, studio.folder / clip.name, seconds)
    for method in methods if facts is None else [facts.method]:
        label = f"{method}, personalised" if personalize and facts is None else method
        had = {row.recoding for row in known if (row.clip, row.method) == (clip.stem, label)}
        missing = [name for name in NAMES if name not in had]
        if not missing:
            continue
        video = clip
        if facts is None:
            video = studio.folder / "dub.mp4"
            await studio.dub(begin, video, method, personalize=personalize)
        async for row in _rows_of_dub(studio, video, clip.stem, label, missing):
            yield row


def _marked(video: Path) -> DubFacts | None:
    """Return what the manifest of a video says; None: the video is no dub with a watermark."""
    dub = verdict_of(video).dub
    return dub if dub is not None and dub.watermark else None


async def _rows_of_dub(studio: Studio, video: Path, name: str, method: str, names: Iterable[str]) -> AsyncIterator[RecodingRow]:
    facts, key = _marked(video), studio.sealer.watermark_key
    if facts is None or key is None:
        raise ValueError(f"{video}: no frame was dubbed, so the video has no watermark")
    word = Payload.of_message(int(facts.watermark, 16)).word
    width, seconds = await _face_width(studio.stages, video), float(probe(video).video.duration)
    for recoding in names:
        again = video
        if recoding != AS_WRITTEN:
            how = RECODINGS[recoding]
            again = recoded(video, studio.folder / f"again.{how.ending}", how)
        faces = await responses_of_faces(studio.stages, probe(again), threads=studio.threads, on_frame=lambda _: None)
        found, own = likeliest(faces, Detector()), likeliest(faces, Detector(key))
        bits = found.soft if found is not None else np.zeros(WORD_BITS)
        yield RecodingRow(
            clip=name,
            method=method,
            face_px=width,
            seconds=round(seconds, 2),
            recoding=recoding,
            bits_right=int(((bits > 0) == (word > 0)).sum()) if found is not None else 0,
            mean_bit=round(float(np.abs(bits).mean()), 2),
            log10_false_alarm=round(found.log10_chance, 1) if found is not None else 0.0,
            read=found is not None and found.found and found.right and str(found.payload) == facts.watermark,
            log10_forged=round(own.log10_forged, 1) if own is not None and own.found else 0.0,
        )


async def _face_width(stages: Stages, video: Path) -> int:
    async with aclosing(tracked_frames(stages, probe(video), 1)) as frames:
        async for frame in frames:
            if frame.faces.faces:
                return round(float(max(row["box"][2] for row in face_records(frame.faces, frame.cut_box, frame.scale))))
    return 0


def read_rows(file: Path) -> list[RecodingRow]:
    """Return the rows of a table that `append_row` wrote; none if there is no file."""
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as stream:
        return [
            RecodingRow(
                row["clip"],
                row["method"],
                int(row["face_px"]),
                float(row["seconds"]),
                row["recoding"],
                int(row["bits_right"]),
                float(row["mean_bit"]),
                float(row["log10_false_alarm"]),
                row["read"] == "True",
                float(row["log10_forged"]),
            )
            for row in csv.DictReader(stream)
        ]


def append_row(file: Path, row: RecodingRow) -> None:
    """Append a row to a table, so that a run that ends early loses nothing."""
    fresh = not file.exists()
    with file.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(RecodingRow)], lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerow(asdict(row))
