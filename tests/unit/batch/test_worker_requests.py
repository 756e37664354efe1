"""The request of a shot is the request that `dubstage dub` makes of the same options, and is checked as strictly."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway import transfer
from gateway.batch.types import ShotSpec
from gateway.batch.worker import WorkerContext, open_worker_context, shot_request
from gateway.consent.record import digest_of
from gateway.dub.analyse.face_choice import FaceChoice
from gateway.dub.choices import EnrolOptions
from gateway.dub.request.dub_request import DubRequest
from gateway.dub.sound.speech_command import write_silence
from gateway.dub.state import scratch
from gateway.dub.state.workspace import is_running
from gateway.media.label import Label
from gateway.provenance.claim import VoiceFacts
from gateway.settings import GatewaySettings
from services.common.errors import (
    ActorError,
    ConsentMissingError,
    ConsentRefusedError,
    ConsentWithoutSubjectError,
    InvalidRequestError,
    MediaUnsupportedError,
)
from services.common.server.settings import load_settings
from tests.unit.architecture.module_graph import ROOT
from tests.unit.batch.rows import changed_shot, shot_of_row
from tests.unit.consent.records import allowed, faults, of_footage, trusted

SPEECH = ROOT / "gateway" / "cli" / "demo_speech.flac"
CONSENT = {"subject": "A", "granted_by": "A", "scope": "this video", "date": "2026-01-02", "reference": "safe 1"}


def settings_in(folder: Path, **more: Any) -> GatewaySettings:
    return load_settings(GatewaySettings, data_dir=folder / "data", artefacts_url=str(folder / "artefacts"), **more)


@pytest.fixture
async def context(tmp_path: Path) -> AsyncIterator[WorkerContext]:
    async with open_worker_context(settings_in(tmp_path, compute_threads=3)) as opened:
        yield opened


@pytest.fixture
def consent(tmp_path: Path) -> Path:
    path = tmp_path / "consent.json"
    path.write_text(json.dumps(CONSENT))
    return path


def shot(footage: Path, folder: Path, **more: Any) -> ShotSpec:
    return shot_of_row(
        **{"id": "a", "footage": str(footage), "speech": str(SPEECH), "output": str(folder / "out" / "a.mp4"), **more}
    )


async def request_of(context: WorkerContext, row: ShotSpec) -> DubRequest:
    async with shot_request(context, row) as request:
        return request


async def test_without_options_the_request_has_the_defaults(context: WorkerContext, carphone: Path, tmp_path: Path) -> None:
    request = await request_of(context, shot(carphone, tmp_path))
    assert request == DubRequest(footage=carphone, speech=SPEECH, output=tmp_path / "out" / "a.mp4", method="dubstage", threads=3)
    assert not request.overwrite


async def test_picture_row_takes_portrait(context: WorkerContext, astronaut: Path, tmp_path: Path) -> None:
    """A row without a method dubs a single picture with `portrait`."""
    assert (await request_of(context, shot(astronaut, tmp_path))).method == "portrait"


async def test_every_option_reaches_the_request(context: WorkerContext, carphone: Path, tmp_path: Path, consent: Path) -> None:
    row = shot(
        carphone,
        tmp_path,
        method="dubstage+hetero",
        face="20,30",
        fit="retime",
        expression="neutral",
        expressiveness=1.25,
        label="AI dubbed",
        label_position="top-left",
        codec="hevc",
        encode_quality=20,
        personalize=False,
        seed=5,
        consent=str(consent),
    )
    request = await request_of(context, row)
    assert request.consent is not None
    assert request.consent.reference == "safe 1"
    assert (request.method, request.face, request.fit) == ("dubstage+hetero", FaceChoice("point", point=(20.0, 30.0)), "retime")
    assert (request.expression, request.mouth.expressiveness, request.codec, request.crf) == ("neutral", 1.25, "hevc", 20)
    assert request.label == Label("AI dubbed", "top-left")
    assert request.enrol == EnrolOptions(personalize_renderer=False, personalize_motion=False, seed=5)


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        ({"actor": "nobody-here"}, ActorError, "nobody-here"),
        ({"method": "magic"}, InvalidRequestError, "no method 'magic'"),
        ({"codec": "ffv1", "encode_quality": "small"}, InvalidRequestError, "ffv1 has one quality"),
        ({"method": "portrait", "keep_audio": True}, InvalidRequestError, "timeline of its own"),
        ({"speech": "/no/such.wav"}, MediaUnsupportedError, "/no/such.wav"),
        ({"speech": None}, InvalidRequestError, "has no sound"),
        ({"consent": "/no/such.json"}, InvalidRequestError, "/no/such.json"),
    ],
)
async def test_shot_refused_as_dub(
    more: dict[str, Any], error: type[Exception], said: str, context: WorkerContext, carphone: Path, tmp_path: Path
) -> None:
    """A shot is refused for the same reasons as a dub."""
    with pytest.raises(error, match=said):
        await request_of(context, shot(carphone, tmp_path, **more))


async def test_words_become_speech(carphone: Path, tmp_path: Path) -> None:
    """The command of the worker's settings speaks the words of a shot once, for the length of the footage."""
    (tmp_path / "speak.sh").write_text(f"cp {tmp_path}/kept.wav $1; echo $2 $3 $4 >> {tmp_path}/calls")
    write_silence(tmp_path / "kept.wav")
    row = shot(carphone, tmp_path, speech=None, say="Good morning.", voice="ann", language="en")
    command = f"sh {tmp_path}/speak.sh {{output}} {{voice}} {{seconds}} {{text}}"
    async with open_worker_context(settings_in(tmp_path, speech_command=command)) as speaking:
        request, again = [await request_of(speaking, row) for _ in range(2)]
        assert request == again
        assert request.voice == VoiceFacts(program="sh", voice="ann", language="en")
        assert request.speech is not None
        assert request.speech.parent == tmp_path / "data" / "speech"
        with pytest.raises(InvalidRequestError, match="takes the voice"):
            await request_of(speaking, shot(carphone, tmp_path, speech=None, say="Good morning.", language="en"))
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert call.startswith("ann ")
    assert call.endswith(" Good morning.")


