"""Check that a consent record is about the person whom work shows: by actor, by footage, or by the face itself."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Final

from gateway.consent.record import Consent
from services.common.errors import ConsentFaceUncertainError, ConsentOtherSubjectError, ConsentWithoutSubjectError

if TYPE_CHECKING:
    from services.common.array_types import Float32

SAME_BELOW: Final = 0.43
"""Distance of two mean face embeddings below which both are of one person. docs/models/face_embedding.md has the measurements."""
OTHER_FROM: Final = 0.5
"""Distance from which two mean face embeddings are of two people. Between both distances, a person has to decide."""
ENOUGH_FRAMES: Final = 5
"""Frames of a mean embedding for which the distances were measured. Fewer frames, as of a still, tell people apart less surely."""
_ADD_SUBJECT: Final = "`dubstage consent subject FOOTAGE` adds the subject"


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """Mean face embedding of a person in one video.

    Attributes:
        network: name of the network that computed the embeddings.
        vector: float32 [128].
        frames: number of frames.
        windows: mean embeddings of consecutive parts of the video, each of ENOUGH_FRAMES frames or more, float32 [128] each; none:
            the video has too few frames.
    """

    network: str
    vector: Float32
    frames: int = 1
    windows: tuple[Float32, ...] = ()

    def distance(self, other: Face) -> float:
        """Return the Euclidean distance of two faces. Both must be of one network."""
        return _distance(self.vector, other.vector)

    def largest_distance(self, other: Face) -> float:
        """Return the largest distance of this face to the other face in any part of the other video.

        A mean alone is near both people of a video in which one person becomes another.
        """
        return max(_distance(self.vector, part) for part in (other.vector, *other.windows))

    @property
    def spread(self) -> float:
        """Largest distance of two parts of the video."""
        return max((_distance(first, second) for first, second in combinations(self.windows, 2)), default=0.0)


def _distance(first: Float32, second: Float32) -> float:
    # Imported here: commands that compare no faces start without NumPy.
    import numpy as np

    return float(np.linalg.norm(first.astype(np.float64) - second))


@dataclass(frozen=True, slots=True)
class Shown:
    """A person in footage.

    Attributes:
        what: names the footage in messages, such as `the footage video.mp4`.
        sha256: digest of the footage. Of several files: digest of their joined digests.
        face: the person's face; None: no frame shows it.
        files: digests of the files, if they are several.
    """

    what: str
    sha256: str
    face: Face | None
    files: tuple[str, ...] = ()

    def listed_in(self, consent: Consent) -> bool:
        """Return whether a record lists the footage: its digest, or the digests of all its files."""
        listed = set(consent.footage_sha256 or ())
        return self.sha256 in listed or bool(self.files and listed.issuperset(self.files))


def check_names_subject(consent: Consent, subject: str, *, enrols: bool = False) -> None:
    """Check that a record says whose face it is about, for an installation that requires records.

    Args:
        consent: the record.
        subject: actor or file that the error names.
        enrols: whether the record is for an enrolment. The caller of an enrolment chooses the id of the actor, so that a record
            with only an id fits anybody.

    Raises:
        ConsentWithoutSubjectError: the record names no subject, or an enrolment's record names only the actor.
    """
    if not consent.names_subject:
        raise ConsentWithoutSubjectError(
            "the consent record does not say whose face it is about (actor, footage_sha256 or face), so that it fits anybody. This "
            f"installation requires a record of the person: {_ADD_SUBJECT}, `dubstage consent sign` signs the new record",
            subject=subject,
        )
    if enrols and not consent.names_person:
        raise ConsentWithoutSubjectError(
            f"the consent record names the actor {consent.actor!r} alone, and an enrolment may give this id to anybody: the record "
            f"needs footage_sha256 or face too. {_ADD_SUBJECT}, `dubstage consent sign` signs the new record",
            subject=subject,
        )


def check_actor(consent: Consent, actor_id: str, subject: str) -> None:
    """Check that a record covers work with an actor.

    Args:
        consent: the record.
        actor_id: the actor; empty: the work uses none.
        subject: actor or file that the error names.

    Raises:
        ConsentOtherSubjectError: the record names another actor.
    """
    if consent.actor is not None and consent.actor != actor_id:
        used = f"not the actor {actor_id!r}" if actor_id else "and the work uses no actor"
        raise ConsentOtherSubjectError(f"the consent record covers the actor {consent.actor!r} alone, {used}", subject=subject)


def check_shown(consent: Consent, shown: Shown, subject: str, *, actor: Face | None = None) -> None:
    """Check that a record is about the person whom footage shows.

    A face of the record is compared with the face of the footage. For a record without a face that holds for an actor, the actor's
    face is compared. Otherwise the footage must be listed.

    Args:
        consent: the record.
        shown: the person in the footage.
        subject: actor or file that the error names.
        actor: face of the actor for whom the record holds; None: the record holds for no actor.

    Raises:
        ConsentOtherSubjectError: the footage shows another person, or no face can be compared and the footage is not listed.
        ConsentFaceUncertainError: the faces are neither near each other nor far from each other, and the footage is not listed; or
            they cannot be compared.
    """
    listed = shown.listed_in(consent)
    face, whose = actor, "the actor"
    if consent.face is not None:
        face, whose = Face(consent.face.network, consent.face.vector), "the consent record"
    if face is not None:
        _check_same(face, shown, subject, whose=whose, listed=listed)
    elif not listed:
        raise ConsentOtherSubjectError(
            f"the consent record is about other footage than {shown.what}, whose SHA-256 is {shown.sha256}: give the record of the "
            f"person in this footage. If the record is of this person, {_ADD_SUBJECT}",
            subject=subject,
        )


def _check_same(face: Face, shown: Shown, subject: str, *, whose: str, listed: bool) -> None:
    seen = shown.face
    if seen is None:
        raise ConsentFaceUncertainError(
            f"no frame of {shown.what} shows the face well enough to compare it with the face of {whose}", subject=subject
        )
    if seen.network != face.network:
        raise ConsentFaceUncertainError(
            f"the face of {whose} was measured by the network {face.network!r}, and the face stage has {seen.network!r}: "
            f"{_ADD_SUBJECT} anew",
            subject=subject,
        )
    distance = face.largest_distance(seen)
    if distance >= OTHER_FROM:
        raise ConsentOtherSubjectError(
            f"{shown.what} shows another person than {whose}, at least in a part: the distance of the faces is {distance:.2f}, and "
            f"{OTHER_FROM:.2f} or more is the distance of two people",
            subject=subject,
        )
    if distance >= SAME_BELOW and not listed:
        raise ConsentFaceUncertainError(
            f"{shown.what} may show the person of {whose}, or another person: the distance of the faces is {distance:.2f}, between "
            f"{SAME_BELOW:.2f} and {OTHER_FROM:.2f}. Look at both. If they are one person, give a record that lists this footage "
            f'too: "footage_sha256": ["{shown.sha256}"]',
            subject=subject,
        )
