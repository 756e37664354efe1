"""What the manifest of a film says: the definition that c2pa signs, made of plain values. Source: C2PA specification 2.2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from gateway.provenance.facts import DUB_LABEL, DubFacts, ModelFacts, Role, SourceFacts

GENERATOR: Final = "dubstage"
_SYNTHETIC: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
_RELATIONSHIPS: Final[dict[Role, str]] = {"footage": "parentOf", "speech": "inputTo", "reference": "inputTo"}


@dataclass(frozen=True, slots=True)
class Source:
    """A file that a film was made of.

    Attributes:
        role: what the file was to the film.
        path: the file.
        sha256: digest of the file, hexadecimal; empty: the file is read for its digest when the film is signed.
    """

    role: Role
    path: Path
    sha256: str = ""

    @property
    def relationship(self) -> str:
        """C2PA's name of the relation between the file and the film."""
        return _RELATIONSHIPS[self.role]


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What a film says of its making.

    Attributes:
        version: version of dubstage.
        description: one sentence about what is synthetic, without names.
        synthetic: whether any picture of the film is synthetic.
        method: name of the method.
        models: models of the method.
        num_frames: frames of the film.
        frame_rate: frames per second of the film, on average.
        dubbed: spans of frames whose mouth is synthetic, in order.
        consents: SHA-256 of the consent records, hexadecimal, by `person`, `reference`, and `actor` where the record of the person
            came with the request and the actor has another. Only records that were given.
        job: key of the job, SHA-256, hexadecimal; empty: the film is the recording of a live stream.
        watermark: what the watermark of the dubbed mouths says, 9 hexadecimal digits; empty: the film has no watermark.
        sources: files that the film was made of; the footage is the first. A film of a live stream has no footage.
    """

    version: str
    description: str
    synthetic: bool
    method: str
    models: tuple[ModelFacts, ...]
    num_frames: int
    frame_rate: Fraction
    dubbed: tuple[range, ...]
    consents: Mapping[str, str] = field(default_factory=dict)
    job: str = ""
    watermark: str = ""
    sources: tuple[Source, ...]


def definition(claim: Claim, digests: Mapping[Role, str], binding: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest definition of a film, as c2pa's Builder takes it.

    Args:
        claim: what the film says.
        digests: SHA-256 of every source, hexadecimal, by role.
        binding: assertion with the digest of the film (`gateway.provenance.binding`).
    """
    parents = [source.role for source in claim.sources if source.relationship == "parentOf"]
    edited: dict[str, Any] = {"action": "c2pa.edited" if parents else "c2pa.created", "description": claim.description}
    inputs = [source.role for source in claim.sources if source.relationship != "parentOf"]
    if claim.synthetic:
        edited["digitalSourceType"] = _SYNTHETIC
    if inputs:
        edited["parameters"] = {"ingredientIds": inputs}
    opened = [{"action": "c2pa.opened", "parameters": {"ingredientIds": parents}}] if parents else []
    actions = [*opened, edited]
    return {
        "claim_generator_info": [{"name": GENERATOR, "version": claim.version}],
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": actions, "allActionsIncluded": True}},
            {"label": DUB_LABEL, "data": dub_facts(claim, digests).model_dump()},
            binding,
        ],
    }


def ingredient(source: Source, media_type: str) -> dict[str, Any]:
    """Return the description of a source, as c2pa's Builder takes it. `label` is the id that actions name the source by."""
    return {"title": source.role, "relationship": source.relationship, "label": source.role, "format": media_type}


def dub_facts(claim: Claim, digests: Mapping[Role, str]) -> DubFacts:
    """Return what the manifest of a film says of the dub, with every field set.

    Args:
        claim: what the film says.
        digests: SHA-256 of every source, hexadecimal, by role.
    """
    rate = claim.frame_rate
    return DubFacts(
        version=1,
        method=claim.method,
        models=list(claim.models),
        frames=claim.num_frames,
        frame_rate=f"{rate.numerator}/{rate.denominator}",
        dubbed=[[span.start, span.stop] for span in claim.dubbed],
        sources=[SourceFacts(role=source.role, sha256=digests[source.role]) for source in claim.sources],
        consent_sha256=dict(sorted(claim.consents.items())),
        job=claim.job,
        watermark=claim.watermark,
    )
