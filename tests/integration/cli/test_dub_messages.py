"""Messages of `dubstage dub` on the terminal."""

import json
import os
from pathlib import Path

import pytest
from google.protobuf import json_format

from dubstage.gateway.v1 import gateway_pb2
from gateway.consent.record import NO_CONSENT
from gateway.provenance.binding import media_sha256
from tests.forked import run_forked
from tests.integration.servers import RunningStages
from tests.integration.videos import Media

ROOT = Path(__file__).parents[3]
PERSON = {"subject": "Ann Example", "granted_by": "Ann Example"}
RECORD = {**PERSON, "scope": "dubs of the tests", "date": "2026-05-01", "reference": "drawer 7"}


@pytest.mark.long
def test_dub_prints_consent_of_actor(stages: RunningStages, media: Media, tmp_path: Path) -> None:
    """A dub of an enrolled actor prints the consent record that the actor was enrolled with."""
    consent = tmp_path / "consent.json"
    consent.write_text(json.dumps(RECORD))
    settings = {"data_dir": str(tmp_path / "data"), "artefacts_url": str(stages.artefacts), **stages.endpoints()}
    environment = {**os.environ, "COLUMNS": "1000", **{f"DUBSTAGE_{name.upper()}": value for name, value in settings.items()}}

    said: list[str] = []

    def dubstage(*arguments: object) -> str:
        done = run_forked([str(argument) for argument in arguments], environment, cwd=ROOT, timeout=300)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
        return done.stderr

    dubstage("actor", "create", "ann", media.footage, "--no-personalize", "--consent", consent)
    dub = ("dub", media.footage, "--audio", media.speech, "--actor", "ann", "-o", tmp_path / "dubbed.mp4")
    printed = dubstage(*dub)
    assert "consent of Ann Example, granted by Ann Example on 2026-05-01 for dubs of the tests (drawer 7)" in printed.splitlines()
    assert NO_CONSENT not in printed

    # The log is for servers. The result on stdout is the name of the video alone.
    assert said[-1] == f"{tmp_path / 'dubbed.mp4'}\n"
    assert "face_chosen" not in printed
    environment["DUBSTAGE_LOG_LEVEL"] = "info"
    assert "face_chosen" in dubstage(*dub)
    assert said[-1] == f"{tmp_path / 'dubbed.mp4'}\n"

    # The document is the message of the API, and the sentences are on stderr.
    assert "consent of Ann Example" in dubstage(*dub, "--json")
    result = json_format.Parse(said[-1], gateway_pb2.DubResult())
    assert result.output_uri == str(tmp_path / "dubbed.mp4")
    assert result.media_sha256 == media_sha256(tmp_path / "dubbed.mp4")
    assert result.num_dubbed == result.num_frames > 0
    assert result.consent_on_record
    dubstage("actor", "list", "--json")
    (actor,) = json_format.Parse(said[-1], gateway_pb2.ListActorsResponse()).actors
    assert (actor.name, actor.consent.subject, actor.num_dubs) == ("actors/ann", "Ann Example", 3)
