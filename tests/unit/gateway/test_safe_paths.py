"""Below a confined folder nothing is opened, made or removed through a symbolic link."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.consent.files import read_consent
from gateway.safe_paths import bounded_bytes, confine, entry_of, make_folder, open_regular, path_below, remove_file
from gateway.transfer import output_file
from services.common.errors import InvalidRequestError


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A confined folder with a link to a folder outside of it, which holds a file."""
    folder = tmp_path / "media"
    folder.mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "video.mp4").write_bytes(b"another's")
    (folder / "linked").symlink_to(tmp_path / "outside")
    confine(folder)
    return folder


@pytest.mark.parametrize("name", ["linked/video.mp4", "video.mp4", "day/../linked/video.mp4"])
def test_a_file_behind_a_link_is_not_read(media: Path, name: str) -> None:
    (media / "video.mp4").symlink_to(media.parent / "outside" / "video.mp4")
    with pytest.raises(OSError, match=r"Not a directory|symbolic links|not a regular file|No such file"):
        bounded_bytes(media / name, 100)


def test_linked_consent_not_read(media: Path) -> None:
    """A consent record behind a link is not read."""
    (media / "consent.json").symlink_to(media.parent / "outside" / "video.mp4")
    with pytest.raises(InvalidRequestError, match=r"consent\.json: cannot be read"):
        read_consent(media / "consent.json")


def test_links_elsewhere_are_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert bounded_bytes(tmp_path / "link", 100) == b"mine"
    handle = open_regular(tmp_path / "link")
    assert handle is not None
    os.close(handle)


def test_missing_parent_folders_made(media: Path, tmp_path: Path) -> None:
    """Folders are made with all that is missing above them."""
    for folder in (media / "a" / "b" / "c", tmp_path / "free" / "a" / "b"):
        make_folder(folder)
        make_folder(folder)
        assert folder.is_dir()


@pytest.mark.parametrize("name", ["linked/new/newer", "linked/new"])
def test_no_folder_is_made_behind_a_link(media: Path, name: str) -> None:
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        make_folder(media / name)
    with pytest.raises(InvalidRequestError, match="cannot be made"):
        output_file(str(media / name / "video.mp4"), media)
    assert [entry.name for entry in (media.parent / "outside").iterdir()] == ["video.mp4"]


def test_linked_file_is_not_removed(media: Path) -> None:
    """A file is removed and one behind a link stays."""
    (media / "video.mp4").write_bytes(b"own")
    remove_file(media / "video.mp4")
    remove_file(media / "video.mp4")
    remove_file(media / "absent" / "video.mp4")
    assert not (media / "video.mp4").exists()
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        remove_file(media / "linked" / "video.mp4")
    assert (media.parent / "outside" / "video.mp4").read_bytes() == b"another's"


def test_stored_path_stays_in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stored path names an entry of a folder or nothing."""
    jobs, outside = tmp_path / "data" / "jobs", tmp_path / "outside"
    for folder in (jobs / "1", outside / "1"):
        folder.mkdir(parents=True)
    (jobs / "link").symlink_to(outside / "1")
    (tmp_path / "moved").symlink_to(tmp_path / "data")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    monkeypatch.chdir(tmp_path)
    for same in (jobs / "1", jobs / "gone", "data/jobs/1", tmp_path / "moved" / "jobs" / "1", jobs / "2" / ".." / "1"):
        assert entry_of(jobs, str(same)) == jobs / Path(same).name, same
    assert entry_of(Path("moved/jobs"), str(jobs / "1")) == Path("moved/jobs/1")
    others = (outside / "1", jobs, jobs / "..", jobs / "1" / "..", jobs / ".." / ".." / "outside" / "1", jobs / "1" / "inner")
    for other in (*map(str, others), f"{jobs}/link", f"{jobs}/.", f"{jobs}/1\0", "", "/", ".", "1", f"{tmp_path}/circle/1"):
        assert entry_of(jobs, other) is None, other


def test_names_stay_below_their_folder(tmp_path: Path) -> None:
    """A name from data is a path below a folder, or an error."""
    assert path_below(tmp_path, "dubs/de", field="output") == tmp_path / "dubs" / "de"
    assert path_below(tmp_path, "a..b.mov", field="output") == tmp_path / "a..b.mov"
    for name in ("", ".", "/etc", "..", "../x", "a/../../x", "a/..", "a\0b"):
        with pytest.raises(InvalidRequestError, match="is no name of a file in") as caught:
            path_below(tmp_path, name, field="output")
        assert caught.value.field == "output"
