"""The part of `dubstage inspect` that looks for the watermark of this installation in the faces of a film."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from gateway.cli.progress import StepProgress
from gateway.dub.watermark_reading import find_watermark
from gateway.media.inspection import inspect_film
from gateway.media.types import MediaInfo
from gateway.provenance.mark_standing import Standing, standing_of
from gateway.provenance.opening import own_watermark_key
from gateway.provenance.verdict import State, Verdict
from gateway.provenance.watermark.code import WORD_BITS
from gateway.provenance.watermark.detection import FALSE_ALARM_LOG10, Finding
from gateway.settings import GatewaySettings
from gateway.stages.opening import open_stage
from services.common.errors import MediaUnsupported

NO_KEY: Final = "this installation has not signed a film yet, so it has no watermark"
_NO_FACE: Final = "no face is seen for a second or longer"
_STANDINGS: Final = {
    Standing.THIS_FILM: "of this film: the mark belongs to what the signed manifest says",
    Standing.FOOTAGE: "of the footage that this film was made of: the mark belongs to the footage's own manifest",
    Standing.ANOTHER_FILM: "of ANOTHER film of this installation: the mark does not belong to what this manifest says. Somebody "
    "copied the mark or the manifest, or the footage had the mark",
}
_WHY_A_CLUE: Final = {
    State.TRUSTED: "the manifest does not describe a dub",
    State.VALID: "the signer of the manifest is unknown",
    State.INVALID: "the manifest is not valid",
    State.NONE: "no manifest vouches for the mark, and marks can be copied from film to film",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """The likeliest watermark of this installation in a film.

    Attributes:
        finding: the watermark.
        standing: what the watermark proves beside the film's manifest; None: no watermark was found.
        state: whether the film's manifest holds.
    """

    finding: Finding
    standing: Standing | None
    state: State


def look_for_watermark(verdict: Verdict, settings: GatewaySettings) -> Seen | str:
    """Return the likeliest watermark of this installation in a film, or why there is none to look at. Blocks.

    Args:
        verdict: what the film's manifest says, and whether it holds.
        settings: settings of the installation.

    Raises:
        DubstageError: from the face stage, or the installation's key cannot be read.
    """
    key = own_watermark_key(settings)
    if key is None:
        return NO_KEY
    try:
        info = inspect_film(verdict.file)
    except MediaUnsupported as problem:
        return problem.message
    found = asyncio.run(_search(info, key, settings))
    if found is None:
        return _NO_FACE
    return Seen(found, standing_of(found, key, verdict) if found.found else None, verdict.state)


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


def watermark_lines(answer: Seen | str) -> list[str]:
    """Return what a person reads of the search for a watermark, one fact per line."""
    if isinstance(answer, str):
        return [f"watermark: not looked for: {answer}"]
    found = answer.finding
    if answer.standing is None:
        return [f"watermark: none of this installation ({_chance(found)})"]
    spans = [f"watermarked: {begin:.1f} s to {end:.1f} s" for begin, end in found.spans]
    if not found.right:
        return [f"watermark: of this installation, too weak to be read: a clue, no proof ({_chance(found)})", *spans]
    why = f"of this installation: a clue, no proof, because {_WHY_A_CLUE[answer.state]}"
    bits = f"{found.agreeing} of {WORD_BITS} bits were read right"
    return [f"watermark: {found.payload}, {_STANDINGS.get(answer.standing, why)} ({bits}, {_chance(found)})", *spans]


def watermark_facts(answer: Seen | str) -> dict[str, Any]:
    """Return the answer for JSON. Bits are given before error correction."""
    if isinstance(answer, str):
        return {"found": False, "standing": None, "reason": answer}
    found = answer.finding
    readable = found.found and found.right
    return {
        "found": found.found,
        "standing": answer.standing,
        "payload": str(found.payload) if readable else None,
        "version": found.version if readable else None,
        "bits": "".join("1" if value > 0 else "0" for value in found.soft) if found.found else None,
        "bits_right": found.agreeing if readable else None,
        "log10_false_alarm": round(found.log10_chance, 2),
        "log10_limit": FALSE_ALARM_LOG10,
        "spans_s": [list(span) for span in found.spans] if found.found else [],
    }


def _chance(found: Finding) -> str:
    if found.log10_chance > -1.0:
        return f"{100 * 10**found.log10_chance:.0f} % of films without it look so"
    return f"1 of 10^{-found.log10_chance:.0f} films without it looks so"
