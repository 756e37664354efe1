"""Names that callers give: what lies in the media folder, and nothing else, then and later."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.api.media_folder import MediaFolder
from gateway.media.output_file import OutputFile
from gateway.media.probe import probe
from services.common.errors import InvalidRequest, MediaUnsupported
from tests.unit.media.made_footage import make_clip


@pytest.fixture
def media(tmp_path: Path) -> MediaFolder:
    (tmp_path / "media" / "day").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    make_clip(tmp_path / "media" / "day" / "clip.mp4")
    make_clip(tmp_path / "outside" / "secret.mp4")
    return MediaFolder(tmp_path / "media")


@pytest.mark.parametrize("uri", ["day/clip.mp4", "file:///{root}/day/clip.mp4", "/{root}/day/clip.mp4"])
def test_files_in_the_folder_are_found(tmp_path: Path, media: MediaFolder, uri: str) -> None:
    root = tmp_path / "media"
    assert media.source(uri.replace("/{root}", str(root)), "footage_uri") == root / "day" / "clip.mp4"
    assert media.output("day/new.mp4", "output_uri") == root / "day" / "new.mp4"


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("", "name a file"),
        ("a\0b.mp4", "name a file"),
        ("day/../../outside/secret.mp4", "'..'"),
        ("/etc/passwd", "outside of the media folder"),
        ("http://host/clip.mp4", "cannot be read: give a file:/// URL"),
        ("file://[x", "is no URL"),
        ("file://host/clip.mp4", "cannot be read: give a file:/// URL"),
        ("x" * 5000, "5000 characters, 4096 at most"),
        ("day/" + "x" * 300 + ".mp4", "more than 255 bytes"),
        (r"C:\films\clip.mp4", "is a path of Windows"),
        ("/".join(["x" * 200] * 20) + "/a.mp4", "more bytes than the path"),
        ("/".join(["é" * 100] * 30) + "/a.mp4", "more bytes than the path"),
        ("C:/films/clip.mp4", "is a path of Windows"),
        (r"day\clip.mp4", "is a path of Windows"),
    ],
)
def test_other_names_are_refused(media: MediaFolder, uri: str, words: str) -> None:
    for find in (media.source, media.output):
        with pytest.raises(InvalidRequest, match=words) as caught:
            find(uri, "footage_uri")
        assert caught.value.field == "footage_uri"


def test_links_out_of_the_folder_are_refused(tmp_path: Path, media: MediaFolder) -> None:
    (tmp_path / "media" / "link.mp4").symlink_to(tmp_path / "outside" / "secret.mp4")
    (tmp_path / "media" / "linked").symlink_to(tmp_path / "outside")
    (tmp_path / "media" / "loop.mp4").symlink_to("loop.mp4")
    for uri in ("link.mp4", "linked/secret.mp4", "loop.mp4"):
        with pytest.raises(InvalidRequest):
            media.source(uri, "footage_uri")
    for uri, words in (("link.mp4", "symbolic link"), ("loop.mp4", "symbolic link"), ("linked/new.mp4", "outside")):
        with pytest.raises(InvalidRequest, match=words):
            media.output(uri, "output_uri")


def test_what_is_exchanged_after_the_check_leads_nowhere(tmp_path: Path, media: MediaFolder) -> None:
    source, output = media.source("day/clip.mp4", "footage_uri"), media.output("day/new.mp4", "output_uri")
    (tmp_path / "media" / "day").rename(tmp_path / "media" / "before")
    (tmp_path / "media" / "day").symlink_to(tmp_path / "outside")
    (tmp_path / "outside" / "secret.mp4").rename(tmp_path / "outside" / "clip.mp4")
    with pytest.raises(MediaUnsupported):
        probe(source)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        OutputFile(output)
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["clip.mp4"]
