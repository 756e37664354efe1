"""Tests of entity references in manifests: they become locations, or mistakes that name row, field and reference."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.batch import assets
from gateway.batch.assets import resolve_references
from gateway.batch.manifest import manifest_or_mistakes
from gateway.cli.app import run
from services.common.errors import BackendUnavailableError, InvalidRequestError
from tests.unit.batch.asset_library import MANAGER, write_library
from tests.unit.batch.rows import read_manifest

pytest.importorskip("openassetio", reason="OpenAssetIO has no wheels for this machine")

NAME = "the asset manager Basic Asset Library 📖"
Library = Callable[..., Path]
FAILING = """
from openassetio.pluginSystem import PythonPluginSystemManagerPlugin
from openassetio_manager_bal.BasicAssetLibraryInterface import BasicAssetLibraryInterface


class Library(BasicAssetLibraryInterface):
    def resolve(self, *_):
        raise ConnectionError("the asset server does not answer")


class openassetioPlugin(PythonPluginSystemManagerPlugin):
    identifier = staticmethod(lambda: "org.example.offline")
    interface = staticmethod(Library)
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    """Writes a library of assets, whose manager all programs with OpenAssetIO use then."""

    def write(manager: str = MANAGER, **assets: str | dict[str, Any] | None) -> Path:
        config = write_library(tmp_path, assets, manager=manager)
        monkeypatch.setenv("OPENASSETIO_DEFAULT_CONFIG", str(config))
        return config

    return write


