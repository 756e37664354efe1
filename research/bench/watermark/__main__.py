"""The watermark of dubbed mouths, measured: tables in Markdown and plots. See docs/watermark.md."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
import matplotlib.figure
import numpy as np

from gateway.cli.options import gateway_settings
from gateway.provenance.installation import open_sealer
from gateway.provenance.watermark.detection import CONFIRMED_LOG10, FALSE_ALARM_LOG10
from gateway.provenance.watermark.payload import WORD_BITS, watermark_key
from gateway.stages.opening import open_stage
from research.bench.runs import tell
from research.bench.watermark.cost import blend_times, video_time
from research.bench.watermark.dubs import NAMES, RecodingRow, append_row, open_studio, read_rows, rows_of_clip
from research.bench.watermark.genuine import (
    THRESHOLDS,
    Readings,
    copies_of,
    faces_of_video,
    readings_of,
    sum_of_copies,
    videos_below,
    write_copies,
    write_readings,
)
from research.bench.watermark.windows import kept_faces, readings_of_windows
from research.evaluation.clip import chosen_clips
from services.common.errors import DubstageError
from services.common.methods import DEFAULT_METHOD, METHODS

_NO_MARK: Final = 0.8
"""Mean size of a bit in a video without the watermark: the mean size of a normal number."""


def markdown_of_dubs(rows: Sequence[RecodingRow]) -> str:
    """Return one line per dub: of every re-encoding the bits read right, and the mean size of a bit."""
    lines = [_line(["clip", "method", "face, px", "s", *NAMES]), _line(["---"] * (4 + len(NAMES)))]
    for clip, method in dict.fromkeys((row.clip, row.method) for row in rows):
        mine = {row.recoding: row for row in rows if (row.clip, row.method) == (clip, method)}
        first = next(iter(mine.values()))
        cells = [_cell(mine[name]) if name in mine else "" for name in NAMES]
        lines.append(_line([clip, method, str(first.face_px), f"{first.seconds:.1f}", *cells]))
    return "\n".join(lines)


def sum_of_dubs(rows: Sequence[RecodingRow]) -> list[str]:
    """Return one line per re-encoding: the share of bits read right, the dubs with wrong bits, and those not read."""
    lines = []
    for name in NAMES:
        mine = [row for row in rows if row.recoding == name]
        if not mine:
            continue
        share = 100.0 * sum(row.bits_right for row in mine) / (WORD_BITS * len(mine))
        wrong = [f"{row.clip} {row.method} {row.bits_right}/{WORD_BITS}" for row in mine if row.bits_right < WORD_BITS]
        unread = [f"{row.clip} {row.method}" for row in mine if not row.read]
        confirmed = sum(row.log10_forged < CONFIRMED_LOG10 for row in mine)
        text = f"{name}: {share:.2f} % of the bits of {len(mine)} dubs right, {len(mine) - len(unread)} read, {confirmed} confirmed"
        lines.append(
            text + (f"; wrong bits: {', '.join(wrong)}" if wrong else "") + (f"; not read: {', '.join(unread)}" if unread else "")
        )
    return lines


def plot_dubs(rows: Sequence[RecodingRow], file: Path) -> None:
    """Draw the mean size of the bits of every dub and re-encoding, with the number of wrong bits where there are any."""
    figure = matplotlib.figure.Figure(figsize=(9, 4.8), layout="constrained")
    axes = figure.subplots()
    methods = list(dict.fromkeys(row.method for row in rows))
    for number, method in enumerate(methods):
        mine = [row for row in rows if row.method == method]
        aside = 0.6 * ((number + 0.5) / len(methods) - 0.5)
        across = [NAMES.index(row.recoding) + aside for row in mine]
        axes.plot(across, [row.mean_bit for row in mine], "o", markersize=4, alpha=0.7, label=method)
        for place, row in zip(across, mine, strict=True):
            if row.bits_right < WORD_BITS:
                axes.annotate(str(row.bits_right), (place, row.mean_bit), (4, -3), textcoords="offset points", fontsize=7)
    axes.axhline(_NO_MARK, color="grey", linestyle="--", label="no watermark")
    axes.set_xticks(range(len(NAMES)), NAMES, rotation=20)
    axes.set_ylabel("mean size of a bit, standard deviations")
    axes.set_ylim(0.0)
    axes.set_title(f"Every dot is a dub. A number at a dot: bits of {WORD_BITS} read right, where not all are", fontsize="medium")
    axes.legend(fontsize="small")
    _save(figure, file)


def plot_undubbed(readings: Readings, file: Path) -> None:
    """Draw the share of readings that state a probability of p or less over p, and the share that is promised: p."""
    figure = matplotlib.figure.Figure(figsize=(6.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for label, values in (("wrong keys", readings.wrong.ravel()), ("key of the installation", readings.own)):
        ordered = np.sort(values)
        axes.step(
            ordered,
            np.log10(np.arange(1, len(ordered) + 1) / len(ordered)),
            where="post",
            label=f"{label}: {len(ordered)} readings",
        )
    axes.plot([THRESHOLDS[-1], 0.0], [THRESHOLDS[-1], 0.0], color="grey", linestyle="--", label="promised: not above this line")
    axes.axvline(FALSE_ALARM_LOG10, color="black", linewidth=1, label="a mark is called found left of this line")
    axes.set_xlim(FALSE_ALARM_LOG10 - 0.3, 0.1)
    axes.set_xlabel("stated probability, log10")
    axes.set_ylabel("share of readings that state as little, log10")
    axes.legend(fontsize="small")
    _save(figure, file)


def _save(figure: matplotlib.figure.Figure, file: Path) -> None:
    # Without a date and with a fixed salt, so that the same numbers give the same file.
    with mpl.rc_context({"svg.hashsalt": "dubstage"}):
        figure.savefig(file, dpi=110, metadata={"Date": None} if file.suffix == ".svg" else None)


def _cell(row: RecodingRow) -> str:
    text = f"{row.bits_right}, {row.mean_bit:.2f}"
    return text if row.read else f"**not read** ({text})"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


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
                    tell(f"{row.clip} {row.method} {row.recoding}: {row.bits_right} bits right, {row.mean_bit:.2f}")
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
    videos, names = [], []
    async with open_stage(settings, "face") as stages:
        for video in videos_below(asked.clip):
            try:
                videos.append(await faces_of_video(stages, video, settings.compute_threads))
                names.append(video)
            except DubstageError as problem:
                tell(f"{video}: not read: {problem}")
            if len(videos) % 50 == 0:
                tell(f"{len(videos)} videos tracked")
    readings = await asyncio.to_thread(readings_of, videos, key, asked.keys)
    print(f"{readings.num_videos} of {len(videos)} videos show a face for a second or longer, {readings.seconds:.0f} s in all")
    print(f"false alarms: {readings.false_alarms} of {readings.own.size + readings.wrong.size} readings")
    print(f"least probability: 10^{readings.own.min():.1f} (key of the installation), 10^{readings.wrong.min():.1f} (wrong keys)")
    write_readings(asked.csv, readings)
    if asked.plot is not None:
        plot_undubbed(readings, asked.plot)
    return 1 if readings.false_alarms else 0


async def windows(asked: argparse.Namespace) -> int:
    """Read windows of footage without a watermark as anybody reads public marks, and print how often the search sees one."""
    settings = gateway_settings()
    found = []
    async with open_stage(settings, "face") as stages:
        for video in videos_below(asked.clip):
            try:
                faces = await kept_faces(stages, video, settings.compute_threads)
            except DubstageError as problem:
                tell(f"{video}: not read: {problem}")
                continue
            found.append(await asyncio.to_thread(readings_of_windows, faces, asked.seconds))
            tell(f"{video.name}: {found[-1].chances.size} windows, least 10^{found[-1].chances.min(initial=0.0):.1f}")
    alarms = 0
    for words, values in (
        ("windows", np.concatenate([each.chances for each in found])),
        ("of them independent", np.concatenate([each.independent for each in found])),
    ):
        alarms += int((values < FALSE_ALARM_LOG10).sum())
        shares = ", ".join(f"{np.mean(values <= limit):.2g} state 10^{limit} or less" for limit in (-1, -2, -3, -4))
        print(
            f"{values.size} {words}: {int((values < FALSE_ALARM_LOG10).sum())} false alarms, least 10^{values.min():.1f}; {shares}"
        )
    return 1 if alarms else 0


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
            found = await video_time(studio, clip, DEFAULT_METHOD, _TURNS)
            more = found.with_ms - found.without_ms
            print(f"{clip.name}, {found.frames} frames, {_TURNS} runs each:")
            print(f"  blending: {found.without_ms:.2f} ms per frame without, {found.with_ms:.2f} ms with: {more:+.2f} ms")
            print(f"  size of the video: {found.with_bytes / found.without_bytes - 1.0:+.2%}")
            print(f"  search: tracking {found.tracking_ms:.1f} ms per frame, then {found.search_ms:.0f} ms per video")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m research.bench.watermark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("dubs", help="what re-encoding leaves of the watermark of dubs")
    one.add_argument("clip", nargs="+", type=Path, help="footage with sound, a dub of this installation, or a folder with --splits")
    one.add_argument("--splits", nargs="*", default=[], help="of a folder: all videos with these uses in its catalogue.csv")
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
    five = commands.add_parser("windows", help="how often anybody sees a public watermark in windows of videos without one")
    five.add_argument("clip", nargs="+", type=Path, help="footage without a watermark, or folders of such footage")
    five.add_argument("--seconds", type=float, default=4.0, help="length of a window")
    five.set_defaults(run=windows)
    four = commands.add_parser("copies", help="whether a mark is found that is copied to genuine footage")
    four.add_argument("clip", nargs="+", type=Path, help="footage with sound, or a folder with --splits")
    four.add_argument("--splits", nargs="*", default=[], help="of a folder: all videos with these uses in its catalogue.csv")
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