async def test_worker_without_command_refuses(context: WorkerContext, carphone: Path, tmp_path: Path) -> None:
    """Words never become a dub with the sound of the footage."""
    with pytest.raises(InvalidRequestError, match="set DUBSTAGE_SPEECH_COMMAND to one"):
        await request_of(context, shot(carphone, tmp_path, speech=None, say="Good morning."))


@pytest.mark.parametrize("field", ["footage", "speech", "consent"])
async def test_a_video_never_replaces_an_input(
    field: str, context: WorkerContext, carphone: Path, tmp_path: Path, consent: Path
) -> None:
    path = tmp_path / "copy.mp4"
    path.write_bytes({"footage": carphone, "speech": SPEECH, "consent": consent}[field].read_bytes())
    before = path.read_bytes()
    row = changed_shot(shot(carphone, tmp_path), **{field: str(path), "output": str(path)})
    with pytest.raises(InvalidRequestError, match=r"copy\.mp4") as refused:
        await request_of(context, row)
    assert refused.value.field == "output"
    assert path.read_bytes() == before


async def test_required_consent_for_shots(carphone: Path, tmp_path: Path, consent: Path) -> None:
    """If consent is required, a shot needs a record."""
    async with open_worker_context(settings_in(tmp_path, require_consent=True)) as strict:
        with pytest.raises(ConsentMissingError):
            await request_of(strict, shot(carphone, tmp_path))
        with pytest.raises(ConsentWithoutSubjectError):
            await request_of(strict, shot(carphone, tmp_path, consent=str(consent)))
        consent.write_text(json.dumps(CONSENT | of_footage(carphone)))
        assert (await request_of(strict, shot(carphone, tmp_path, consent=str(consent)))).consent is not None


async def test_cancelled_copy_ends(context: WorkerContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy from a URL ends soon after its task is cancelled, however long the file is."""
    monkeypatch.setattr(transfer, "_PIECE_BYTES", 1 << 16)
    sends, ended = threading.Event(), threading.Event()

    class Endless(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            with suppress(ConnectionError):
                while not ended.is_set():
                    self.wfile.write(bytes(1 << 16))
                    sends.set()

    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        row = changed_shot(shot(SPEECH, tmp_path), footage=f"http://127.0.0.1:{server.server_port}/plate.mov")
        copying = asyncio.create_task(request_of(context, row))
        assert await asyncio.to_thread(sends.wait, 60)
        copying.cancel()
        done, _ = await asyncio.wait([copying], timeout=30)
        ended.set()
        await asyncio.wait([copying])
        server.shutdown()
    assert done
    assert copying.cancelled()


async def test_dead_workers_copies_removed(context: WorkerContext, tmp_path: Path) -> None:
    """Copies of dead workers are removed and those of living ones stay."""
    left = tmp_path / "data" / "fetched" / "1-dead"
    left.mkdir(parents=True)
    (left / "footage.mp4").write_bytes(b"x")
    with context.scratch_folder() as mine:
        async with open_worker_context(context.settings) as other:
            with other.scratch_folder() as theirs:
                assert mine.is_dir()
                assert not left.exists()
            assert not theirs.exists()
        assert mine.is_dir()
    assert not mine.exists()


async def test_leftovers_removed_under_lock(context: WorkerContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that begins at this moment has made its folder, and not yet locked it: it notices, and makes another."""
    left, locked = tmp_path / "data" / "fetched" / "1-dead", list[bool]()
    left.mkdir(parents=True)
    remove = shutil.rmtree

    def watched(folder: Path, ignore_errors: bool = False) -> None:
        if folder == left:
            locked.append(is_running(folder))
        remove(folder, ignore_errors)

    monkeypatch.setattr(scratch, "shutil", SimpleNamespace(rmtree=watched))
    with context.scratch_folder():
        assert locked == [True]
        assert not left.exists()


@pytest.mark.parametrize("fault", sorted(faults()))
async def test_worker_refuses_faulty_records(fault: str, carphone: Path, tmp_path: Path) -> None:
    """A worker refuses each faulty record with its own reason."""
    found, strict = faults()[fault], {"require_consent": "signed", "consent_keys": trusted(tmp_path / "keys")}
    paths = {name: tmp_path / f"{name}.json" for name in ("allowed", "faulty")}
    named = {"project": "night", "language": "de"}
    async with open_worker_context(settings_in(tmp_path, **strict)) as opened:
        mine = allowed()
        paths["allowed"].write_text(json.dumps(mine.fields()))
        assert (await request_of(opened, shot(carphone, tmp_path, consent=str(paths["allowed"]), **named))).consent == mine
        if found.record is not None:
            paths["faulty"].write_text(json.dumps(found.record.fields()))
        if found.withdrawn and found.record is not None:
            opened.installation.actors.consents.withdraw(digest_of(found.record))
        with pytest.raises(ConsentRefusedError, match=found.says) as caught:
            await request_of(opened, shot(carphone, tmp_path, consent=str(paths["faulty"]) if found.record else None, **named))
    assert caught.value.reason == found.reason
