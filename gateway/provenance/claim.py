"""Contents of a video's manifest: the definition that c2pa signs, made of plain values. Source: C2PA specification 2.2.

dubstage adds an assertion of its own, `DubFacts`, for what C2PA has no field for. A dub writes the assertion, and it is read from
files of strangers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

Role = Literal["footage", "speech", "reference", "mix", "reviewed"]
"""Role of a file in the making of a video. The manifest names files by their role alone: names of files may be names of people."""

DUB_LABEL: Final = "dubstage.dub"
"""Label of the assertion."""
DECISION_LABEL: Final = "dubstage.decision"
"""Label of the assertion about a decision."""
MOST_OF_A_NAME: Final = 100
"""Most characters of a name of a program or of a voice."""
_Name = Annotated[str, Field(max_length=MOST_OF_A_NAME)]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Frame = Annotated[int, Field(ge=0, le=1 << 53)]
GENERATOR: Final = "dubstage"
SYNTHETIC: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""Digital source type of videos with synthetic pictures or a synthetic voice: IPTC's term."""
_RELATIONSHIPS: Final[dict[Role, str]] = {
    "footage": "parentOf",
    "speech": "inputTo",
    "reference": "inputTo",
    "mix": "inputTo",
    "reviewed": "parentOf",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoWatermark:
    """Watermark of a video.

    Attributes:
        on: whether the setting was on.
        payload: what the watermark says, 9 hexadecimal digits; empty: the video has none, because the setting was off or no frame
            was dubbed.
    """

    on: bool
    payload: str = ""


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class ModelFacts(_Facts):
    """A model that drew or moved the mouth.

    Attributes:
        stage: stage that ran the model.
        version: what tells this model from others of the name: the SHA-256 of its files, hexadecimal, where the stage says it.
    """

    stage: str
    name: str
    version: str


class VoiceFacts(_Facts):
    """A synthetic voice.

    Attributes:
        program: name of the program that spoke, without folder and arguments.
        voice: name of the voice, as the program knows it; empty: the program's own choice.
        language: language (BCP 47); empty: not named.
    """

    program: _Name
    voice: _Name = ""
    language: _Name = ""

    def __str__(self) -> str:
        more = "".join(f", {name} {value}" for name, value in (("voice", self.voice), ("language", self.language)) if value)
        return f"synthetic voice by {self.program}{more}"


class SourceFacts(_Facts):
    """A file that the video was made of.

    Attributes:
        role: what the file was to the video.
        sha256: digest of the file.
        voice: the synthetic voice of a speech; None: the manifest says nothing of the voice.
    """

    role: Role
    sha256: _Digest
    voice: VoiceFacts | None = None


class DubFacts(_Facts):
    """Facts about a dub.

    Attributes:
        version: version of this assertion.
        method: name of the method.
        models: models of the method.
        frames: number of frames; 0 of a live stream that has just begun.
        frame_rate: frames per second of the video, on average, as NUMERATOR/DENOMINATOR.
        dubbed: spans of frames whose mouth is synthetic, [begin, end) each, in order.
        sources: files that the video was made of.
        consent_sha256: digests of the consent records: `person`, `reference`, and `actor` for the actor's own record if another
            record came with the request.
        job: key of the job that made the video, SHA-256, hexadecimal; empty: the video was recorded from a
            gateway's live stream.
        watermark: what the watermark of the dubbed mouths says, 9 hexadecimal digits; empty: the video has no watermark.
        scene: whether the video is a scene, whose watermark is bound only to the job.
        stream: whether the video is a live stream or the recording of one, whose watermark is bound only to the job.
    """

    version: Literal[1] = 1
    method: str
    models: list[ModelFacts]
    frames: _Frame
    frame_rate: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,17}/[1-9][0-9]{0,17}$")]
    dubbed: list[Annotated[list[_Frame], Field(min_length=2, max_length=2)]]
    sources: list[SourceFacts]
    consent_sha256: dict[str, _Digest]
    job: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    watermark: Annotated[str, Field(pattern=r"^([0-9a-f]{9})?$")] = ""
    scene: bool = False
    stream: bool = False

    @property
    def statement(self) -> bytes:
        """All that the manifest says of the dub, except its watermark, in one form: the watermark is bound to these bytes.

        Fields that a manifest does not have are left out, so a new field does not change the statement of older videos. Of a scene,
        it is the key of the job, which stands for footage and networks: a change of a line leaves the marks of all other lines.
        """
        if self.scene:
            return json.dumps({"scene": self.job}).encode()
        if self.stream:
            return stream_statement(self.job)
        said = self.model_dump(exclude_unset=True, exclude={"watermark"})
        return json.dumps(said, sort_keys=True, separators=(",", ":")).encode()


def stream_statement(job: str) -> bytes:
    """Return what the watermark of a live stream is bound to: the stream is marked before its end, and any manifest, is known.

    Args:
        job: digest of what the stream shows, hexadecimal.
    """
    return json.dumps({"stream": job}).encode()


