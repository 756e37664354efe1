"""Tests of the output of `dubstage dub` when the video is written."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer

from dubstage.common.v1 import common_pb2
from gateway.cli.dub import SpokenOutput, show_outcome, spoken_outputs
from gateway.cli.values import sound_against_picture
from gateway.dub.analyse.frame_plan import FramePlan
from gateway.dub.request.dub_request import DubRequest
from services.common.errors import InvalidRequestError
from tests.refusals import raised

REQUEST = DubRequest(footage=Path("plate.mov"), speech=Path("line.wav"), output=Path("video.mp4"), method="dubstage")


def outcome(reason: int = common_pb2.FRAME_REASON_DUBBED, **more: object) -> Any:
    plan = FramePlan(np.full(3, reason, np.int32), np.zeros(3, np.int64), np.ones(3, np.float32))
    figures = {"warnings": [], "plan": plan, "actor": None, "windows_reused": 0, "windows_computed": 1, "undubbed": "", "parts": ()}
    figures["analysis_reused"] = False
    return SimpleNamespace(**figures | {"written": SimpleNamespace(dropped=())} | more)


@pytest.mark.parametrize(
    ("lag", "said"),
    [
        (1, "the sound of the footage comes 1 frame (40 ms) after the picture"),
        (-3, "the sound of the footage comes 3 frames (120 ms) before the picture"),
        (1.25, "the sound of the footage comes 1.25 frames (50 ms) after the picture"),
    ],
)
def test_a_lag_is_told_in_words(lag: float, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert sound_against_picture(lag) == said
    show_outcome(REQUEST, outcome(actor=SimpleNamespace(lag_frames=lag)), REQUEST.output, None)
    assert said in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("actor", [None, SimpleNamespace(lag_frames=None), SimpleNamespace(lag_frames=0)])
def test_no_lag_is_no_line(actor: object, capsys: pytest.CaptureFixture[str]) -> None:
    show_outcome(REQUEST, outcome(actor=actor), REQUEST.output, None)
    assert "picture" not in capsys.readouterr().err


def test_undubbed_video_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    """A video without a dubbed frame ends with an error and its own code."""
    with raised(typer.Exit, exit_code=13):
        show_outcome(
            REQUEST, outcome(common_pb2.FRAME_REASON_NO_FACE, undubbed="none of the 3 frames is dubbed"), REQUEST.output, None
        )
    printed = capsys.readouterr()
    assert printed.out == "video.mp4\n"
    assert printed.err.splitlines()[-1] == "error: none of the 3 frames is dubbed"


def test_lines_of_one_of_several_dubs_name_its_language(capsys: pytest.CaptureFixture[str]) -> None:
    show_outcome(REQUEST, outcome(warnings=["the speech is cut"]), REQUEST.output, None, language="pt-BR")
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        "warning: pt-BR: the speech is cut",
        "pt-BR: 3 of 3 frames dubbed (DUBBED 3)",
        "pt-BR: no consent on record",
    ]
    assert printed.out == "video.mp4\n"


def test_each_language_has_own_outputs() -> None:
    output, report = Path("out/{language}/video.mp4"), Path("reports/{language}")
    assert spoken_outputs(["de=a.wav", "pt-BR=b=c.wav"], "", output, report) == [
        SpokenOutput("de", Path("a.wav"), Path("out/de/video.mp4"), Path("reports/de")),
        SpokenOutput("pt-BR", Path("b=c.wav"), Path("out/pt-BR/video.mp4"), Path("reports/pt-BR")),
    ]


def test_one_speech_is_a_file(tmp_path: Path) -> None:
    """Without {language}, --audio is the name of a file, whatever is in the name."""
    output = tmp_path / "video.mp4"
    assert spoken_outputs(["take=2.wav"], "de", output, None) == [SpokenOutput("de", Path("take=2.wav"), output, None)]
    assert spoken_outputs([], "", output, None) == [SpokenOutput("", None, output, None)]


@pytest.mark.parametrize(
    ("audio", "output", "exists", "said"),
    [
        ("de=a.wav", "video.mp4", "a.wav", "--audio de=a.wav: there is no such file, but a file a.wav"),
        ("take=2.wav", "{language}.mp4", "take=2.wav", "there is no file 2.wav, but a file take=2.wav: give NAME=take=2.wav"),
    ],
)
def test_file_beside_the_mistake_named(
    audio: str, output: str, exists: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(exists).write_bytes(b"RIFF")
    with pytest.raises(InvalidRequestError) as caught:
        spoken_outputs([audio], "", Path(output), None)
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("audio", "language", "output", "report", "said"),
    [
        (["a.wav", "b.wav"], "", "video.mp4", None, "several --audio need {language} in --output"),
        ([], "", "{language}.mp4", None, "give each speech with its language"),
        (["de=a.wav"], "de", "{language}.mp4", None, "and no --language"),
        (["a.wav"], "", "{language}.mp4", None, "NAME=PATH was expected"),
        (["de=a.wav", "de=b.wav"], "", "{language}.mp4", None, "de is given twice"),
        (["de=a.wav", "fr=b.wav"], "", "{language}.mp4", "report", "{language} in --report too"),
        (["de=x.wav", "fr=de.mp4"], "", "{language}.mp4", None, "--audio fr=de.mp4 is the output of de"),
        (["../../x=a.wav"], "", "{language}.mp4", None, "is no language tag"),
    ],
)
def test_unclear_languages_are_refused(audio: list[str], language: str, output: str, report: str | None, said: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        spoken_outputs(audio, language, Path(output), Path(report) if report else None)
    assert said in caught.value.message
