"""Tests of CreateActor's messages and of consent records as messages."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dubstage.gateway.v1 import consent_pb2
from dubstage.gateway.v1 import gateway_pb2 as pb
from gateway.api.convert import enrol_request_from
from gateway.api.media import MediaFolder, MediaLocations, RequestMedia
from gateway.consent.keys import signed
from gateway.consent.messages import consent_from, consent_message
from gateway.consent.record import digest_of
from gateway.media.takes import MAX_TAKES
from services.common.errors import InvalidRequestError
from tests.unit.consent.records import STUDIO, face, record
from tests.unit.media.made_footage import make_clip

WHOLE = {
    "projects": ["night"],
    "languages": ["de"],
    "valid_from": "2026-02-01T00:00:00Z",
    "valid_until": "2999-02-01T00:00:00Z",
    "actor": "ann",
    "footage_sha256": ["0" * 64, "1" * 64],
    "face": face(),
}


def test_too_many_files_refused_early(tmp_path: Path) -> None:
    """Too many files of footage are refused before any is looked at."""
    media = RequestMedia(MediaLocations(MediaFolder(tmp_path), ""), lambda: tmp_path)
    message = pb.CreateActorRequest(actor_id="ann", footage_uri="none.mp4", more_footage_uris=["none.mp4"] * MAX_TAKES)
    with pytest.raises(InvalidRequestError, match=f"{MAX_TAKES + 1} files of footage were given; at most {MAX_TAKES}") as caught:
        enrol_request_from(message, media, threads=1)
    assert caught.value.field == "footage"


def test_footage_chooses_method_of_enrolment(tmp_path: Path, astronaut: Path) -> None:
    """A person is enrolled for `portrait` from a picture, and for `dubstage` from a video, if the request names no method."""
    make_clip(tmp_path / "ann.mp4")
    shutil.copyfile(astronaut, tmp_path / "ann.png")
    media = RequestMedia(MediaLocations(MediaFolder(tmp_path), "s3://people"), lambda: tmp_path)

    def method(**fields: str) -> str:
        return enrol_request_from(pb.CreateActorRequest(actor_id="ann", **fields), media, threads=1).method  # type: ignore[arg-type]

    assert method(footage_uri="ann.png") == method(footage_uri="s3://people/ann.png") == "portrait"
    assert method(footage_uri="ann.mp4") == method(footage_uri="s3://people/ann.mp4") == "dubstage"
    assert method(footage_uri="ann.png", method="everyone") == "everyone"


@pytest.mark.parametrize("fields", [{}, *({name: value} for name, value in WHOLE.items()), WHOLE])
def test_a_record_comes_through_a_message_unchanged(fields: dict[str, object]) -> None:
    for consent in (record(**fields), signed(record(**fields), STUDIO)):
        copy = consent_from(consent_pb2.ConsentRecord.FromString(consent_message(consent).SerializeToString()))
        assert copy == consent
        assert digest_of(copy) == digest_of(consent)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"actor": "Ann"}, "consent.actor"),
        ({"footage_sha256": ["0"]}, "consent.footage_sha256.0"),
        ({"face": {"network": "of-tests"}}, "consent.face.embedding"),
    ],
)
def test_wrong_subject_names_field(wrong: dict[str, object], field: str) -> None:
    """A wrong subject is refused by field and without its value."""
    message = consent_message(record())
    message.MergeFrom(consent_pb2.ConsentRecord(**wrong))  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError) as caught:
        consent_from(message)
    assert caught.value.field == field


def test_an_embedding_that_is_none_is_not_told() -> None:
    message = consent_message(record(face=face()))
    message.face.embedding = message.face.embedding[4:]
    with pytest.raises(InvalidRequestError) as caught:
        consent_from(message)
    assert message.face.embedding[:40] not in caught.value.message
