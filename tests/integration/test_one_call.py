"""`dubstage.dub` in this process and at a gateway: the same result, the same errors."""

import asyncio
import subprocess
import sys
from pathlib import Path

import av
import pytest

import dubstage
from gateway.dub.job.dub_job import DubJob
from services.common.errors import BackendUnavailableError
from tests.failing import fail_once
from tests.integration.servers import RunningGateway, StartGateway
from tests.integration.videos import NUM_FRAMES, OTHER, Media
from tests.refusals import raised

OUTPUT = "one_call.mp4"


def pictures(path: Path) -> list[bytes]:
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24").tobytes() for frame in video.decode(video=0)]


@pytest.fixture
def served(start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch) -> RunningGateway:
    running = start_gateway(watermark=False)
    monkeypatch.setenv("DUBSTAGE_GATEWAY", running.server.address)
    return running


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of a command line without servers."""
    monkeypatch.delenv("DUBSTAGE_GATEWAY", raising=False)
    monkeypatch.setenv("DUBSTAGE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("DUBSTAGE_WATERMARK", "false")


@pytest.mark.long
def test_same_video_near_and_far(served: RunningGateway, alone: None, media: Media, tmp_path: Path) -> None:
    """A dub in this process and at a gateway have the same pictures and the same figures."""
    steps: list[str] = []
    far = dubstage.dub(
        OTHER,
        media.speech.name,
        OUTPUT,
        address=served.server.address,
        personalize=False,
        progress=lambda step, done, total: steps.append(step),
    )
    assert "dub" in steps
    steps.clear()

    async def in_a_notebook() -> dubstage.DubbedVideo:
        # A notebook calls from within a running event loop.
        return dubstage.dub(
            media.root / OTHER,
            media.speech,
            tmp_path / OUTPUT,
            personalize=False,
            report=tmp_path / "report",
            progress=lambda step, done, total: steps.append(step),
        )

    near = asyncio.run(in_a_notebook())
    assert {"track", "dub", "report"} <= set(steps)
    assert near.report == tmp_path / "report" / "index.html"
    assert near.report.is_file()
    assert (near.frames, near.dubbed, near.undubbed) == (NUM_FRAMES - 8, NUM_FRAMES - 8, "")
    assert (near.frames, near.dubbed, near.reasons, near.warnings) == (far.frames, far.dubbed, far.reasons, far.warnings)
    assert pictures(tmp_path / OUTPUT) == pictures(media.root / OUTPUT)


def test_stdout_is_the_programs(alone: None, media: Media, tmp_path: Path) -> None:
    """A program that dubs finds nothing in its standard output that it did not print."""
    arguments = [str(media.root / OTHER), str(media.speech), str(tmp_path / OUTPUT)]
    program = f"import dubstage; print(dubstage.dub(*{arguments}, personalize=False).dubbed)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=300)
    assert found.stdout == f"{NUM_FRAMES - 8}\n"


def test_files_travel(served: RunningGateway, media: Media, tmp_path: Path) -> None:
    """A gateway that shares no disk with the caller gets the files and sends the video, and keeps no copy."""
    there = sorted(media.root.rglob("*"))
    here = tmp_path / "here"
    here.mkdir()
    for source, name in ((media.root / OTHER, "video.mp4"), (media.speech, "speech.wav")):
        (here / name).write_bytes(source.read_bytes())
    steps: list[str] = []
    video = dubstage.dub(
        here / "video.mp4",
        here / "speech.wav",
        here / "out.mkv",
        transfer=True,
        personalize=False,
        progress=lambda step, done, total: steps.append(step),
    )
    assert (video.output, video.dubbed) == (str(here / "out.mkv"), NUM_FRAMES - 8)
    assert len(pictures(here / "out.mkv")) == NUM_FRAMES - 8
    assert {"upload", "dub", "download"} <= set(steps)
    assert sorted(path.name for path in here.iterdir()) == ["out.mkv", "out.mkv.c2pa", "speech.wav", "video.mp4"]
    with raised(dubstage.Error, reason="MEDIA_UNSUPPORTED"):
        dubstage.dub(here / "speech.wav", here / "speech.wav", here / "never.mp4", transfer=True)
    assert not (here / "never.mp4").exists()
    assert [path for path in sorted(media.root.rglob("*")) if path not in there and path.name != "uploads"] == []


def test_same_errors_near_and_far(served: RunningGateway, alone: None, media: Media, tmp_path: Path) -> None:
    """A mistake has the same reason and code in this process and at a gateway."""
    for options in ({"face": "nobody"}, {"method": "no-such"}, {"actor_id": "nobody"}, {"seed": -1}, {"codec": "divx"}):
        found = []
        for address, folder in ((served.server.address, Path()), ("", media.root)):
            with pytest.raises(dubstage.Error) as caught:
                dubstage.dub(
                    folder / media.footage.name,
                    folder / media.speech.name,
                    (tmp_path if address == "" else Path()) / OUTPUT,
                    address=address,
                    overwrite=True,
                    **options,  # type: ignore[arg-type]
                )
            found.append((caught.value.reason, caught.value.code, caught.value.retryable))
        assert found[0] == found[1], options


@pytest.mark.long
def test_failed_cleanup_fails_no_dub(
    served: RunningGateway, alone: None, media: Media, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dub whose folder cannot be removed succeeds: the video is written."""
    for address, folder, output in ((served.server.address, Path(), Path()), ("", media.root, tmp_path)):
        fail_once(monkeypatch, DubJob, "discard", BackendUnavailableError("the database restarts"))
        made = dubstage.dub(
            folder / OTHER, folder / media.speech.name, output / "kept_folder.mp4", address=address, personalize=False
        )
        assert made.dubbed > 0
    assert [(root / "kept_folder.mp4").is_file() for root in (media.root, tmp_path)] == [True, True]


def test_progress_error_cancels(served: RunningGateway, long_footage: str, media: Media) -> None:
    """An error of the caller's callback ends the operation at the gateway."""

    def fail(step: str, done: int, total: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        dubstage.dub(long_footage, media.speech.name, "cancelled.mp4", personalize=False, progress=fail)
    with served.connect() as connection:
        from dubstage.client import gateway

        (state,) = gateway.list_operations(connection)
        with pytest.raises(dubstage.Error) as caught:
            gateway.Operation(connection, state.name, gateway.DUB).wait(timeout_s=120)
    assert caught.value.code == "CANCELLED"
    assert not (media.root / "cancelled.mp4").exists()
