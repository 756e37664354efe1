"""Options of image sequences, and work on frames that is cancelled."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from gateway.dub.request.dub_request import DubRequest
from gateway.dub.request.sequences import check_sequence_options, frame_by_frame, sequence_settings, with_files
from gateway.media.choices import OcioSettings
from gateway.media.sequences import OnFrame
from services.common.errors import InvalidRequestError

NOTHING = {"rate": "", "sound": None, "colour": OcioSettings()}


def test_settings_of_a_sequence() -> None:
    found = sequence_settings(Path("a.%04d.exr"), rate="24", sound=None, colour=OcioSettings(config="show.ocio", view="Film"))
    assert found is not None
    assert found.rate == 24
    assert found.colour == OcioSettings(config="show.ocio", view="Film")


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"rate": "24"}, "rate"),
        ({"sound": Path("a.wav")}, "footage_sound"),
        ({"colour": OcioSettings(colourspace="ACEScg")}, "input_colourspace"),
    ],
)
def test_options_of_sequences_are_refused_for_videos(given: dict[str, object], option: str) -> None:
    assert sequence_settings(Path("a.mov"), **NOTHING) is None
    with pytest.raises(InvalidRequestError, match=f"{option} is for image sequences, and a.mov is none"):
        sequence_settings(Path("a.mov"), **{**NOTHING, **given})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"codec": "ffv1"}, "leave codec out"),
        ({"fit": "pad"}, "leave fit pad out"),
        ({"method": "portrait"}, "choose another method"),
    ],
)
def test_options_that_sequences_do_not_take(given: dict[str, str], said: str) -> None:
    check_sequence_options(fit="cut", method="dubstage", codec=None)
    with pytest.raises(InvalidRequestError, match=said):
        check_sequence_options(**{"fit": "", "method": None, "codec": None, **given})


def test_request_for_the_video() -> None:
    asked = DubRequest(footage=Path("a.%04d.exr"), speech=Path("de.wav"), output=Path("b.%04d.exr"), method="dubstage")
    found = with_files(asked, Path("a.mp4"), Path("b.mp4"))
    assert (found.footage, found.output, found.codec, found.speech) == (Path("a.mp4"), Path("b.mp4"), "ffv1", Path("de.wav"))


async def test_cancelled_work_ends_with_its_frame() -> None:
    """A cancelled task waits until the thread has ended, and the thread ends with the next frame."""
    begun, ended = threading.Event(), threading.Event()

    def work(*, on_frame: OnFrame) -> None:
        try:
            for done in range(10_000):
                begun.set()
                on_frame(done, 10_000)
                threading.Event().wait(0.01)
        finally:
            ended.set()

    task = asyncio.create_task(frame_by_frame(work, lambda *_: None))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
