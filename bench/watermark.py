"""What re-encoding leaves of the watermark: `python -m bench.watermark FILM...`. The films are dubs of this installation.

Every film is encoded again in each way of RECODINGS, its faces are tracked again, and the bits of the watermark are compared with
those that the film's manifest names, before error correction, over the first seconds of the film. A table is printed; `--csv` keeps
it, and `--plot` draws it. `--null N` asks N wrong keys too: their largest "found" probability must be about 1 in N.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Final, cast

import av
import matplotlib.figure
import numpy as np
from av.filter import Graph
from rich.console import Console
from rich.table import Table

from gateway.cli.options import gateway_settings
from gateway.media.probe import probe
from gateway.pipeline.watermark_reading import find_watermark
from gateway.provenance.opening import own_watermark_key
from gateway.provenance.verdict import verdict_of
from gateway.provenance.watermark.detection import Finding
from gateway.provenance.watermark.payload import Payload, watermark_key
from gateway.stages.interface import Stages
from gateway.stages.one_stage import open_stage


@dataclass(frozen=True, slots=True)
class Recoding:
    """One way of encoding a film again: a chain of FFmpeg's filters, an encoder with its options, and the ending of the file."""

    filters: tuple[tuple[str, str], ...] = ()
    encoder: str = "libx264"
    options: tuple[tuple[str, str], ...] = (("crf", "23"),)
    ending: str = "mp4"


RECODINGS: Final = {
    "H.264 crf 28": Recoding(options=(("crf", "28"),)),
    "half scale": Recoding((("scale", "trunc(iw/4)*2:trunc(ih/4)*2"),)),
    "10 % crop": Recoding((("crop", "trunc(iw*0.45)*2:trunc(ih*0.45)*2"),)),
    "25 to 30 frames/s": Recoding((("fps", "30"),)),
    "blur and gamma": Recoding((("gblur", "sigma=1.2"), ("lutyuv", "y=gammaval(0.8)"))),
    "WebM (VP9)": Recoding((), "libvpx-vp9", (("crf", "33"), ("b", "0"), ("cpu-used", "4")), "webm"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One film after one re-encoding.

    Attributes:
        film: name of the film.
        recoding: how the film was encoded again.
        bits_right: of 64, before error correction.
        mean_bit: mean size of a bit, standard deviations.
        log10_false_alarm: decimal logarithm of the probability that a film without the mark shows as much.
        read: whether the mark was found and names the right job.
    """

    film: str
    recoding: str
    bits_right: int
    mean_bit: float
    log10_false_alarm: float
    read: bool


def recoded(film: Path, target: Path, how: Recoding, seconds: float) -> Path:
    """Write the first seconds of the pictures of a film, filtered and encoded again."""
    with av.open(str(film)) as source, av.open(str(target), "w") as output:
        old = source.streams.video[0]
        graph = Graph()
        chain = [graph.add_buffer(template=old), *(graph.add(name, text) for name, text in how.filters), graph.add("buffersink")]
        graph.link_nodes(*chain).configure()
        asked = [text for name, text in how.filters if name == "fps"]
        rate = Fraction(asked[0]) if asked else old.average_rate
        new: av.VideoStream | None = None
        pictures = (picture for picture in source.decode(old) if picture.time is not None and picture.time < seconds)
        for pushed in (*pictures, None):
            graph.push(pushed)
            while True:
                try:
                    picture = graph.vpull()
                except (av.BlockingIOError, av.EOFError):
                    break
                assert picture.time_base is not None
                if new is None:
                    new = cast(av.VideoStream, output.add_stream(how.encoder, rate=rate, options=dict(how.options)))
                    new.width, new.height, new.pix_fmt = picture.width, picture.height, "yuv420p"
                    new.codec_context.time_base = picture.time_base
                picture.pict_type = av.video.frame.PictureType.NONE
                output.mux(new.encode(picture))
        assert new is not None, f"{film} has no pictures"
        output.mux(new.encode())
    return target


async def measured(stages: Stages, film: Path, key: bytes, seconds: float, folder: Path) -> list[Row]:
    """Return one row for every re-encoding of a film.

    Raises:
        SystemExit: the manifest of the film names no watermark.
    """
    dub = verdict_of(film).dub
    if dub is None or not dub.watermark:
        raise SystemExit(f"{film}: its manifest names no watermark")
    word = Payload.of_message(int(dub.watermark, 16)).word
    rows = []
    for name, how in RECODINGS.items():
        again = recoded(film, folder / f"again.{how.ending}", how, seconds)
        found = await find_watermark(stages, probe(again), key, threads=2, on_frame=lambda _: None)
        if found is None:
            rows.append(Row(film.stem, name, 32, 0.0, 0.0, False))
            continue
        right = int(((found.soft > 0) == (word > 0)).sum())
        read = found.found and str(found.payload) == dub.watermark
        rows.append(Row(film.stem, name, right, float(np.abs(found.soft).mean()), found.log10_chance, read))
    return rows


async def null_of(stages: Stages, film: Path, keys: int) -> list[Finding]:
    """Return what wrong keys find in a film."""
    wrong = [watermark_key(f"wrong key {number}".encode()) for number in range(keys)]
    found = [await find_watermark(stages, probe(film), key, threads=2, on_frame=lambda _: None) for key in wrong]
    return [finding for finding in found if finding is not None]


def plot(rows: Sequence[Row], file: Path) -> None:
    """Draw the mean size of the bits of every film and re-encoding."""
    names = list(RECODINGS)
    figure = matplotlib.figure.Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for film in dict.fromkeys(row.film for row in rows):
        mine = [row for row in rows if row.film == film]
        axes.plot([names.index(row.recoding) for row in mine], [row.mean_bit for row in mine], "o", label=film)
    axes.axhline(0.8, color="grey", linestyle="--", label="no watermark")
    axes.set_xticks(range(len(names)), names, rotation=20)
    axes.set_ylabel("mean size of a bit, standard deviations")
    axes.set_ylim(0.0)
    axes.legend(fontsize="small")
    figure.savefig(file, dpi=110)


async def _main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("film", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--null", type=int, default=0, metavar="N")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--plot", type=Path)
    asked = parser.parse_args(arguments)
    settings, console = gateway_settings(), Console()
    key = own_watermark_key(settings)
    if key is None:
        raise SystemExit("this installation has not signed a film yet")
    rows: list[Row] = []
    async with open_stage(settings, "face") as stages:
        with tempfile.TemporaryDirectory() as folder:
            for film in asked.film:
                rows += await measured(stages, film, key, asked.seconds, Path(folder))
        for film in asked.film if asked.null else ():
            best = min(finding.log10_chance for finding in await null_of(stages, film, asked.null))
            console.print(f"{film.stem}: the least probability of {asked.null} wrong keys is 10^{best:.1f}")
    table = Table("film", "re-encoding", "bits right", "mean bit", "log10 of false alarm", "read")
    for row in rows:
        table.add_row(
            row.film, row.recoding, f"{row.bits_right}/64", f"{row.mean_bit:.2f}", f"{row.log10_false_alarm:.0f}", str(row.read)
        )
    console.print(table)
    console.print(f"bits right: {100 * sum(row.bits_right for row in rows) / (64 * len(rows)):.2f} %")
    if asked.csv is not None:
        with asked.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)
    if asked.plot is not None:
        plot(rows, asked.plot)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
