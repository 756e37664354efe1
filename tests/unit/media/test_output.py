"""Tests of output files: no other file is ever overwritten, and no hidden file stays."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.media.encoders import WriteSettings
from gateway.media.output import MARK, OutputFile, check_output_file, commit_with, remove_leftovers
from gateway.media.probe import probe
from gateway.media.writer import VideoWriter
from gateway.safe_paths import confine
from services.common.errors import InvalidRequestError, WorkCancelledError
from tests.unit.media.made_footage import Clip, copied, make_clip, make_sound, tone


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _fill(file: OutputFile, content: bytes) -> None:
    Path(str(file.target()).removeprefix("file:")).write_bytes(content)


def _write(output: Path, content: bytes = b"new", *, overwrite: bool = False) -> None:
    file = OutputFile(output, overwrite=overwrite)
    _fill(file, content)
    commit_with(file, None)


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    output = tmp_path / "video.mp4"
    file = OutputFile(output)
    _fill(file, b"half")
    assert not output.exists()
    assert len(_names(tmp_path)) == 1
    commit_with(file, None)
    assert (_names(tmp_path), output.read_bytes()) == (["video.mp4"], b"half")
    file.discard()
    assert output.exists()


def test_temporary_names_differ_and_are_created_anew(tmp_path: Path) -> None:
    seen = set()
    for _ in range(8):
        file = OutputFile(tmp_path / "video.mp4")
        seen.update(_names(tmp_path))
        file.discard()
    assert len(seen) == 8


@pytest.mark.parametrize("letters", ["x" * 251 + ".mp4", "ü" * 125 + "x.mp4"])
def test_the_longest_name_can_be_written(tmp_path: Path, letters: str) -> None:
    assert len(os.fsencode(letters)) == 255
    info = probe(make_clip(tmp_path / "clip.mp4"))
    copied(info, tmp_path / letters)
    assert probe(tmp_path / letters).video.num_frames == 12
    with pytest.raises(InvalidRequestError, match=r"256 bytes .* 255"):
        VideoWriter(tmp_path / f"y{letters}", info)


def _leave(folder: Path, output: str, *, days: float = 0.0) -> Path:
    """Write the files that a killed run leaves."""
    before = set(folder.iterdir())
    file = OutputFile(folder / output)
    (name,) = set(folder.iterdir()) - before
    copy = name.read_bytes()
    file.discard()
    name.write_bytes(copy)
    os.utime(name, (time.time() - days * 86400,) * 2)
    return name


def test_killed_runs_leftovers_removed(tmp_path: Path) -> None:
    """Leftovers of killed runs are removed if they belong to this output or are old."""
    same, other, old = _leave(tmp_path, "a.mp4"), _leave(tmp_path, "b.mp4"), _leave(tmp_path, "c.mp4", days=1.1)
    foreign = tmp_path / ".dubstage-notes.partial"
    foreign.touch()
    os.utime(foreign, (0, 0))
    OutputFile(tmp_path / "a.mp4").discard()
    assert not same.exists()
    assert not old.exists()
    assert set(tmp_path.iterdir()) == {other, foreign}


def test_leftovers_can_be_removed_without_writing(tmp_path: Path) -> None:
    left = _leave(tmp_path, "a.mp4")
    (tmp_path / "a.mp4").write_text("a video of somebody else")
    other = _leave(tmp_path, "b.mp4")
    remove_leftovers(tmp_path / "a.mp4")
    assert not left.exists()
    assert set(tmp_path.iterdir()) == {other, tmp_path / "a.mp4"}


def test_what_a_living_job_writes_stays(tmp_path: Path) -> None:
    first = OutputFile(tmp_path / "a.mp4")
    (held,) = tmp_path.iterdir()
    os.utime(held, (0, 0))
    with pytest.raises(InvalidRequestError, match=r"a\.mp4 is being written by another job"):
        OutputFile(tmp_path / "a.mp4")
    OutputFile(tmp_path / "b.mp4").discard()
    _fill(first, b"whole")
    commit_with(first, None)
    assert _names(tmp_path) == ["a.mp4"]


def test_takeover_stops_paused_process(tmp_path: Path) -> None:
    """A process that takes over a job removes the files of the paused process, which cannot finish then."""
    paused, other = OutputFile(tmp_path / "a.mp4", overwrite=True), OutputFile(tmp_path / "b.mp4")
    _fill(paused, b"of the paused process")
    following = OutputFile(tmp_path / "a.mp4", takes_over=True)
    _fill(following, b"whole")
    commit_with(following, None)
    with pytest.raises(FileNotFoundError):
        commit_with(paused, None)
    paused.discard()
    other.discard()
    assert _names(tmp_path) == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == b"whole"


def _video_with_sidecar(folder: Path) -> tuple[OutputFile, Callable[[OutputFile], OutputFile]]:
    """Return a finished video, and what makes its sidecar. Video and sidecar of an earlier run are there."""
    for name in ("a.mkv", "a.mkv.c2pa"):
        (folder / name).write_bytes(b"old")
    video = OutputFile(folder / "a.mkv", overwrite=True)
    _fill(video, b"new")

    def seal(_: OutputFile) -> OutputFile:
        sidecar = OutputFile(folder / "a.mkv.c2pa", overwrite=True)
        _fill(sidecar, b"new")
        return sidecar

    return video, seal


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_video_and_sidecar_replaced(tmp_path: Path) -> None:
    """A video and its sidecar replace an earlier pair."""
    video, seal = _video_with_sidecar(tmp_path)
    commit_with(video, seal)
    assert _contents(tmp_path) == {"a.mkv": b"new", "a.mkv.c2pa": b"new"}


@pytest.mark.parametrize("has_sidecar", [True, False])
def test_forbidden_video_keeps_earlier(tmp_path: Path, has_sidecar: bool) -> None:
    """A video that may not be shown any more leaves the earlier one."""
    video, seal = _video_with_sidecar(tmp_path)
    sealed: list[bool] = []

    def refuse() -> None:
        sealed.append(True)
        raise WorkCancelledError("the consent has ended")

    with pytest.raises(WorkCancelledError):
        commit_with(video, seal if has_sidecar else None, refuse)
    video.discard()
    assert sealed
    assert _contents(tmp_path) == {"a.mkv": b"old", "a.mkv.c2pa": b"old"}


@pytest.mark.parametrize("has_sidecar", [True, False])
def test_file_appearing_during_check_stays(tmp_path: Path, has_sidecar: bool) -> None:
    """A file that appears while the video is checked stays."""
    video, sidecar = OutputFile(tmp_path / "a.mkv"), OutputFile(tmp_path / "a.mkv.c2pa")
    appearing = tmp_path / ("a.mkv.c2pa" if has_sidecar else "a.mkv")
    for file in (video, sidecar):
        _fill(file, b"new")
    with pytest.raises(InvalidRequestError, match=r"a\.mkv"):
        commit_with(video, lambda _: sidecar if has_sidecar else None, lambda: appearing.write_bytes(b"mine") and None)
    for file in (video, sidecar):
        file.discard()
    assert _contents(tmp_path) == {appearing.name: b"mine"}


def test_unfinished_video_keeps_earlier_pair(tmp_path: Path) -> None:
    """A video that cannot be finished leaves the earlier pair."""
    video, seal = _video_with_sidecar(tmp_path)
    next(tmp_path.glob(".dubstage-*")).unlink()
    with pytest.raises(FileNotFoundError):
        commit_with(video, seal)
    video.discard()
    assert _contents(tmp_path) == {"a.mkv": b"old", "a.mkv.c2pa": b"old"}


@pytest.mark.parametrize("earlier", [{"a.mkv": b"old", "a.mkv.c2pa": b"old"}, {"a.mkv": b"old"}])
def test_failed_rename_keeps_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: dict[str, bytes]) -> None:
    """A video that cannot be renamed leaves what was there."""
    video, seal = _video_with_sidecar(tmp_path)
    for name in {"a.mkv", "a.mkv.c2pa"} - set(earlier):
        (tmp_path / name).unlink()
    replace = os.replace

    def failing(source: str, target: str, **folders: int) -> None:
        if target == "a.mkv":
            raise OSError(errno.EIO, "Input/output error")
        replace(source, target, **folders)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="Input/output error"):
        commit_with(video, seal)
    video.discard()
    assert _contents(tmp_path) == earlier


def _link(path: Path) -> None:
    target = path.with_name("notes.txt")
    target.write_text("notes")
    path.symlink_to(target)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_link, "is a symbolic link"),
        (lambda path: path.symlink_to(path), "is a symbolic link"),
        (lambda path: path.symlink_to("nowhere"), "is a symbolic link"),
        (os.mkfifo, "is a named pipe"),
        (Path.mkdir, "is a folder"),
    ],
)
def test_only_files_are_replaced(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    output = tmp_path / "video.mp4"
    make(output)
    before = _names(tmp_path)
    for overwrite in (False, True):
        for refuse in (check_output_file, OutputFile):
            with pytest.raises(InvalidRequestError, match=rf"video\.mp4 {words}"):
                refuse(output, overwrite=overwrite)
    assert _names(tmp_path) == before


def test_inputs_are_never_the_output(tmp_path: Path) -> None:
    info = probe(make_clip(tmp_path / "clip.mp4", Clip(comment=f"({MARK})")))
    speech = make_sound(tmp_path / "speech.mp4", tone(16000, 16000), 16000, "aac")
    os.link(speech, tmp_path / "again.mp4")
    for name, words in (("clip.mp4", "footage itself"), ("speech.mp4", "speech itself"), ("again.mp4", "speech itself")):
        with pytest.raises(InvalidRequestError, match=words):
            VideoWriter(tmp_path / name, info, inputs=[("the speech itself", speech)], settings=WriteSettings(overwrite=True))


def test_overwrite_own_or_allowed(tmp_path: Path) -> None:
    """A file is replaced if dubstage wrote it or the user says so."""
    made = make_clip(tmp_path / "dubbed.mp4", Clip(comment=f"The mouth in this video is synthetic ({MARK}); no consent on record."))
    foreign = make_clip(tmp_path / "holiday.mp4", Clip(comment="summer"))
    notes = tmp_path / "notes.mp4"
    notes.write_text("no video")
    _write(made)
    for path, refuse in ((foreign, check_output_file), (notes, OutputFile)):
        with pytest.raises(InvalidRequestError, match=r"exists and is no video of dubstage; .*with overwrite"):
            refuse(path)
        _write(path, overwrite=True)
    assert [path.read_bytes() for path in (made, foreign, notes)] == [b"new"] * 3


def test_file_appearing_during_write_stays(tmp_path: Path) -> None:
    """A file that appears while the video is written stays."""
    output = tmp_path / "video.mp4"
    file = OutputFile(output)
    output.write_text("what somebody else saved meanwhile")
    with pytest.raises(InvalidRequestError, match="exists and is no video of dubstage"):
        commit_with(file, None)
    file.discard()
    assert (_names(tmp_path), output.read_text()) == (["video.mp4"], "what somebody else saved meanwhile")


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    (folder / "day").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    confine(folder)
    return folder


def test_link_instead_of_folder(media: Path) -> None:
    """A link put in place of a folder leads nowhere."""
    outside = media.parent / "outside"
    shutil.rmtree(media / "day")
    (media / "day").symlink_to(outside)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        OutputFile(media / "day" / "video.mp4")
    assert _names(outside) == []


def test_exchanged_folder_changes_nothing(media: Path) -> None:
    """A folder exchanged while the video is written changes nothing."""
    outside = media.parent / "outside"
    file = OutputFile(media / "day" / "video.mp4")
    _fill(file, b"whole")
    (media / "day").rename(media / "moved")
    (media / "day").symlink_to(outside)
    commit_with(file, None)
    assert (_names(outside), _names(media / "moved")) == ([], ["video.mp4"])


def test_temporary_file_link_not_followed(media: Path) -> None:
    """A temporary file exchanged for a link is not written through."""
    victim = media.parent / "outside" / "victim"
    victim.write_text("mine")
    file = OutputFile(media / "video.mp4")
    (partial,) = media.glob(".dubstage-*")
    partial.unlink()
    partial.symlink_to(victim)
    _fill(file, b"whole")
    with pytest.raises(InvalidRequestError, match="was exchanged"):
        commit_with(file, None)
    file.discard()
    assert victim.read_text() == "mine"
    assert not (media / "video.mp4").exists()
