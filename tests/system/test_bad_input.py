"""Tests of a user's mistakes: one clear line, an exit code, nothing half-written, no traceback."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from gateway.actors.create import EnrolRequest, create_actor
from gateway.actors.installation import open_installation
from gateway.dub.choices import PREVIEW_S, EnrolOptions
from gateway.dub.job.dub_job import DubJob
from gateway.dub.request.dub_request import DubRequest
from gateway.dub.state.disk import shown_bytes
from gateway.media.probe import probe
from gateway.settings import GatewaySettings
from services.common.errors import NoUsableFootageError, StorageFullError
from services.common.server.settings import load_settings
from tests.integration.videos import write_short_clip
from tests.refusals import raised
from tests.system.dubbing import SPEECH, Dubber, cut, write_wav
from tests.written_pictures import write_pictures

Run = Callable[..., subprocess.CompletedProcess[str]]


def write_video(path: Path, frames: int, size: int = 128) -> Path:
    """A real video of noise, without a face and without sound."""
    return write_pictures(path, np.random.default_rng(3).integers(0, 255, (frames, size, size, 3), np.uint8), "h264")


def assert_fails_well(result: subprocess.CompletedProcess[str], output: Path, *says: str, code: int = 10) -> None:
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert "this should not happen" not in result.stderr
    for text in says:
        assert text in result.stderr
    assert not output.exists()
    assert [path.name for path in output.parent.iterdir() if "partial" in path.name] == []


@pytest.fixture
def dubstage(forked_dubstage: Run) -> Run:
    return forked_dubstage


def test_unusable_files_are_named(dubstage: Run, output: Path, carphone: Path, tmp_path: Path) -> None:
    """Footage or speech that is missing, is no video, was cut short, or has no frame or no sound."""
    notes, empty, short, pipe, playlist = (
        tmp_path / name for name in ("notes.mp4", "empty.mp4", "short.mp4", "pipe.mp4", "list.m3u8")
    )
    notes.write_text("not a video\n" * 100)
    empty.touch()
    whole = write_video(tmp_path / "whole.mp4", 30)
    short.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    os.mkfifo(pipe)
    playlist.write_text(f"#EXTM3U\n#EXTINF:4,\n{carphone}\n#EXT-X-ENDLIST\n")
    silence = write_wav(tmp_path / "empty.wav", np.zeros(0), 16000)
    for arguments, says in (
        (("nowhere.mp4",), ("nowhere.mp4",)),
        ((notes, "--audio", SPEECH), ("notes.mp4",)),
        ((SPEECH,), ("demo_speech.flac", "video")),
        ((empty, "--audio", SPEECH), ("empty.mp4",)),
        ((short, "--audio", SPEECH), ("short.mp4",)),
        ((carphone,), ("has no sound", "--audio FILE")),
        ((playlist,), ("list.m3u8", "a playlist")),
        ((pipe,), ("pipe.mp4", "a named pipe")),
        ((carphone, "--audio", pipe), ("a named pipe",)),
        ((carphone, "--audio", silence), ("empty.wav", "no sound in it")),
    ):
        assert_fails_well(dubstage("dub", *arguments, "-o", output), output, *says)


@pytest.mark.parametrize(
    ("options", "environment", "code", "says"),
    [
        (("--method", "magic"), {}, 10, ("dubstage",)),
        (("--actor", "ada"), {}, 11, ("ada", "dubstage actor create")),
        ((), {"DUBSTAGE_REQUIRE_CONSENT": "true"}, 11, ("consent", "--consent FILE")),
    ],
)
def test_unknown_names_and_missing_consent(dubstage: Run, output: Path, carphone: Path, options, environment, code, says) -> None:
    """The error says what there is, or what to run."""
    result = dubstage("dub", carphone, "--audio", SPEECH, "-o", output, *options, **environment)
    assert_fails_well(result, output, *says, code=code)


def test_a_missing_output_folder_is_named(dubstage: Run, carphone: Path, tmp_path: Path) -> None:
    result = dubstage("dub", carphone, "--audio", SPEECH, "-o", tmp_path / "absent" / "dub.mp4")
    assert result.returncode == 10, result.stderr
    assert "absent" in result.stderr


def test_footage_without_faces_passes_through(dubstage: Run, output: Path, tmp_path: Path) -> None:
    """Footage without any face passes through and ends with a code of its own."""
    noise = write_video(tmp_path / "noise.mp4", 30)
    result = dubstage("dub", noise, "--audio", SPEECH, "-o", output, "--report", tmp_path / "report")
    assert result.returncode == 13, result.stderr
    said = "none of the 30 frames is dubbed (NO_FACE 30), so the mouths in the video are those of the footage"
    assert f"error: {said}" in result.stderr
    assert said in (tmp_path / "report" / "index.html").read_text()
    assert str(output) in result.stdout
    with av.open(str(output)) as video:
        assert video.metadata["comment"].startswith("No mouth in this video is synthetic (made with dubstage)")


@pytest.mark.parametrize("preview", [False, True])
def test_full_disk_checked_before_work(
    dubber: Dubber, carphone: Path, tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch, preview: bool
) -> None:
    """A disk that is too full is foreseen before the work. A preview renders the mouths of its seconds only."""
    steps: list[str] = []
    film = tmp_path / "film.mp4"
    write_short_clip(carphone, film, 100, times=2)
    usage = shutil.disk_usage(output.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=(256 << 20) + 1_000_000))
    request = DubRequest(footage=film, speech=SPEECH, output=output, method="dubstage", preview=preview)
    job = DubJob(request, dubber.host.stages, dubber.store, dubber.jobs)
    shown = probe(film).video.span(0, PREVIEW_S) if preview else probe(film).video
    mouths = re.escape(shown_bytes(shown.num_frames * 230_400))
    told = (
        rf"the disk has too little space to dub .*about .* MB for the job's records in .*about {mouths} for the "
        r"rendered mouths.*1 MB of"
    )
    with pytest.raises(StorageFullError, match=told):
        dubber.host.run(job.run(lambda step, *_: steps.append(step)))
    assert steps == []
    assert not job.folder.exists()
    assert list(output.parent.glob("*dub*")) == []


def test_nobody_is_enrolled_from_footage_without_a_face(dubber: Dubber, tmp_path: Path) -> None:
    noise = write_video(tmp_path / "noise.mp4", 30)
    settings = load_settings(GatewaySettings, data_dir=tmp_path / "data", artefacts_url=str(tmp_path / "artefacts"))
    with open_installation(settings) as place:
        request = EnrolRequest(actor_id="nobody", footage=noise, method="dubstage")
        with raised(NoUsableFootageError, match="shows no face", exit_code=11):
            stages, stores, jobs = dubber.host.stages, (place.actors, place.artefacts), tmp_path / "jobs"
            dubber.host.run(create_actor(request, stages, *stores, jobs, on_progress=lambda *_: None))
        assert list(place.actors.list()) == []


def test_the_speech_is_never_the_output(dubstage: Run, carphone: Path, tmp_path: Path) -> None:
    speech = tmp_path / "speech.mp4"
    with av.open(str(SPEECH)) as source, av.open(str(speech), "w") as target:
        sound = target.add_stream("aac", rate=16000, layout="mono")
        for frame in source.decode(audio=0):
            target.mux(sound.encode(frame))
        target.mux(sound.encode())
    before = speech.read_bytes()
    for more in ((), ("--overwrite",)):
        result = dubstage("dub", carphone, "--audio", speech, "-o", speech, *more)
        assert result.returncode == 10, result.stderr
        assert "is the speech itself" in result.stderr
        assert speech.read_bytes() == before


def test_a_file_that_is_no_dub_is_kept(dubstage: Run, carphone: Path, tmp_path: Path) -> None:
    output = write_video(tmp_path / "holiday.mp4", 5)
    before = output.read_bytes()
    result = dubstage("dub", carphone, "--audio", SPEECH, "-o", output)
    assert result.returncode == 10, result.stderr
    assert "--overwrite" in result.stderr
    assert output.read_bytes() == before


@pytest.mark.parametrize("method", ["portrait", "portrait+dubstage"])
def test_headpose_refuses_short_footage(method: str, dubber: Dubber, output: Path, carphone: Path, tmp_path: Path) -> None:
    """Footage too short to learn how a head moves is refused."""
    short = cut(carphone, tmp_path / "short.mkv", 0.0, 0.5)
    with raised(NoUsableFootageError, match=r"frames show the face well enough.*at least 25", exit_code=11):
        dubber(DubRequest(footage=short, speech=SPEECH, output=output, method=method), EnrolOptions())
    assert list(output.parent.iterdir()) == []
