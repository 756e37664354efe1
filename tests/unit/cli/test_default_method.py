"""Tests of the method that commands take where none is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import dubstage
from gateway.actors.create import EnrolRequest
from gateway.cli import actor as actor_module
from gateway.cli.app import run
from gateway.cli.demo import SPEECH
from gateway.engine import Engine
from services.common.errors import InvalidRequestError


@pytest.fixture
def methods(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Methods of the dubs and enrolments that commands ask for, each of which is then refused."""
    found: list[str] = []

    def checked(self: Engine, spec: Any, files: Any, **_: object) -> None:
        found.append(self.request(spec, files).method)
        raise InvalidRequestError("the method is known", field="method")

    async def create(_: object, request: EnrolRequest) -> None:
        found.append(request.method)

    monkeypatch.setattr(Engine, "checked_request", checked)
    monkeypatch.setattr(actor_module, "run_create", create)
    return found


def test_commands_choose_by_footage(methods: list[str], astronaut: Path, carphone: Path, tmp_path: Path) -> None:
    """`dub`, `plan` and `actor create` dub a picture with `portrait` and a video with `dubstage`."""
    for footage in (str(astronaut), str(carphone)):
        run(["dub", footage, "--audio", str(SPEECH), "-o", str(tmp_path / "out.mp4")])
        run(["plan", footage, "--audio", str(SPEECH)])
        run(["actor", "create", "ann", footage])
    assert methods == ["portrait"] * 3 + ["dubstage"] * 3


def test_named_parts_join_the_default(methods: list[str], astronaut: Path, carphone: Path, tmp_path: Path) -> None:
    """`--renderer` and `--motion` without `--method` change the default of the footage."""
    for footage in (str(astronaut), str(carphone)):
        run(["dub", footage, "--audio", str(SPEECH), "-o", str(tmp_path / "out.mp4"), "--renderer", "everyone"])
        run(["actor", "create", "ann", footage, "--motion", "headpose"])
    assert methods == ["portrait+everyone", "headpose", "dubstage+everyone", "headpose+ugc"]


def test_python_call_chooses_by_footage(methods: list[str], astronaut: Path, carphone: Path, tmp_path: Path) -> None:
    for footage in (astronaut, carphone):
        with pytest.raises(Exception, match="the method is known"):
            dubstage.dub(str(footage), str(SPEECH), str(tmp_path / "out.mp4"))
    assert methods == ["portrait", "dubstage"]


@pytest.mark.parametrize("command", [["dub"], ["actor", "create"]])
def test_help_tells_both_defaults(command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert run([*command, "--help"]) == 0
    assert "dubstage, or portrait for a single picture" in " ".join(capsys.readouterr().out.replace("│", " ").split())
