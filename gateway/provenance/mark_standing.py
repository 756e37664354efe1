"""Standing of a watermark beside the manifest of its film. A mark alone is a clue, because marks can be copied between films."""

from __future__ import annotations

from enum import StrEnum

from gateway.provenance.facts import DubFacts
from gateway.provenance.verdict import State, Verdict
from gateway.provenance.watermark.detection import Finding
from gateway.provenance.watermark.payload import Payload


class Standing(StrEnum):
    """How a watermark and a manifest fit each other."""

    THIS_FILM = "this_film"
    """The manifest is valid, its signer is trusted, and the mark belongs to what the manifest says."""
    FOOTAGE = "footage"
    """As THIS_FILM, but the mark belongs to what the manifest of a source says: a dub was dubbed again or edited."""
    ANOTHER_FILM = "another_film"
    """The mark does not belong to what the manifest says: the mark was copied, the manifest was, or the footage had a mark."""
    CLUE = "clue"
    """No manifest that is valid and has a trusted signer vouches for the mark, or the mark is too weak to be read."""


def standing_of(finding: Finding, key: bytes, verdict: Verdict) -> Standing:
    """Return how a mark that was found and the manifest of the film fit each other.

    Args:
        finding: mark that was found.
        key: key of the watermarks, 32 bytes.
        verdict: what the film's manifest says, and whether it holds.
    """
    if finding.version == 0:
        return Standing.CLUE
    trusted = verdict.state is State.TRUSTED
    if verdict.dub is not None and _belong(finding, key, verdict.dub):
        return Standing.THIS_FILM if trusted else Standing.CLUE
    sources = [DubFacts.model_validate(item["dub"]) for item in verdict.ingredients if item.get("valid") and "dub" in item]
    if any(_belong(finding, key, source) for source in sources):
        return Standing.FOOTAGE if trusted else Standing.CLUE
    return Standing.ANOTHER_FILM if verdict.dub is not None else Standing.CLUE


def _belong(finding: Finding, key: bytes, facts: DubFacts) -> bool:
    """Return whether a mark belongs to what a manifest says. Marks of version 1 are bound to nothing but the digits."""
    if str(finding.payload) != facts.watermark:
        return False
    return finding.version == 1 if not facts.job else finding.payload == Payload.of_film(key, facts.statement)
