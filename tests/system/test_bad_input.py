"""Tests of a user's mistakes: one clear line, an exit code, nothing half-written, no traceback."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from gateway.actors.create import EnrolRequest, create_actor
from gateway.actors.installation import open_installation
from gateway.dub.choices import EnrolOptions
from gateway.dub.job.dub_job import DubJob
from gateway.dub.request.dub_request import DubRequest
from gateway.settings import GatewaySettings
from services.common.errors import NoUsableFootageError, StorageFullError
from services.common.server.settings import load_settings
from tests.refusals import raised
from tests.system.dubbing import SPEECH, Dubber, cut, write_wav

Run = Callable[..., subprocess.CompletedProcess[str]]


def write_video(path: Path, frames: int, size: int = 128) -> Path:
    """A real video of noise, without a face and without sound."""
    generator = np.random.default_rng(3)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=25)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for _ in range(frames):
            picture = av.VideoFrame.from_ndarray(generator.integers(0, 255, (size, size, 3)).astype(np.uint8))
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


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


def test_a_missing_file_is_named(dubstage: Run, output: Path) -> None:
    assert_fails_well(dubstage("dub", "nowhere.mp4", "-o", output), output, "nowhere.mp4")


def test_a_text_file_is_not_a_video(dubstage: Run, output: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("not a video\n" * 100)
    assert_fails_well(dubstage("dub", text, "--audio", SPEECH, "-o", output), output, "notes.mp4")


def test_a_sound_file_has_no_picture(dubstage: Run, output: Path) -> None:
    assert_fails_well(dubstage("dub", SPEECH, "-o", output), output, "demo_speech.flac", "video")


def test_a_video_without_frames_is_refused(dubstage: Run, output: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.mp4"
    empty.touch()
    assert_fails_well(dubstage("dub", empty, "--audio", SPEECH, "-o", output), output, "empty.mp4")


def test_a_file_cut_short_is_refused(dubstage: Run, output: Path, tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", 30)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert_fails_well(dubstage("dub", cut, "--audio", SPEECH, "-o", output), output, "cut.mp4")


def test_silent_footage_requires_audio(dubstage: Run, output: Path, carphone: Path) -> None:
    """Silent footage without new speech gets an error that tells what to give."""
    assert_fails_well(dubstage("dub", carphone, "-o", output), output, "has no sound", "--audio FILE")


def test_a_missing_output_folder_is_named(dubstage: Run, carphone: Path, tmp_path: Path) -> None:
    missing = tmp_path / "absent" / "dub.mp4"
    result = dubstage("dub", carphone, "--audio", SPEECH, "-o", missing)
    assert result.returncode == 10, result.stderr
    assert "absent" in result.stderr


def test_an_unknown_method_says_which_there_are(dubstage: Run, output: Path, carphone: Path) -> None:
    assert_fails_well(dubstage("dub", carphone, "--audio", SPEECH, "-o", output, "--method", "magic"), output, "dubstage")


def test_an_unknown_actor_says_what_to_run(dubstage: Run, output: Path, carphone: Path) -> None:
    result = dubstage("dub", carphone, "--audio", SPEECH, "-o", output, "--actor", "ada")
    assert_fails_well(result, output, "ada", "dubstage actor create", code=11)


def test_a_deployment_that_requires_consent_refuses_without(dubstage: Run, output: Path, carphone: Path) -> None:
    result = dubstage("dub", carphone, "--audio", SPEECH, "-o", output, DUBSTAGE_REQUIRE_CONSENT="true")
    assert_fails_well(result, output, "consent", "--consent FILE", code=11)


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


def test_full_disk_checked_before_work(dubber: Dubber, carphone: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is too full is foreseen before the work."""
    steps: list[str] = []
    usage = shutil.disk_usage(output.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=(256 << 20) + 1_000_000))
    request = DubRequest(footage=carphone, speech=SPEECH, output=output, method="dubstage")
    job = DubJob(request, dubber.host.stages, dubber.store, dubber.jobs)
    with pytest.raises(
        StorageFullError, match=r"the disk has too little space to dub .*about .* MB for the job's records in .*1 MB of"
    ):
        dubber.host.run(job.run(lambda step, *_: steps.append(step)))
    assert steps == []
    assert job.folder is not None
    assert not job.folder.exists()
    assert list(output.parent.glob("*dub*")) == []


def test_nobody_is_enrolled_from_footage_without_a_face(dubber: Dubber, tmp_path: Path) -> None:
    noise = write_video(tmp_path / "noise.mp4", 30)
    settings = load_settings(GatewaySettings, data_dir=tmp_path / "data", artefacts_url=str(tmp_path / "artefacts"))
    with open_installation(settings) as place:
        request = EnrolRequest(actor_id="nobody", footage=noise, method="dubstage")
        with raised(NoUsableFootageError, match="shows no face", exit_code=11):
            dubber.host.run(
                create_actor(
                    request, dubber.host.stages, place.actors, place.artefacts, tmp_path / "jobs", on_progress=lambda *_: None
                )
            )
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


def test_a_playlist_and_a_pipe_are_no_footage(dubstage: Run, output: Path, carphone: Path, tmp_path: Path) -> None:
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:4,\n{carphone}\n#EXT-X-ENDLIST\n")
    os.mkfifo(tmp_path / "pipe.mp4")
    assert_fails_well(dubstage("dub", tmp_path / "list.m3u8", "-o", output), output, "list.m3u8", "a playlist")
    assert_fails_well(dubstage("dub", tmp_path / "pipe.mp4", "-o", output), output, "pipe.mp4", "a named pipe")
    assert_fails_well(dubstage("dub", carphone, "--audio", tmp_path / "pipe.mp4", "-o", output), output, "a named pipe")


def test_speech_without_a_sample_is_no_silence(dubstage: Run, output: Path, carphone: Path, tmp_path: Path) -> None:
    empty = write_wav(tmp_path / "empty.wav", np.zeros(0), 16000)
    assert_fails_well(dubstage("dub", carphone, "--audio", empty, "-o", output), output, "empty.wav", "no sound in it")


@pytest.mark.parametrize("method", ["portrait", "portrait+dubstage"])
def test_headpose_refuses_short_footage(method: str, dubber: Dubber, output: Path, carphone: Path, tmp_path: Path) -> None:
    """Footage too short to learn how a head moves is refused."""
    short = cut(carphone, tmp_path / "short.mkv", 0.0, 0.5)
    with raised(NoUsableFootageError, match=r"frames show the face well enough.*at least 25", exit_code=11):
        dubber(DubRequest(footage=short, speech=SPEECH, output=output, method=method), EnrolOptions())
    assert list(output.parent.iterdir()) == []
