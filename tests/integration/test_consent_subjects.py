"""The record of one person never opens the work with another person, and a record of a request never replaces the actor's own."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dubstage.client import DubstageCallError, batch
from dubstage.client import gateway as client
from dubstage.client.names import resource_id
from gateway.consent.keys import signed
from gateway.consent.record import Consent, ConsentFace, digest_of, embedding_text
from gateway.consent.subject import Face
from gateway.dub.analyse.face_choice import FaceChoice
from gateway.dub.learn.subjects import face_of_videos
from gateway.settings import GatewaySettings
from gateway.stages.opening import open_stage
from tests.integration.client_calls import batch_ended, dubbing, enrolment, give, with_consent
from tests.integration.servers import RunningGateway
from tests.integration.videos import Media, write_short_clip
from tests.unit.consent.records import STUDIO, in_days, of_footage, record, trusted
from tests.written_pictures import FAST, write_pictures

MAN, MAN_EARLIER, WOMAN = "subject_man.mp4", "subject_man_earlier.mp4", "subject_woman.mp4"
NIGHT = {"project": "night", "language": "de"}


def write_video_of_picture(picture: Path, target: Path, num_frames: int) -> None:
    """A video of a real portrait that moves a little."""
    rgb = cv2.cvtColor(cv2.imread(str(picture)), cv2.COLOR_BGR2RGB)[:320, 60:400]
    moved = (np.roll(rgb, round(4 * np.sin(frame / 4)), axis=1) for frame in range(num_frames))
    write_pictures(target, moved, "libx264", **FAST)


@dataclass(frozen=True)
class Place:
    """A gateway that requires signed records, with the actor `man`; videos of a man and of a woman, and their faces."""

    running: RunningGateway
    media: Path
    faces: dict[str, Face]

    def face(self, video: str) -> ConsentFace:
        found = self.faces[video]
        return ConsentFace(network=found.network, embedding=embedding_text(found.vector))

    def footage(self, *videos: str) -> dict[str, list[str]]:
        return of_footage(*(self.media / video for video in videos))

    def give(self, consent: Consent | None) -> None:
        """Write a record into the row of the actor `man`, as an earlier day may have left it."""
        give(self.running.data, "man", consent)

    def refusal(self, call: Callable[[Any], Any]) -> DubstageCallError:
        """The refusal of a call, which leaves nothing behind."""
        with self.running.connect() as connection:
            with pytest.raises(DubstageCallError) as caught:
                call(connection)
            assert [resource_id(actor.name) for actor in client.list_actors(connection)] == ["man"]
        assert caught.value.code == "FAILED_PRECONDITION"
        assert not list((self.running.data / "jobs").iterdir())
        assert not (self.media / "refused.mp4").exists()
        return caught.value


@pytest.fixture(scope="module")
def faces(media: Media, carphone: Path, astronaut: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Face]:
    write_short_clip(carphone, media.root / MAN, 34)
    write_short_clip(carphone, media.root / MAN_EARLIER, 36, end=40)
    write_video_of_picture(astronaut, media.root / WOMAN, 32)
    settings = GatewaySettings(artefacts_url=str(tmp_path_factory.mktemp("faces")))

    async def measured() -> dict[str, Face]:
        async with open_stage(settings, "face") as stages:
            videos = {video: media.root / video for video in (MAN, MAN_EARLIER, WOMAN)}
            largest = FaceChoice("largest")
            return {video: await face_of_videos(stages, [path], largest, threads=1) for video, path in videos.items()}

    return asyncio.run(measured())


@pytest.fixture(scope="module")
def place(module_gateway, media, faces, tmp_path_factory) -> Place:
    keys = trusted(tmp_path_factory.mktemp("trusted") / "keys")
    running = module_gateway(require_consent="signed", consent_keys=keys)
    made = Place(running, media.root, faces)
    with running.connect() as connection:
        client.enrol(connection, **person("man", mine(**made.footage(MAN)), MAN)).wait(timeout_s=300)
    return made


def mine(**fields: Any) -> Consent:
    """A signed record."""
    return signed(record(**fields), STUDIO)


def person(actor_id: str, consent: Consent, footage: str) -> dict[str, Any]:
    return {**enrolment(actor_id, footage=footage), "consent": consent.fields(), "project": "night"}


def video(consent: Consent | None, footage: str, **fields: Any) -> dict[str, Any]:
    return dubbing(fields.pop("output", "refused.mp4"), **{"footage": footage, **NIGHT, **with_consent(consent), **fields})


def test_face_distance_separates_people(place: Place) -> None:
    """The videos of one person are near each other and those of two are not."""
    man, earlier, woman = (place.faces[video] for video in (MAN, MAN_EARLIER, WOMAN))
    assert man.frames >= 5
    assert man.distance(earlier) < 0.3
    assert man.distance(woman) > 0.6


@pytest.mark.parametrize("named_by", ["footage", "face", "both"])
def test_record_of_other_person_refused(named_by: str, place: Place) -> None:
    """The record of one person does not open the work with another."""
    fields: dict[str, Any] = place.footage(MAN) if named_by != "face" else {}
    fields |= {"face": place.face(MAN)} if named_by != "footage" else {}
    mans = mine(**fields)
    for refused in (
        place.refusal(lambda to: client.enrol(to, **person("woman", mans, WOMAN)).wait(timeout_s=300)),
        place.refusal(lambda to: client.dub(to, **video(mans, WOMAN)).wait(timeout_s=300)),
        # Neither does a listed video help where the face is another one.
        place.refusal(lambda to: client.dub(to, **video(mine(**fields | place.footage(WOMAN)), WOMAN)).wait(timeout_s=300))
        if named_by == "both"
        else None,
    ):
        assert refused is None or refused.reason == "CONSENT_OTHER_SUBJECT"


@pytest.mark.long
def test_face_accepts_unlisted_footage(place: Place) -> None:
    """A face opens the work with footage that no record lists."""
    by_face = mine(face=place.face(MAN))
    with place.running.connect() as connection:
        done = client.dub(connection, **video(by_face, MAN_EARLIER, output="by_face.mp4")).wait(timeout_s=300)
        assert done.num_dubbed > 0
    # A record that lists the footage of the person, and has no face, does not cover other footage.
    refused = place.refusal(lambda to: client.dub(to, **video(mine(**place.footage(MAN)), MAN_EARLIER)).wait(timeout_s=300))
    assert refused.reason == "CONSENT_OTHER_SUBJECT"
    assert place.footage(MAN_EARLIER)["footage_sha256"][0] in refused.message


@pytest.mark.long
def test_actor_requires_own_footage(place: Place) -> None:
    """An actor is dubbed in footage that shows the actor and in no other."""
    place.give(mine(**place.footage(MAN)))
    with place.running.connect() as connection:
        client.dub(connection, **video(None, MAN_EARLIER, actor_id="man", output="of_actor.mp4")).wait(timeout_s=300)
    refused = place.refusal(lambda to: client.dub(to, **video(None, WOMAN, actor_id="man")).wait(timeout_s=300))
    assert (refused.reason, "another person than the actor" in refused.message) == ("CONSENT_OTHER_SUBJECT", True)


@pytest.mark.parametrize(
    ("own", "reason"),
    [
        ({"valid_until": in_days(-2)}, "CONSENT_EXPIRED"),
        ({"projects": ["day"]}, "CONSENT_OUT_OF_SCOPE"),
        ({"languages": ["fr"]}, "CONSENT_OUT_OF_SCOPE"),
        ({"valid_until": in_days(-2), "projects": ["day"]}, "CONSENT_EXPIRED"),
        ({"actor": "another"}, "CONSENT_OTHER_SUBJECT"),
    ],
)
def test_request_record_never_replaces_actors(own: dict[str, Any], reason: str, place: Place) -> None:
    """The actor's own record is over, or is for another project; the request brings a signed record that is valid by itself."""
    place.give(mine(**place.footage(MAN), **own))
    given = mine(subject="Eve", granted_by="Eve", face=place.face(MAN), **place.footage(MAN))
    refused = place.refusal(lambda to: client.dub(to, **video(given, MAN, actor_id="man")))
    assert (refused.reason, "narrows and does not replace" in refused.message) == (reason, True)
    row = batch.row("a", footage=MAN, speech="speech.wav", output="refused.mp4", actor_id="man", consent="given.json", **NIGHT)
    (place.media / "given.json").write_text(json.dumps(given.fields()))
    with place.running.connect() as connection, pytest.raises(DubstageCallError) as caught:
        batch.submit(connection, "narrowed", rows=[row])
    assert caught.value.violation_reasons == (reason,)