def manifest(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "night.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def row(shot_id: str = "a", footage: str = "bal:///plate", **more: Any) -> dict[str, Any]:
    return {"id": shot_id, "footage": footage, "output": f"out/{shot_id}.mov", **more}


def problem(place: str) -> str:
    return resolve_references([place]).problems[place]


def test_every_file_to_read_may_be_a_reference(library: Library, tmp_path: Path) -> None:
    """References stand in rows, in lines, in files of lines and in defaults. Their locations count for the batch."""
    library(plate="$bal_library_dir_url/my%20plate%25.mov", line="$bal_library_dir_url/de.wav", ann="$bal_library_dir_url/ann.json")
    (tmp_path / "my plate%.mov").write_bytes(b"video")
    (tmp_path / "de.wav").write_bytes(b"sound")
    record = {"subject": "Ann", "granted_by": "Ann", "scope": "one video", "date": "2026-02-01", "reference": "folder 3"}
    (tmp_path / "ann.json").write_text(json.dumps(record))
    (tmp_path / "lines.json").write_text(json.dumps([{"start": 0, "speech": "bal:///line", "face": 0}]))
    rows = (
        row("a", speech="bal:///line"),
        row("b", footage="my plate%.mov", lines=[{"start": 0, "speech": "bal:///line?v=1", "face": 0}]),
        row("c", lines="lines.json"),
    )
    path = manifest(tmp_path, {"defaults": {"consent": "bal:///ann"}}, *rows)
    first, second, third = read_manifest(path, check_files=False).shots
    plate, sound = str(tmp_path / "my plate%.mov"), str(tmp_path / "de.wav")
    assert (first.dub.footage_uri, first.dub.speech_uri, first.dub.consent_uri) == (plate, sound, str(tmp_path / "ann.json"))
    assert (second.dub.footage_uri, second.dub.lines[0].speech_uri) == (plate, sound)
    assert (third.dub.footage_uri, third.dub.lines[0].speech_uri) == (plate, sound)
    plain = row("a", footage="my plate%.mov", speech="de.wav", consent="ann.json")
    again = read_manifest(manifest(tmp_path, plain))
    assert again.sha256 == read_manifest(manifest(tmp_path, {"defaults": {"consent": "bal:///ann"}}, rows[0])).sha256


def test_mistakes_name_row_field_and_reference(library: Library, tmp_path: Path) -> None:
    """Each asset without a version or a location is one mistake. Assets of a row with a wrong word are looked up later."""
    library(plate="$bal_library_dir_url/plate.mov", shot=None)
    (tmp_path / "plate.mov").write_bytes(b"video")
    path = manifest(
        tmp_path,
        row("a", speech="bal:///de/line", face="the left one"),
        row("b", speech="bal:///plate?v=7"),
        row("c", footage="bal:///shot"),
        row("d", lines=[{"start": 0, "speech": "bal:///none", "face": 0}]),
    )
    expected = [
        f"{path}:1: face: takes auto",
        f"{path}:2: speech: 'bal:///plate?v=7' has no file in {NAME}: Entity 'plate' does not have a version 7",
        f"{path}:3: footage: 'bal:///shot' has no file in {NAME}: the asset has no location",
        f"{path}:4: lines[0].speech: 'bal:///none' has no file in {NAME}: Entity 'none' not found",
    ]
    for check_files in (True, False):
        found = manifest_or_mistakes(path, check_files=check_files)
        assert isinstance(found, tuple)
        assert len(found) == len(expected)
        for text, beginning in zip(found, expected, strict=True):
            assert text.startswith(beginning)


def test_locations_are_urls(library: Library) -> None:
    """A URL of a store or a web server stays a URL. A location that names no file of this machine is refused."""
    library(
        object="s3://plates/my%20plate.mov",
        page="https://media.example.com/my%20plate.mov",
        share="file://server/share/plate.mov",
        path="/plates/plate.mov",
        frames={"location": "file:///plates/sh%20030.%7Bframe:04d%7D.exr", "isTemplated": True},
        braces="file:///plates/%7Bframe%7D.mov",
        stereo={"location": "file:///plates/sh030.{view}.{frame}.exr", "isTemplated": True},
    )
    names = ("object", "page", "frames", "braces")
    assert resolve_references([f"bal:///{name}" for name in names]).locations == {
        "bal:///object": "s3://plates/my plate.mov",
        "bal:///page": "https://media.example.com/my%20plate.mov",
        "bal:///frames": "/plates/sh 030.%04d.exr",
        "bal:///braces": "/plates/{frame}.mov",
    }
    assert "Unsupported non-local file ('file://server/share/plate.mov')" in problem("bal:///share")
    assert "the location '/plates/plate.mov' is no URL" in problem("bal:///path")
    assert "has the variable view, and only frame is known" in problem("bal:///stereo")


def test_videos_are_written_to_no_reference(library: Library, tmp_path: Path) -> None:
    library(plate="$bal_library_dir_url/plate.mov")
    (tmp_path / "plate.mov").write_bytes(b"video")
    path = manifest(tmp_path, {**row(), "output": "bal:///dub.mov"})
    assert manifest_or_mistakes(path) == (f"{path}:1: output: 'bal:///dub.mov' cannot be used: give a path or s3://BUCKET/KEY",)


def test_references_need_a_manager_and_its_package(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a manager or the package, rows without entity references are read as ever, others are refused with the remedy."""
    config = library(plate="$bal_library_dir_url/plate.mov")
    (tmp_path / "plate.mov").write_bytes(b"video")
    plain, referring = row("a", footage="plate.mov"), row("b")
    monkeypatch.setenv("DUBSTAGE_DATA_DIR", str(tmp_path / "data"))

    def refusal() -> str:
        assert len(read_manifest(manifest(tmp_path, plain)).shots) == 1
        assert run(["batch", "submit", str(manifest(tmp_path, plain, referring)), "--engine", "farm", "--no-check"]) == 10
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1, shown
        assert "night.jsonl:2: footage: 'bal:///plate' cannot be " in shown
        return shown

    monkeypatch.setitem(sys.modules, "openassetio", None)
    assert "pip install 'dubstage-suite[assets]'" in refusal()
    monkeypatch.delenv("OPENASSETIO_DEFAULT_CONFIG")
    assert "for an entity reference, set OPENASSETIO_DEFAULT_CONFIG to the file" in refusal()
    monkeypatch.undo()
    monkeypatch.setenv("OPENASSETIO_DEFAULT_CONFIG", str(config))
    assert len(read_manifest(manifest(tmp_path, plain, referring)).shots) == 2


def test_a_manager_that_cannot_be_used_is_named(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = library(manager="org.example.nobody")
    nobody = config.read_text()
    no_library = nobody.replace("org.example.nobody", MANAGER).replace("library.json", "none.json")
    for text, told in (
        (nobody, "No plug-in registered with the identifier 'org.example.nobody'"),
        ("[manager", "Error parsing config file"),
        (no_library, "No such file or directory"),
    ):
        config.write_text(text)
        with pytest.raises(InvalidRequestError) as caught:
            resolve_references(["bal:///plate"])
        assert caught.value.message.startswith(f"OPENASSETIO_DEFAULT_CONFIG={config}: the asset manager cannot be loaded: ")
        assert told in caught.value.message
    monkeypatch.setenv("OPENASSETIO_DEFAULT_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(InvalidRequestError, match="file does not exist"):
        resolve_references(["bal:///plate"])


@pytest.fixture
def plug_in(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a plug-in of OpenAssetIO from a text, and configures its manager `org.example.offline`."""

    def make(text: str) -> None:
        library(manager="org.example.offline")
        (tmp_path / "plugins" / "offline").mkdir(parents=True)
        (tmp_path / "plugins" / "offline" / "__init__.py").write_text(text)
        monkeypatch.setenv("OPENASSETIO_PLUGIN_PATH", str(tmp_path / "plugins"))

    return make


def test_a_manager_that_gives_no_answer_is_left(plug_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A manager that waits for its own server for ever holds up no program."""
    waiting = FAILING.replace('raise ConnectionError("the asset server does not answer")', "__import__('time').sleep(30)")
    assert waiting != FAILING
    plug_in(waiting)
    monkeypatch.setattr(assets, "DEADLINE_S", 0.5)
    with pytest.raises(BackendUnavailableError, match=r"OPENASSETIO_DEFAULT_CONFIG=.* gave no answer in 0\.5 s"):
        resolve_references(["bal:///plate"])


def test_a_manager_that_fails_is_named(library: Library, plug_in: Callable[[str], None], tmp_path: Path) -> None:
    """An error in the manager's own code may pass. A manager without the ability to resolve is a wrong configuration."""
    plug_in(FAILING)
    assert resolve_references(["/plates/plate.mov"]) == ({}, {})
    with pytest.raises(BackendUnavailableError, match=f"{NAME} fails: .*the asset server does not answer"):
        resolve_references(["bal:///plate"])
    library()
    able = ["entityReferenceIdentification", "managementPolicyQueries", "entityTraitIntrospection"]
    (tmp_path / "library.json").write_text(json.dumps({"entities": {}, "capabilities": able}))
    with pytest.raises(InvalidRequestError, match=f"{NAME}: .*resol"):
        resolve_references(["bal:///plate"])
