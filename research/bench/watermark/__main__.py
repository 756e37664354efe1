"""The watermark of dubbed mouths, measured. See docs/watermark.md.

python -m research.bench.watermark dubs CLIP... --csv dubs.csv --plot dubs.png
python -m research.bench.watermark undubbed CLIP... --csv undubbed.csv --plot undubbed.png
python -m research.bench.watermark copies CLIP... --csv copies.csv
python -m research.bench.watermark cost CLIP
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gateway.cli.options import gateway_settings
from gateway.provenance.installation import open_sealer
from gateway.provenance.watermark.payload import watermark_key
from gateway.stages.opening import open_stage
from research.bench.watermark.copies import copies_of, sum_of_copies, write_copies
from research.bench.watermark.cost import blend_times, film_time
from research.bench.watermark.drawing import markdown_of_dubs, plot_dubs, plot_undubbed, sum_of_dubs
from research.bench.watermark.dubs import append_row, read_rows, rows_of_clip
from research.bench.watermark.studio import open_studio
from research.bench.watermark.undubbed import faces_of_film, films_below, readings_of, write_readings
from research.bench.work import tell
from research.evaluation.clip import chosen_clips
from services.common.errors import DubstageError
from services.common.methods import DEFAULT_METHOD, METHODS

_TURNS: Final = 3


async def dubs(asked: argparse.Namespace) -> int:
    """Measure dubs, and print the table."""
    rows = read_rows(asked.csv)
    failed = 0
    async with open_studio(gateway_settings()) as studio:
        for clip in chosen_clips(asked.clip, asked.splits):
            try:
                found = rows_of_clip(studio, clip, asked.method, asked.seconds, rows, personalize=asked.personalize)
                async for row in found:
                    append_row(asked.csv, row)
                    tell(f"{row.film} {row.method} {row.recoding}: {row.bits_right} bits right, {row.mean_bit:.2f}")
            except (DubstageError, ValueError) as problem:
                failed += 1
                tell(f"{clip}: {problem}")
    rows = read_rows(asked.csv)
    print(markdown_of_dubs(rows))
    print("\n".join(sum_of_dubs(rows)))
    if asked.plot is not None:
        plot_dubs(rows, asked.plot)
    return 1 if failed else 0


async def undubbed(asked: argparse.Namespace) -> int:
    """Read footage without a watermark, and print how often the search sees one."""
    settings = gateway_settings()
    key = watermark_key(open_sealer(settings).credential.key)
    films, names = [], []
    async with open_stage(settings, "face") as stages:
        for film in films_below(asked.clip):
            try:
                films.append(await faces_of_film(stages, film, settings.compute_threads))
                names.append(film)
            except DubstageError as problem:
                tell(f"{film}: not read: {problem}")
            if len(films) % 50 == 0:
                tell(f"{len(films)} films tracked")
    readings = await asyncio.to_thread(readings_of, films, key, asked.keys)
    print(f"{readings.films} of {len(films)} films show a face for a second or longer, {readings.seconds:.0f} s in all")
    print(f"false alarms: {readings.false_alarms} of {readings.own.size + readings.wrong.size} readings")
    print(f"least probability: 10^{readings.own.min():.1f} (key of the installation), 10^{readings.wrong.min():.1f} (wrong keys)")
    write_readings(asked.csv, readings)
    if asked.plot is not None:
        plot_undubbed(readings, asked.plot)
    return 1 if readings.false_alarms else 0


async def copies(asked: argparse.Namespace) -> int:
    """Copy marks to footage that has none, and print how many are found there."""
    found = []
    async with open_studio(gateway_settings()) as studio:
        async for copy in copies_of(studio, chosen_clips(asked.clip, asked.splits), asked.seconds):
            found.append(copy)
            tell(f"{copy.marked} to {copy.footage}: 10^{copy.log10_false_alarm:.1f}, {copy.bits_right} bits right")
    write_copies(asked.csv, found)
    print("\n".join(sum_of_copies(found)))
    return 1 if any(copy.found and copy.marked != copy.footage for copy in found) else 0


async def cost(asked: argparse.Namespace) -> int:
    """Measure what the watermark costs, and print it."""
    print("processor time of blending one face into one frame of 1920 x 1080:")
    for row in blend_times():
        more = row.with_ms - row.without_ms
        print(f"  box of {row.box_px} px: {row.without_ms:.2f} ms without, {row.with_ms:.2f} ms with: {more:+.2f} ms")
    async with open_studio(gateway_settings()) as studio:
        for clip in asked.clip:
            found = await film_time(studio, clip, DEFAULT_METHOD, _TURNS)
            more = found.with_ms - found.without_ms
            print(f"{clip.name}, {found.frames} frames, {_TURNS} runs each:")
            print(f"  blending: {found.without_ms:.2f} ms per frame without, {found.with_ms:.2f} ms with: {more:+.2f} ms")
            print(f"  size of the film: {found.with_bytes / found.without_bytes - 1.0:+.2%}")
            print(f"  search: tracking {found.tracking_ms:.1f} ms per frame, then {found.search_ms:.0f} ms per film")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m research.bench.watermark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("dubs", help="what re-encoding leaves of the watermark of dubs")
    one.add_argument("clip", nargs="+", type=Path, help="footage with sound, a dub of this installation, or a folder with --splits")
    one.add_argument("--splits", nargs="*", default=[], help="of a folder: all films with these uses in its catalogue.csv")
    one.add_argument("--method", nargs="+", default=[DEFAULT_METHOD], choices=list(METHODS), help="methods to dub footage with")
    one.add_argument("--seconds", type=float, default=6.0, help="length of the beginning that is dubbed")
    one.add_argument("--personalize", action="store_true", help="train the networks on the person before the dub")
    one.add_argument("--csv", type=Path, required=True, help="table to write; rows that the table has are not measured again")
    one.add_argument("--plot", type=Path, help="picture to write")
    one.set_defaults(run=dubs)
    two = commands.add_parser("undubbed", help="how often a watermark is seen where there is none")
    two.add_argument("clip", nargs="+", type=Path, help="footage without a watermark, or folders of such footage")
    two.add_argument("--keys", type=int, default=40, help="number of wrong keys")
    two.add_argument("--csv", type=Path, required=True, help="table to write")
    two.add_argument("--plot", type=Path, help="picture to write")
    two.set_defaults(run=undubbed)
    four = commands.add_parser("copies", help="whether a mark is found that is copied to genuine footage")
    four.add_argument("clip", nargs="+", type=Path, help="footage with sound, or a folder with --splits")
    four.add_argument("--splits", nargs="*", default=[], help="of a folder: all films with these uses in its catalogue.csv")
    four.add_argument("--seconds", type=float, default=6.0, help="length of the beginning that is dubbed")
    four.add_argument("--csv", type=Path, required=True, help="table to write")
    four.set_defaults(run=copies)
    three = commands.add_parser("cost", help="processor time and bytes that the watermark costs")
    three.add_argument("clip", nargs="*", type=Path, help="footage with sound")
    three.set_defaults(run=cost)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 1 if a clip failed, a false alarm was seen, or a copied mark was found on another person."""
    asked = _parser().parse_args(arguments)
    return int(asyncio.run(asked.run(asked)))


if __name__ == "__main__":
    sys.exit(main())