@pytest.mark.long
def test_request_record_narrows_actors(place: Place) -> None:
    place.give(mine(**place.footage(MAN)))
    with place.running.connect() as connection:
        for narrower, reason in (
            ({"projects": ["day"]}, "CONSENT_OUT_OF_SCOPE"),
            ({"languages": ["fr"]}, "CONSENT_OUT_OF_SCOPE"),
            ({"valid_until": in_days(-2)}, "CONSENT_EXPIRED"),
            ({"actor": "another"}, "CONSENT_OTHER_SUBJECT"),
        ):
            given = mine(**place.footage(MAN), **narrower)
            refused = place.refusal(lambda to, given=given: client.dub(to, **video(given, MAN, actor_id="man")))
            assert refused.reason == reason
        given = mine(actor="man", projects=["night"], languages=["de"])
        client.dub(connection, **video(given, MAN, actor_id="man", output="narrowed.mp4")).wait(timeout_s=300)
        # Each of both records can be withdrawn.
        client.revoke_consent(connection, record_sha256=digest_of(given))
    refused = place.refusal(lambda to: client.dub(to, **video(given, MAN, actor_id="man")))
    assert refused.reason == "CONSENT_WITHDRAWN"


def test_other_record_refused_for_actor(place: Place) -> None:
    """The video shows the person of the record, and the actor is another person without a record."""
    place.give(None)
    womans = mine(face=place.face(WOMAN))
    refused = place.refusal(lambda to: client.dub(to, **video(womans, WOMAN, actor_id="man")).wait(timeout_s=300))
    assert (refused.reason, "the actor man shows another person" in refused.message) == ("CONSENT_OTHER_SUBJECT", True)


