"""The claims of a dub's manifest come from the request, the models and the plan."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from dubstage.motion.v1 import motion_pb2
from dubstage.render.v1 import render_pb2
from gateway.consent.record import Consent, digest_of
from gateway.dub.analyse.frame_plan import DUBBED, SILENT, FramePlan
from gateway.dub.request.claim import video_claim
from gateway.dub.request.dub_request import ActorRecord, DubLine, DubRequest, consent_sentence
from gateway.dub.sound.timecode import parse_time
from gateway.media.probe import probe
from gateway.provenance.claim import DUB_LABEL, DubFacts, VoiceFacts, definition, dub_facts, ingredient
from gateway.stages.opening import ListedModels
from services.common.texts import Field
from tests.unit.consent.records import face, record

LISTED = ListedModels(
    motion_pb2.ListModelsResponse(models=[motion_pb2.Model(name=name, version=f"m-{name}") for name in ("dubstage", "portrait")]),
    render_pb2.ListModelsResponse(models=[render_pb2.Model(name=name, sha256=f"r-{name}") for name in ("ugc", "headpose")]),
)
CONSENT = Consent(subject="Jane Doe", granted_by="Jane Doe", scope="a video", date="2026-01-01", reference="drawer 3")


def plan_of(*reasons: int) -> FramePlan:
    return FramePlan(np.array(reasons, np.int32), np.zeros(len(reasons), np.int64), np.ones(len(reasons), np.float32))


def test_claim_names_method_and_consent(carphone: Path, tmp_path: Path) -> None:
    """A dub tells method models spans sources and the digest of the consent."""
    request = DubRequest(
        footage=carphone, speech=tmp_path / "new.wav", output=tmp_path / "out.mp4", method="dubstage", consent=CONSENT
    )
    claim = video_claim(request, probe(carphone), plan_of(0, DUBBED, SILENT, 0, DUBBED), LISTED)
    assert (claim.method, claim.synthetic, claim.num_frames, claim.frame_rate) == ("dubstage", True, 5, Fraction(30000, 1001))
    assert claim.description == "The mouth in this video is synthetic."
    assert claim.dubbed == (range(1, 3), range(4, 5))
    assert [(model.stage, model.name, model.version) for model in claim.models] == [
        ("motion", "dubstage", "m-dubstage"),
        ("render", "ugc", "r-ugc"),
    ]
    assert [(source.role, source.path) for source in claim.sources] == [("footage", carphone), ("speech", tmp_path / "new.wav")]
    assert claim.consents == {"person": digest_of(CONSENT)}
    assert "Jane" not in repr(replace(claim, sources=()))


def test_claim_names_synthetic_voice(carphone: Path, tmp_path: Path) -> None:
    """The manifest says by which program the speech was made. A speech without such facts leaves no field in the statement."""
    request = DubRequest(footage=carphone, speech=tmp_path / "new.wav", output=tmp_path / "out.mp4", method="dubstage")
    digests = {"footage": "0" * 64, "speech": "1" * 64}

    def said(request: DubRequest) -> DubFacts:
        return dub_facts(video_claim(request, probe(carphone), plan_of(0, 0), LISTED), digests)

    assert b"voice" not in said(request).statement
    spoken = replace(request, voice=VoiceFacts(program="espeak-ng", voice="ann", language="en"))
    assert said(spoken).statement != said(request).statement
    claim = video_claim(spoken, probe(carphone), plan_of(0, 0), LISTED)
    assert (claim.synthetic, claim.description) == (True, "The voice in this video is synthetic.")
    manifest = definition(claim, digests, {})
    (facts,) = [found["data"] for found in manifest["assertions"] if found.get("label") == DUB_LABEL]
    assert facts["sources"][1]["voice"] == {"program": "espeak-ng", "voice": "ann", "language": "en"}
    assert DubFacts.model_validate(json.loads(json.dumps(facts))) == said(spoken)
    assert [ingredient(source, "audio/wav").get("description") for source in claim.sources] == [
        None,
        "synthetic voice by espeak-ng, voice ann, language en",
    ]


def test_manifest_has_records_no_face(carphone: Path, tmp_path: Path) -> None:
    """The manifest has the digests of all records and nothing of a face."""
    own, given, other = record(face=face(1)), record(face=face(2), actor="ann"), record(face=face(3))
    stored = ActorRecord(actor_id="ann", consent=own, footage_sha256="0" * 64, faces=None, footage=None)
    request = DubRequest(
        footage=carphone,
        speech=None,
        output=tmp_path / "out.mp4",
        method="portrait",
        actor_record=stored,
        consent=given,
        reference=tmp_path / "face.png",
        reference_consent=other,
    )
    claim = video_claim(request, probe(carphone), plan_of(0, DUBBED), LISTED)
    assert claim.consents == {"person": digest_of(given), "actor": digest_of(own), "reference": digest_of(other)}
    told = json.dumps(definition(claim, dict.fromkeys(("footage", "speech", "reference"), "0" * 64), {}))
    assert all(text in told for text in claim.consents.values())
    for text in (told, consent_sentence(request)):
        assert not [number for number in (1, 2, 3) if face(number)["embedding"][:16] in text]
    assert request.consents == (given, own, other)
    alone = video_claim(replace(request, consent=None, reference=None, reference_consent=None), probe(carphone), plan_of(0), LISTED)
    assert alone.consents == {"person": digest_of(own)}


def test_undubbed_video_synthetic_if_moved(carphone: Path, tmp_path: Path) -> None:
    """A video without a dubbed frame is synthetic only if its head moves."""

    def claim_by(method: str, reference: Path | None = None) -> tuple[bool, str, list[str]]:
        request = DubRequest(footage=carphone, speech=None, output=tmp_path / "out.mp4", method=method, reference=reference)
        claim = video_claim(request, probe(carphone), plan_of(0, 0), LISTED)
        return claim.synthetic, claim.description, [source.role for source in claim.sources]

    assert claim_by("dubstage") == (False, "No mouth in this video is synthetic.", ["footage"])
    picture = tmp_path / "face.png"
    assert claim_by("portrait", picture) == (True, "The motion of the head in this video is synthetic.", ["footage", "reference"])


def test_versions_of_a_scene_share_their_mark(carphone: Path, tmp_path: Path) -> None:
    """The statement of a scene is bound to its job alone, also as its manifest is read back; that of a dub to all facts."""
    scene = DubRequest(footage=carphone, speech=None, output=tmp_path / "out.mp4", method="dubstage")
    line = DubLine(name=Field("lines[0]"), start=parse_time("0"), dub=replace(scene, speech=tmp_path / "new.wav"))
    digests = dict.fromkeys(("footage", "speech"), "0" * 64)

    def facts(request: DubRequest, *reasons: int, job: str = "1" * 64) -> DubFacts:
        claim = video_claim(request, probe(carphone), plan_of(*reasons), LISTED, job=job)
        told = next(one["data"] for one in definition(claim, digests, {})["assertions"] if one.get("label") == DUB_LABEL)
        read = DubFacts.model_validate(told)
        assert read.statement == dub_facts(claim, digests).statement
        assert read.scene == bool(request.lines)
        return read

    with_line = replace(scene, lines=(line,))
    assert facts(with_line, 0, DUBBED).statement == facts(with_line, DUBBED, 0).statement
    assert facts(with_line, DUBBED).statement != facts(with_line, DUBBED, job="2" * 64).statement
    assert facts(scene, 0, DUBBED).statement != facts(scene, DUBBED, 0).statement
