"""The scripts for DaVinci Resolve and Nuke, with stand-ins for the documented methods of these programs and of the command."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest

PLUGINS = Path(__file__).resolve().parents[3] / "gateway" / "plugins"
FRAMES = {"first": 1001, "last": 1250, "origfirst": 1001, "origlast": 1250, "colorspace": "ACES - ACEScg"}


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """File with the arguments and lines of the last call of a command that dubs nothing, and fails for the sound `bad.wav`."""
    called, program = tmp_path / "called", tmp_path / "dubstage"
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\nwords = sys.argv[1:]\n"
        "lines = json.load(open(words[words.index('--lines') + 1])) if '--lines' in words else []\n"
        f"json.dump([words, lines], open({str(called)!r}, 'w'))\n"
        "if 'bad.wav' in str([words, lines]): sys.exit('a warning\\nerror: bad.wav is no sound')\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("DUBSTAGE_COMMAND", str(program))
    return called


def resolve(tmp_path: Path, sound: str = "de.wav", *, inclusive: bool = True) -> MagicMock:
    """Resolve with a clip of 50 frames from frame 100 of plate.mp4, at frame 90000 of a timeline with two video tracks."""
    app = MagicMock()
    project = app.GetProjectManager.return_value.GetCurrentProject.return_value
    timeline = project.GetCurrentTimeline.return_value
    clip = timeline.GetCurrentVideoItem.return_value
    (tmp_path / "plate.mp4").touch()
    properties = {"File Path": str(tmp_path / "plate.mp4"), "FPS": 25.0}
    clip.GetMediaPoolItem.return_value.GetClipProperty.side_effect = properties.get
    clip.GetLeftOffset.return_value, clip.GetDuration.return_value, clip.GetStart.return_value = 100, 50, 90000
    timeline.GetSetting.return_value = "25"
    timeline.GetTrackCount.return_value = 3
    app.Fusion.return_value.RequestFile.return_value = sound and str(tmp_path / sound)
    pool = project.GetMediaPool.return_value
    pool.ImportMedia.side_effect = list

    def append(clips):
        (one,) = clips
        return [MagicMock(**{"GetDuration.return_value": one["endFrame"] - one["startFrame"] + inclusive})]

    pool.AppendToTimeline.side_effect = append
    return app


@pytest.mark.parametrize("inclusive", [True, False])
def test_resolve_puts_dub_on_new_track(tmp_path: Path, command: Path, inclusive: bool) -> None:
    """The speech begins at the clip's first frame. The dub has the same frames at the same place, whatever `endFrame` means."""
    app = resolve(tmp_path, inclusive=inclusive)
    dub = runpy.run_path(str(PLUGINS / "dubstage_resolve.py"))["dub_clip"]
    output = tmp_path / "plate_de.mov"
    assert dub(app) == "plate_de.mov is on track V3"
    words, lines = json.loads(command.read_text())
    assert (words[:2], words[-2:]) == (["dub", str(tmp_path / "plate.mp4")], ["-o", str(output)])
    assert lines == [{"start": 4.0, "speech": str(tmp_path / "de.wav"), "face": "auto"}]
    project = app.GetProjectManager().GetCurrentProject()
    project.GetCurrentTimeline().AddTrack.assert_called_once_with("video")
    ((place,),) = project.GetMediaPool().AppendToTimeline.call_args.args
    assert place == {
        "mediaPoolItem": str(output),
        "startFrame": 100,
        "endFrame": 149 if inclusive else 150,
        "mediaType": 1,
        "trackIndex": 3,
        "recordFrame": 90000,
    }


def test_resolve_names_mistakes(tmp_path: Path, command: Path) -> None:
    dub = runpy.run_path(str(PLUGINS / "dubstage_resolve.py"))["dub_clip"]

    def refuses(app: MagicMock, message: str) -> None:
        with pytest.raises(RuntimeError, match=message):
            dub(app)

    refuses(resolve(tmp_path, "bad.wav"), "^error: bad.wav is no sound$")
    refuses(resolve(tmp_path, ""), "no sound file was chosen")
    app = resolve(tmp_path)
    timeline = app.GetProjectManager().GetCurrentProject().GetCurrentTimeline()
    timeline.GetSetting.return_value = "24"
    refuses(app, "plate.mp4 has 25 frames per second, and the timeline another rate")
    timeline.GetCurrentVideoItem.return_value = None
    refuses(app, "put the playhead on a clip of a video file")


class Node(dict[str, MagicMock]):
    """Node with knobs by name."""

    def __init__(self, kind: str, source: Node | None = None, **knobs: object) -> None:
        super().__init__({name: MagicMock(**{"value.return_value": value}) for name, value in knobs.items()})
        self.kind, self.source = kind, source
        self.xpos = self.ypos = lambda: 0
        self.setXYpos = MagicMock()

    def Class(self) -> str:
        return self.kind

    def input(self, number: int) -> Node | None:
        return self.source


@pytest.fixture
def nuke(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    """The module `nuke`, at 24 frames per second."""
    module = MagicMock()
    module.executeInMainThread.side_effect = lambda call, args: call(*args)
    module.root.return_value = Node("Root", fps=24.0)
    module.nodes.Read.side_effect = lambda file: Node("Read", **dict.fromkeys(FRAMES))
    monkeypatch.setitem(sys.modules, "nuke", module)
    return module


@pytest.mark.parametrize(
    ("file", "footage", "rate"),
    [
        ("p/sh.%04d.exr", "p/sh.1001-1250%04d.exr", ["--rate", "24"]),
        ("p/sh.####.dpx", "p/sh.1001-1250####.dpx", ["--rate", "24"]),
        ("p/sh.mov", "p/sh.mov", []),
    ],
)
def test_nuke_reads_dub(command: Path, nuke: MagicMock, file: str, footage: str, rate: list[str]) -> None:
    """The frames of the Read node are dubbed, and a new Read node has their range and colours."""
    dub = runpy.run_path(str(PLUGINS / "dubstage_nuke.py"))["dub"]
    read = Node("Read", file=file, **FRAMES)
    dub(Node("dubstage", read, audio="de.wav", output="dub/sh.####.exr", options="--actor 'ada b'")).join()
    words, _ = json.loads(command.read_text())
    assert words == ["dub", footage, "--audio", "de.wav", "-o", "dub/sh.####.exr", *rate, "--actor", "ada b"]
    nuke.nodes.Read.assert_called_once_with(file="dub/sh.####.exr")
    nuke.message.assert_not_called()


def test_nuke_names_mistakes(command: Path, nuke: MagicMock) -> None:
    dub = runpy.run_path(str(PLUGINS / "dubstage_nuke.py"))["dub"]
    read = Node("Read", file="sh.mov", **FRAMES)
    knobs = {"audio": "bad.wav", "output": "dub.mov", "options": ""}
    for node, message in (
        (Node("dubstage", None, **knobs), "connect a Read node"),
        (Node("dubstage", read, **{**knobs, "audio": ""}), "choose a sound file and an output"),
        (Node("dubstage", read, **knobs), "error: bad.wav is no sound"),
    ):
        nuke.message.reset_mock()
        dub(node).join()
        nuke.message.assert_called_once_with(message)
    nuke.nodes.Read.assert_not_called()