@pytest.mark.long
def test_earlier_actor_keeps_row_record(place: Place) -> None:
    """An actor keeps working with a record without a subject in the row of the actor."""
    old = mine()
    refused = place.refusal(lambda to: client.enrol(to, **person("another", old, MAN)))
    assert refused.reason == "CONSENT_WITHOUT_SUBJECT"
    assert "dubstage consent subject FOOTAGE` adds the subject" in refused.message
    assert place.refusal(lambda to: client.dub(to, **video(old, MAN))).reason == "CONSENT_WITHOUT_SUBJECT"
    refused = place.refusal(lambda to: client.enrol(to, **person("another", mine(actor="another"), MAN)))
    assert (refused.reason, "may give this id to anybody" in refused.message) == ("CONSENT_WITHOUT_SUBJECT", True)
    place.give(old)
    with place.running.connect() as connection:
        client.dub(connection, **video(None, MAN_EARLIER, actor_id="man", output="of_old.mp4")).wait(timeout_s=300)
        assert list(client.live(connection, [], actor_id="man", sample_rate_hz=16000, **NIGHT)) == []
    assert place.refusal(lambda to: client.dub(to, **video(old, MAN, actor_id="man"))).reason == "CONSENT_WITHOUT_SUBJECT"
    refused = place.refusal(lambda to: client.dub(to, **video(None, WOMAN, actor_id="man")).wait(timeout_s=300))
    assert refused.reason == "CONSENT_OTHER_SUBJECT"


def test_live_stream_needs_record(place: Place) -> None:
    place.give(mine(actor="another", **place.footage(MAN)))
    refused = place.refusal(lambda to: list(client.live(to, [], actor_id="man", sample_rate_hz=16000, **NIGHT)))
    assert refused.reason == "CONSENT_OTHER_SUBJECT"


@pytest.mark.long
def test_batch_row_with_other_record(place: Place) -> None:
    """A row of a batch with the record of another person fails alone."""
    place.give(mine(**place.footage(MAN)))
    (place.media / "man.json").write_text(json.dumps(mine(face=place.face(MAN)).fields()))
    rows = [
        batch.row(name, footage=footage, speech="speech.wav", output=f"{name}.mp4", consent="man.json", personalize=False, **NIGHT)
        for name, footage in (("right", MAN_EARLIER), ("wrong", WOMAN))
    ]
    with place.running.connect() as connection:
        ended = batch_ended(connection, "people", rows)
        shots = {resource_id(shot.name): shot for shot in batch.list_shots(connection, "people")}
        assert (ended.progress.num_done, ended.progress.num_failed) == (1, 1)
        batch.delete(connection, "people")
    assert "another person than the consent record" in shots["wrong"].error
    assert not (place.media / "wrong.mp4").exists()


@pytest.mark.long
@pytest.mark.parametrize("whose", ["man", "woman"])
def test_reference_person_needs_own_record(whose: str, place: Place) -> None:
    """The person in the reference is compared with the consent record of the reference."""
    given = mine(**place.footage(MAN))
    reference = mine(face=place.face(MAN if whose == "man" else WOMAN))
    asked = video(given, MAN, method="hetero", reference=WOMAN, reference_consent=reference.fields(), output="refused.mp4")
    if whose == "man":
        refused = place.refusal(lambda to: client.dub(to, **asked).wait(timeout_s=300))
        assert (refused.reason, "the reference" in refused.message) == ("CONSENT_OTHER_SUBJECT", True)
        return
    with place.running.connect() as connection:
        client.dub(connection, **asked | {"output": "with_reference.mp4"}).wait(timeout_s=300)
