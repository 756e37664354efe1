"""Whose mouth is dubbed where two people are in the picture, and how far the sound lags behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.actors.create import EnrolRequest, create_actor
from gateway.actors.store import ActorStore
from gateway.pipeline.dub_request import DubRequest
from gateway.pipeline.faces import FaceChoice, parse_face
from gateway.settings import GatewaySettings
from gateway.stages.host import StageHost
from services.common.errors import InvalidRequest
from services.common.store.artefacts import ArtefactStore
from tests.system.dubbing import SPEECH, UNPERSONALIZED, Dubber, decoded, first_seconds

TWO_FACES = "derived/d06_two_faces_left_speaks.mp4"


def test_the_speaker_is_dubbed_and_the_listener_keeps_every_sample(clips: Any, dubber: Dubber, tmp_path: Path) -> None:
    footage, output = first_seconds(clips.path(TWO_FACES), tmp_path / "footage.mp4", 2.4), tmp_path / "dub.mp4"
    dub = dubber.with_faces(
        DubRequest(footage=footage, speech=SPEECH, output=output, method="ugc", face=FaceChoice("speaker"), codec="ffv1")
    )
    centre = {int(face["face_id"]): face["box"][0] + face["box"][2] / 2 for face in dub.faces}
    assert len(centre) == 2
    assert dub.outcome.face_id == min(centre, key=lambda face: centre[face])
    assert dub.outcome.plan.rendered().mean() > 0.98
    assert dub.outcome.actor is not None
    assert abs(dub.outcome.actor.lag_frames or 0) <= 2
    assert not [warning for warning in dub.outcome.warnings if "face" in warning or "voice" in warning]

    changed = 0
    for before, after in zip(decoded(footage), decoded(output), strict=True):
        for old, new in zip(before, after, strict=True):
            half = old.shape[1] // 2
            np.testing.assert_array_equal(old[:, half:], new[:, half:])
        changed += int(not np.array_equal(before[0], after[0]))
    assert changed > 40


def test_a_listener_does_not_learn_from_the_speakers_voice(clips: Any, dubber: Dubber, tmp_path: Path) -> None:
    footage = first_seconds(clips.path(TWO_FACES), tmp_path / "footage.mp4", 2.4)
    dub = dubber.with_faces(DubRequest(footage=footage, speech=SPEECH, output=tmp_path / "dub.mp4", method="ugc"))
    centre = {int(face["face_id"]): face["box"][0] + face["box"][2] / 2 for face in dub.faces}
    listener, speaker = max(centre, key=lambda face: centre[face]), min(centre, key=lambda face: centre[face])
    outcome = dub.outcome
    assert outcome.face_id == listener
    assert outcome.actor is not None
    assert outcome.actor.lag_frames is None
    assert outcome.actor.lag_doubt.startswith(f"the mouth of face {speaker} fits the sound better")
    several, voice = (warning for warning in outcome.warnings if "face" in warning)
    assert f"the largest is taken, face {listener} (at " in several
    assert outcome.actor.lag_doubt in voice


def test_a_point_of_the_picture_names_the_face_there(clips: Any, dubber: Dubber, tmp_path: Path) -> None:
    footage = first_seconds(clips.path(TWO_FACES), tmp_path / "footage.mp4", 1.4)
    request = DubRequest(footage=footage, speech=SPEECH, output=tmp_path / "dub.mp4", method="ugc", face=parse_face("960,320"))
    dub = dubber.with_faces(request)
    (chosen,) = dub.faces[(dub.faces["face_id"] == dub.outcome.face_id) & (dub.faces["frame"] == 0)]
    assert chosen["box"][0] > 640


def test_a_point_without_a_face_is_refused_and_leaves_no_output(clips: Any, dubber: Dubber, tmp_path: Path) -> None:
    footage = first_seconds(clips.path(TWO_FACES), tmp_path / "footage.mp4", 0.4)
    request = DubRequest(footage=footage, speech=SPEECH, output=tmp_path / "dub.mp4", method="ugc", face=parse_face("640,5"))
    with pytest.raises(InvalidRequest, match="faces are at"):
        dubber(request)
    assert list(tmp_path.iterdir()) == [footage]


def test_sound_that_was_delayed_by_five_frames_is_reported_five_frames_later(
    clips: Any, host: StageHost, settings: GatewaySettings, tmp_path: Path
) -> None:
    lags = []
    own = settings.model_copy(update={"data_dir": tmp_path / "data"})
    store = ArtefactStore(settings.artefacts_url)
    for number, clip in enumerate(("video/vr_face2.mp4", "derived/d09_audio_late_200ms.mp4")):
        footage = first_seconds(clips.path(clip), tmp_path / f"{number}-footage.mp4", 2.6)
        request = EnrolRequest(actor_id=f"person-{number}", footage=footage, method="ugc", options=UNPERSONALIZED)
        with ActorStore(own) as actors:
            actor = host.run(
                create_actor(request, host.stages, actors, store, tmp_path / "jobs", on_progress=lambda *_: None)
            ).enrolled
        assert actor.lag_frames is not None
        lags.append(actor.lag_frames)
    assert abs(lags[0]) <= 1
    assert abs(lags[1] - lags[0] - 5) <= 1
