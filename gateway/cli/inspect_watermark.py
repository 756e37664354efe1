"""The part of `dubstage inspect` that looks for the watermark of this installation in the faces of a film."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from gateway.cli.progress import StepProgress
from gateway.media.inspection import inspect_film
from gateway.media.types import MediaInfo
from gateway.pipeline.watermark_reading import find_watermark
from gateway.provenance.opening import own_watermark_key
from gateway.provenance.watermark.code import WORD_BITS
from gateway.provenance.watermark.detection import FALSE_ALARM_LOG10, Finding
from gateway.settings import GatewaySettings
from gateway.stages.one_stage import open_stage
from services.common.errors import MediaUnsupported

NO_KEY = "this installation has not signed a film yet, so it has no watermark"
_NO_FACE = "no face is seen for a second or longer"


def look_for_watermark(file: Path, settings: GatewaySettings) -> Finding | str:
    """Return the likeliest watermark of this installation in a film, or why there is none to look at. Blocks.

    Args:
        file: the film.
        settings: settings of the installation.

    Raises:
        DubstageError: from the face stage, or the installation's key cannot be read.
    """
    key = own_watermark_key(settings)
    if key is None:
        return NO_KEY
    try:
        info = inspect_film(file)
    except MediaUnsupported as problem:
        return problem.message
    found = asyncio.run(_search(info, key, settings))
    return found if found is not None else _NO_FACE


async def _search(info: MediaInfo, key: bytes, settings: GatewaySettings) -> Finding | None:
    total = info.video.num_frames
    with StepProgress() as progress:
        progress.begin("starting the face stage")
        async with open_stage(settings, "face") as stages:
            return await find_watermark(
                stages,
                info,
                key,
                threads=settings.compute_threads,
                on_frame=lambda done: progress("watermark", done, total),
            )


def watermark_lines(answer: Finding | str) -> list[str]:
    """Return what a person reads of the search for a watermark, one fact per line."""
    if isinstance(answer, str):
        return [f"watermark: not looked for: {answer}"]
    if not answer.found:
        return [f"watermark: none of this installation ({_chance(answer)})"]
    if not answer.right:
        return [f"watermark: of this installation, too weak to be read ({_chance(answer)})", *_span_lines(answer)]
    bits = f"{answer.agreeing} of {WORD_BITS} bits were read right"
    return [f"watermark: {answer.payload}, of this installation ({bits}, {_chance(answer)})", *_span_lines(answer)]


def watermark_facts(answer: Finding | str) -> dict[str, Any]:
    """Return the answer for JSON. Bits are given before error correction."""
    if isinstance(answer, str):
        return {"found": False, "reason": answer}
    return {
        "found": answer.found,
        "payload": str(answer.payload) if answer.found and answer.right else None,
        "bits": "".join("1" if value > 0 else "0" for value in answer.soft) if answer.found else None,
        "bits_right": answer.agreeing if answer.found and answer.right else None,
        "log10_false_alarm": round(answer.log10_chance, 2),
        "log10_limit": FALSE_ALARM_LOG10,
        "spans_s": [list(span) for span in answer.spans] if answer.found else [],
    }


def _chance(answer: Finding) -> str:
    if answer.log10_chance > -1.0:
        return f"{100 * 10**answer.log10_chance:.0f} % of films without it look so"
    return f"1 of 10^{-answer.log10_chance:.0f} films without it looks so"


def _span_lines(answer: Finding) -> list[str]:
    return [f"watermarked: {begin:.1f} s to {end:.1f} s" for begin, end in answer.spans]
