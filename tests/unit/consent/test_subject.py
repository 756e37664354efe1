"""Whether a record is about the person whom work shows: by actor, by footage, or by face."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.consent.record import Consent, embedding_text
from gateway.consent.subject import OTHER_FROM, SAME_BELOW, Face, Shown, check_actor, check_names_subject, check_shown
from services.common.errors import (
    ConsentFaceUncertainError,
    ConsentOtherSubjectError,
    ConsentRefusedError,
    ConsentWithoutSubjectError,
)
from tests.unit.consent.records import record

VIDEO, OTHER_VIDEO = "a" * 64, "b" * 64
ANN = Face("of-tests", np.eye(128, dtype=np.float32)[0])
SAME, UNCERTAIN, OTHER = "", "CONSENT_FACE_UNCERTAIN", "CONSENT_OTHER_SUBJECT"


def at(distance: float, network: str = "of-tests") -> Face:
    """A face at this distance from Ann's."""
    return Face(network, (ANN.vector + distance * np.eye(128)[1]).astype(np.float32))


def shown(distance: float | None, sha256: str = VIDEO, *, files: tuple[str, ...] = ()) -> Shown:
    return Shown("the footage video.mp4", sha256, at(distance) if distance is not None else None, files)


def by_face(**fields: object) -> Consent:
    return record(face={"network": ANN.network, "embedding": embedding_text(ANN.vector)}, **fields)


def verdict(consent: Consent, seen: Shown, actor: Face | None = None) -> str:
    try:
        check_shown(consent, seen, "ann", actor=actor)
    except ConsentRefusedError as refusal:
        return refusal.reason if refusal.subject == "ann" else refusal.subject
    return ""


@pytest.mark.parametrize(
    ("distance", "unlisted", "listed"),
    [
        (0.0, SAME, SAME),
        (SAME_BELOW - 0.001, SAME, SAME),
        (SAME_BELOW + 0.001, UNCERTAIN, SAME),
        (OTHER_FROM - 0.001, UNCERTAIN, SAME),
        (OTHER_FROM + 0.001, OTHER, OTHER),
        (1.3, OTHER, OTHER),
        (None, UNCERTAIN, UNCERTAIN),
    ],
)
def test_near_middle_and_far_faces(distance: float | None, unlisted: str, listed: str) -> None:
    """The person decides by listing the footage in a record."""
    assert verdict(by_face(), shown(distance)) == unlisted
    assert verdict(by_face(footage_sha256=[OTHER_VIDEO]), shown(distance)) == unlisted
    assert verdict(by_face(footage_sha256=[OTHER_VIDEO, VIDEO]), shown(distance)) == listed


def test_every_part_of_video_counts() -> None:
    """A video in which Ann becomes another person is refused, though its mean is near Ann; the mean of both is no record's face."""
    other = (ANN.vector + 1.0 * np.eye(128)[2]).astype(np.float32)
    mean = (ANN.vector + 0.35 * np.eye(128)[2]).astype(np.float32)
    fading = Face(ANN.network, mean, 30, (ANN.vector, mean, other))
    assert ANN.distance(fading) < SAME_BELOW
    assert verdict(by_face(), Shown("the footage video.mp4", VIDEO, fading)) == OTHER
    assert verdict(by_face(footage_sha256=[VIDEO]), Shown("the footage video.mp4", VIDEO, fading)) == OTHER
    assert fading.spread == pytest.approx(1.0)
    assert (ANN.spread, ANN.largest_distance(ANN)) == (0.0, 0.0)


def test_decision_message_has_record_facts() -> None:
    """The message for a person who decides has what the new record needs."""
    with pytest.raises(ConsentFaceUncertainError, match=rf'distance of the faces is 0\.45.*"footage_sha256": \["{VIDEO}"\]'):
        check_shown(by_face(), shown(0.45), "ann")


@pytest.mark.parametrize("distance", [0.0, 1.3, None])
def test_unseen_face_needs_listed_footage(distance: float | None) -> None:
    """A digest names a video, and not a face in the video."""
    assert verdict(record(footage_sha256=[VIDEO]), shown(distance)) == SAME
    assert verdict(record(footage_sha256=[OTHER_VIDEO]), shown(distance)) == OTHER
    assert verdict(record(), shown(distance)) == OTHER


def test_several_files_all_listed() -> None:
    """All of several files must be listed, or their joined digest."""
    takes = shown(0.0, "c" * 64, files=(VIDEO, OTHER_VIDEO))
    assert verdict(record(footage_sha256=[VIDEO, OTHER_VIDEO]), takes) == SAME
    assert verdict(record(footage_sha256=["c" * 64]), takes) == SAME
    assert verdict(record(footage_sha256=[VIDEO]), takes) == OTHER


@pytest.mark.parametrize(("distance", "expected"), [(0.1, SAME), (0.45, UNCERTAIN), (0.6, OTHER)])
def test_actor_face_replaces_missing_face(distance: float, expected: str) -> None:
    """A record without a face that holds for an actor is compared by the actors face."""
    for fields in ({}, {"actor": "ann"}, {"footage_sha256": [OTHER_VIDEO]}):
        assert verdict(record(**fields), shown(distance), ANN) == expected
    # The record's own face counts more than the actor's.
    assert verdict(by_face(), shown(distance), at(distance)) == expected


def test_faces_of_two_networks_are_not_compared() -> None:
    seen = Shown("the footage video.mp4", VIDEO, at(0.0, "another"))
    with pytest.raises(ConsentFaceUncertainError, match="'of-tests', and the face stage has 'another'"):
        check_shown(by_face(), seen, "ann")


def test_actor_record_covers_actor_only() -> None:
    """A record of an actor covers this actor alone."""
    check_actor(record(), "ann", "ann")
    check_actor(record(actor="ann"), "ann", "ann")
    with pytest.raises(ConsentOtherSubjectError, match="covers the actor 'ann' alone, not the actor 'bob'"):
        check_actor(record(actor="ann"), "bob", "bob")
    with pytest.raises(ConsentOtherSubjectError, match="covers the actor 'ann' alone, and the work uses no actor"):
        check_actor(record(actor="ann"), "", "video.mp4")


def test_actor_id_is_no_enrolment_subject() -> None:
    """The id of an actor alone is no subject of an enrolment."""
    for named in (by_face(), record(footage_sha256=[VIDEO]), record(actor="ann", footage_sha256=[VIDEO])):
        check_names_subject(named, "ann", enrols=True)
    check_names_subject(record(actor="ann"), "ann")
    for consent, enrols in ((record(), False), (record(), True), (record(actor="ann"), True)):
        with pytest.raises(ConsentWithoutSubjectError, match="dubstage consent subject"):
            check_names_subject(consent, "ann", enrols=enrols)
