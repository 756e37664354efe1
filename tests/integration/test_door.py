"""CreateDub and CreateActor refuse wrong requests before any work is done, and no error shows the server's folders."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from google.longrunning import operations_pb2

from dubstage.client import Connection, DubstageCallError, rpcs
from dubstage.client import gateway as client
from dubstage.gateway.v1 import consent_pb2
from gateway.provenance.binding import media_sha256
from tests.integration.client_calls import dubbing, enrolment
from tests.integration.servers import StartGateway
from tests.integration.videos import OTHER, Media
from tests.refusals import refusal

CONSENT = {"subject": "driver", "granted_by": "driver", "scope": "tests", "reference": "box 7"}


@pytest.fixture(scope="module")
def inputs(media: Media) -> Path:
    """The media folder with files that cannot be used."""
    (media.root / "text.mp4").write_text("this is not a video")
    (media.root / "notes.mp4").write_text("a file that somebody needs")
    (media.root / "cut.mp4").write_bytes(media.footage.read_bytes()[:4000])
    (media.root / "silence.wav").write_bytes(media.speech.read_bytes()[:44])
    (media.root / "folder").mkdir()
    os.mkfifo(media.root / "pipe.mp4")
    os.link(media.footage, media.root / "hard.mp4")
    return media.root


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"codec": "mpeg2video"}, "codec", "mp4"),
        ({"footage": "plates/a.%04d.exr"}, "footage_uri", "the pattern of an image sequence, which servers do not dub"),
        ({"encode_quality": "fine"}, "encode_quality", "visually-lossless, high, small"),
        ({"codec": "ffv1", "encode_quality": "small"}, "encode_quality", "one quality"),
        ({"output": "video.avi"}, "output_uri", ".avi"),
        ({"output": "video"}, "output_uri", "endings"),
        ({"output": "folder\\video.mp4"}, "output_uri", "'/'"),
        ({"output": "C:/videos/video.mp4"}, "output_uri", "'/'"),
        ({"footage": "folder\\video.mp4"}, "footage_uri", "'/'"),
        ({"footage": "folder"}, "footage_uri", "folder"),
        ({"footage": "pipe.mp4"}, "footage_uri", "pipe.mp4"),
        ({"speech": "pipe.mp4"}, "speech_uri", "pipe.mp4"),
        ({"output": "footage.mp4"}, "output_uri", "footage"),
        ({"output": "hard.mp4"}, "output_uri", "footage"),
        ({"output": "speech.wav"}, "output_uri", "speech"),
        ({"output": "notes.mp4"}, "output_uri", "overwrite"),
        ({"output": "folder", "overwrite": True}, "output_uri", "folder"),
        ({"method": "magic"}, "method", "magic"),
        ({"method": "portrait", "fit": "loop"}, "fit", "portrait"),
        ({"fit": "slow", "keep_audio": True}, "keep_audio", "timeline"),
        ({"method": "portrait", "expression": "keep"}, "expression", "timeline"),
        ({"fit": "retime", "expression": "keep"}, "expression", "timeline"),
        ({"finish": 3}, "finish", "Finish"),
        ({"expressiveness": 0.0}, "expressiveness", "0.5 .. 1.5"),
        ({"expressiveness": 1.6}, "expressiveness", "0.5 .. 1.5"),
        ({"expressiveness": float("nan")}, "expressiveness", "nan"),
        ({"label": "AI\ndubbed"}, "label", "one line"),
        ({"label": "a" * 61}, "label", "60 characters"),
        ({"label": "a" * 241}, "label", "240"),
        ({"label_position": "top-left"}, "label_position", "without a label"),
        ({"label": "AI", "label_position": 9}, "label_position", "LabelPosition"),
        ({"seed": -1}, "seed", "-1"),
        ({"consent": consent_pb2.ConsentRecord(**CONSENT, date="0000-01-01")}, "consent.date", "0000-01-01"),
        ({"consent": consent_pb2.ConsentRecord(**CONSENT, date="2999-01-01")}, "consent.date", "future"),
        ({"consent": consent_pb2.ConsentRecord(subject="driver")}, "consent.granted_by", "required"),
    ],
)
def test_impossible_dub_refused_at_once(connection, inputs, fields, field, words) -> None:
    before = sorted(path.name for path in inputs.iterdir())
    error = refusal(client.dub, connection, **dubbing("door.mp4", **fields))
    assert (error.code, error.reason, error.field.removeprefix("dub.")) == ("INVALID_ARGUMENT", "INVALID_REQUEST", field)
    assert words in error.message
    assert str(inputs) not in error.message
    assert sorted(path.name for path in inputs.iterdir()) == before


def test_wrong_actor_refused_at_once(connection: Connection, actor: str) -> None:
    """An actor that is not there or is of another method is refused at the door."""
    assert refusal(client.dub, connection, **dubbing("door.mp4", actor_id="nobody")).reason == "ACTOR_NOT_FOUND"
    other = refusal(client.dub, connection, **dubbing("door.mp4", actor_id=actor, method="everybody"))
    assert (other.field, other.reason) == ("dub.method", "INVALID_REQUEST")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"seed": -1}, "seed"),
        ({"method": "magic"}, "method"),
        ({"footage": "a\\b.mp4"}, "footage_uri"),
        ({"more_footage": ["footage.mp4", "../other.mp4"]}, "more_footage_uris[1]"),
    ],
)
def test_impossible_enrolment_refused_at_once(connection: Connection, fields: dict[str, Any], field: str) -> None:
    error = refusal(client.enrol, connection, **enrolment("new") | fields)
    assert (error.reason, error.field.removeprefix("dub.")) == ("INVALID_REQUEST", field)


@pytest.mark.long
def test_only_own_videos_overwritten(start_gateway: StartGateway, inputs: Path) -> None:
    """A file is replaced only if the request says so or dubstage wrote the file."""
    running = start_gateway()
    shutil.copy(inputs / "text.mp4", inputs / "replaced.mp4")
    with running.connect() as connection:
        client.dub(connection, **dubbing("replaced.mp4", footage=OTHER, overwrite=True)).wait(timeout_s=300)
        video = media_sha256(inputs / "replaced.mp4")
        # A video of ours now: no word is needed.
        client.dub(connection, **dubbing("replaced.mp4", footage=OTHER)).wait(timeout_s=300)
        assert media_sha256(inputs / "replaced.mp4") == video


def test_errors_hide_server_paths(start_gateway: StartGateway, inputs: Path, tmp_path: Path) -> None:
    """No error shows where the server keeps its files."""
    running = start_gateway(max_queued_jobs=32)
    statuses: list[bytes] = []
    with running.connect() as connection:
        wrong = [{"footage": name} for name in ("text.mp4", "cut.mp4", "silence.wav", "speech.wav", "pipe.mp4", "nothing.mp4")]
        wrong += [{"speech": name} for name in ("text.mp4", "silence.wav", "folder", "../speech.wav", str(inputs / "none.wav"))]
        wrong += [{"output": name} for name in ("notes.mp4", "folder", "none/video.mp4", "video.xyz", "footage.mp4")]
        wrong += [{"face": "9"}, {"face": "0,0"}, {"method": "portrait", "codec": "prores"}, {"speech": ""}]
        for number, fields in enumerate(wrong):
            try:
                dub = client.dub(connection, **dubbing(f"leak_{number}.mp4", **fields))
            except DubstageCallError as error:
                statuses.append(f"{error.message} {error.field}".encode())
                continue
            with pytest.raises(DubstageCallError):
                dub.wait(timeout_s=300)
            request = operations_pb2.GetOperationRequest(name=dub.name)
            found = connection.unary(rpcs.operations.GET_OPERATION, request)
            statuses.append(found.SerializeToString())
        client.enrol(connection, **enrolment("leaky", footage=OTHER)).wait(timeout_s=300)
        listed = {ref.sha256: ref for actor in client.list_actors(connection) for ref in actor.artefacts}
        for ref in listed.values():
            Path(ref.uri.removeprefix("file://")).unlink(missing_ok=True)
        for call in (
            lambda: client.dub(connection, **dubbing("leak.mp4", actor_id="leaky", footage=OTHER)),
            lambda: list(client.live(connection, [], actor_id="leaky", sample_rate_hz=16000)),
        ):
            with pytest.raises(DubstageCallError) as caught:
                call()
            statuses.append(caught.value.message.encode())
        client.erase_actor(connection, "leaky")
    assert len(statuses) == len(wrong) + 2
    for status in statuses:
        for place in (inputs, running.data, Path(running.settings.artefacts_url), Path(__file__).parents[2]):
            assert str(place).encode() not in status, status
        assert b"/tmp/" not in status, status
        assert not re.search(rb"--[a-z]", status), status