class DecisionFacts(_Facts):
    """Decision of a person about a video, which the manifest of the delivered video repeats.

    Attributes:
        version: version of this assertion.
        state: what was decided.
        reviewer: name of the person who decided; empty: not given.
        decided_at: when, RFC 3339, UTC.
        note: note of the decision; empty: none.
        video_sha256: digest of the video that the person decided about, with its manifest.
    """

    version: Literal[1] = 1
    state: Literal["approved"]
    reviewer: Annotated[str, Field(max_length=200)]
    decided_at: Annotated[str, Field(max_length=40)]
    note: Annotated[str, Field(max_length=4000)]
    video_sha256: _Digest


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that a video was made of.

    Attributes:
        role: what the file was to the video.
        sha256: digest of the file, hexadecimal; empty: the file is read for its digest when the video is signed.
        number: number among the files of this role, from 1: a scene has several speeches.
        voice: the synthetic voice of a speech; None: nothing is said of the voice.
    """

    role: Role
    path: Path
    sha256: str = ""
    number: int = 1
    voice: VoiceFacts | None = None

    @property
    def label(self) -> str:
        """Name of the source in the manifest, such as `speech`, and `speech-2` for the second of this role."""
        return self.role if self.number == 1 else f"{self.role}-{self.number}"

    @property
    def relationship(self) -> str:
        """C2PA's name of the relation between the file and the video."""
        return _RELATIONSHIPS[self.role]


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """Facts about the making of a video.

    Attributes:
        version: version of dubstage.
        description: one sentence about what is synthetic, without names.
        synthetic: whether any picture, or the voice, of the video is synthetic.
        method: name of the method.
        models: models of the method.
        frame_rate: frames per second of the video, on average.
        dubbed: spans of frames whose mouth is synthetic, in order.
        consents: SHA-256 of the consent records, hexadecimal, by `person`, `reference`, and `actor` where the record of the person
            came with the request and the actor has another. Only records that were given.
        job: key of the job, SHA-256, hexadecimal; of a live stream that of the actor's enrolment; empty: not known.
        watermark: what the watermark of the dubbed mouths says, 9 hexadecimal digits; empty: the video has no watermark.
        scene: whether the video is a scene.
        stream: whether the video is a live stream, or the recording of one, whose enrolment is known.
        sources: files that the video was made of; the footage is the first. A video of a live stream has no footage, and a stream
            that has just begun has no sources.
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
    scene: bool = False
    stream: bool = False
    sources: tuple[SourceFile, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveryClaim:
    """Facts about a video that is delivered as it was reviewed.

    Attributes:
        version: version of dubstage.
        decision: the decision.
        sources: the reviewed video.
    """

    version: str
    decision: DecisionFacts
    sources: tuple[SourceFile, ...]


def definition(claim: Claim | DeliveryClaim, digests: Mapping[str, str], binding: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest definition of a video, as c2pa's Builder takes it.

    Args:
        claim: what the video says.
        digests: SHA-256 of every source, hexadecimal, by label.
        binding: assertion with the digest of the video (`gateway.provenance.binding`).
    """
    if isinstance(claim, DeliveryClaim):
        said = {"label": DECISION_LABEL, "data": claim.decision.model_dump()}
        return _manifest(claim.version, [_opened([source.label for source in claim.sources])], said, binding)
    parents = [source.label for source in claim.sources if source.relationship == "parentOf"]
    edited: dict[str, Any] = {"action": "c2pa.edited" if parents else "c2pa.created", "description": claim.description}
    inputs = [source.label for source in claim.sources if source.relationship != "parentOf"]
    if claim.synthetic:
        edited["digitalSourceType"] = SYNTHETIC
    if inputs:
        edited["parameters"] = {"ingredientIds": inputs}
    actions = [*([_opened(parents)] if parents else []), edited]
    said = {"label": DUB_LABEL, "data": dub_facts(claim, digests).model_dump(exclude_unset=True)}
    return _manifest(claim.version, actions, said, binding)


def _opened(parents: Sequence[str]) -> dict[str, Any]:
    return {"action": "c2pa.opened", "parameters": {"ingredientIds": parents}}


def _manifest(version: str, actions: Sequence[dict[str, Any]], said: dict[str, Any], binding: dict[str, Any]) -> dict[str, Any]:
    done = {"label": "c2pa.actions.v2", "data": {"actions": actions, "allActionsIncluded": True}}
    return {"claim_generator_info": [{"name": GENERATOR, "version": version}], "assertions": [done, said, binding]}


def bytes_definition(binding: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest definition of bytes that are no video, such as an entry of a directory.

    Args:
        binding: assertion with the digest of the bytes (`gateway.provenance.binding`).
    """
    created = {"action": "c2pa.created", "digitalSourceType": "http://c2pa.org/digitalsourcetype/empty"}
    done = {"label": "c2pa.actions.v2", "data": {"actions": [created]}}
    return {"claim_generator_info": [{"name": GENERATOR}], "assertions": [done, binding]}


def ingredient(source: SourceFile, media_type: str) -> dict[str, Any]:
    """Return the description of a source, as c2pa's Builder takes it. `label` is the id that actions name the source by."""
    said = {"title": source.label, "relationship": source.relationship, "label": source.label, "format": media_type}
    return said | ({"description": str(source.voice)} if source.voice is not None else {})


def dub_facts(claim: Claim, digests: Mapping[str, str]) -> DubFacts:
    """Return what the manifest of a video says of the dub, with every field set; `scene` and `stream` only where true.

    Args:
        claim: what the video says.
        digests: SHA-256 of every source, hexadecimal, by label.
    """
    rate = claim.frame_rate
    return DubFacts(
        version=1,
        method=claim.method,
        models=list(claim.models),
        frames=claim.num_frames,
        frame_rate=f"{rate.numerator}/{rate.denominator}",
        dubbed=[[span.start, span.stop] for span in claim.dubbed],
        sources=[_source_facts(source, digests[source.label]) for source in claim.sources],
        consent_sha256=dict(sorted(claim.consents.items())),
        job=claim.job,
        watermark=claim.watermark,
        **({"scene": True} if claim.scene else {}),
        **({"stream": True} if claim.stream else {}),
    )


def _source_facts(source: SourceFile, sha256: str) -> SourceFacts:
    # A field that is not set is no part of the statement that watermarks are bound to.
    voice = {"voice": source.voice} if source.voice is not None else {}
    return SourceFacts(role=source.role, sha256=sha256, **voice)
