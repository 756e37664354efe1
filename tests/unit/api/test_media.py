"""Tests of the files that callers may name: files in the media folder and objects below one URL, and no other file at any time."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from gateway.api.media import MediaFolder, MediaLocations
from gateway.media.output import OutputFile
from gateway.media.probe import probe
from services.common.errors import InvalidRequestError, MediaUnsupportedError
from tests.unit.media.made_footage import make_clip

URL = "s3://videos/day"


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
        (r"C:\videos\clip.mp4", "is a path of Windows"),
        ("/".join(["x" * 200] * 20) + "/a.mp4", "more bytes than the path"),
        ("/".join(["é" * 100] * 30) + "/a.mp4", "more bytes than the path"),
        ("C:/videos/clip.mp4", "is a path of Windows"),
        (r"day\clip.mp4", "is a path of Windows"),
    ],
)
def test_other_names_are_refused(media: MediaFolder, uri: str, words: str) -> None:
    for find in (media.source, media.output):
        with pytest.raises(InvalidRequestError, match=words) as caught:
            find(uri, "footage_uri")
        assert caught.value.field == "footage_uri"


def test_links_out_of_the_folder_are_refused(tmp_path: Path, media: MediaFolder) -> None:
    (tmp_path / "media" / "link.mp4").symlink_to(tmp_path / "outside" / "secret.mp4")
    (tmp_path / "media" / "linked").symlink_to(tmp_path / "outside")
    (tmp_path / "media" / "loop.mp4").symlink_to("loop.mp4")
    for uri in ("link.mp4", "linked/secret.mp4", "loop.mp4"):
        with pytest.raises(InvalidRequestError):
            media.source(uri, "footage_uri")
    for uri, words in (("link.mp4", "symbolic link"), ("loop.mp4", "symbolic link"), ("linked/new.mp4", "outside")):
        with pytest.raises(InvalidRequestError, match=words):
            media.output(uri, "output_uri")


def test_what_is_exchanged_after_the_check_leads_nowhere(tmp_path: Path, media: MediaFolder) -> None:
    source, output = media.source("day/clip.mp4", "footage_uri"), media.output("day/new.mp4", "output_uri")
    (tmp_path / "media" / "day").rename(tmp_path / "media" / "before")
    (tmp_path / "media" / "day").symlink_to(tmp_path / "outside")
    (tmp_path / "outside" / "secret.mp4").rename(tmp_path / "outside" / "clip.mp4")
    with pytest.raises(MediaUnsupportedError):
        probe(source)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        OutputFile(output)
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["clip.mp4"]


@pytest.fixture
def folder(tmp_path: Path) -> MediaFolder:
    (tmp_path / "clip.mp4").write_bytes(b"x")
    return MediaFolder(tmp_path)


def test_paths_absolute_urls_unchanged(folder: MediaFolder, tmp_path: Path) -> None:
    """Paths become absolute and objects below the URL stay."""
    places = MediaLocations(folder, URL)
    assert places.source("clip.mp4", "footage") == str(tmp_path / "clip.mp4")
    assert places.source(f"file://{tmp_path}/clip.mp4", "footage") == str(tmp_path / "clip.mp4")
    assert places.output("new.mp4", "output", new_folder=True) == str(tmp_path / "new.mp4")
    # The worker makes the folder.
    assert places.output("videos/day/new.mp4", "output", new_folder=True) == str(tmp_path / "videos" / "day" / "new.mp4")
    with pytest.raises(InvalidRequestError, match="no folder"):
        places.output("clip.mp4/new.mp4", "output", new_folder=True)
    assert places.source(f"{URL}/shots/a.mov", "footage") == f"{URL}/shots/a.mov"
    assert places.output(f"{URL}/b.mov", "output", new_folder=False) == f"{URL}/b.mov"


@pytest.mark.parametrize(
    "place",
    [
        "s3://videos/night/a.mov",
        "s3://videos/daylight/a.mov",
        "s3://videos/day",
        "s3://videos/day/",
        "s3://videos/day/../night/a.mov",
        "s3://videos/day//a.mov",
        "s3://videos/day/./a.mov",
        "s3://videos/day/a.mov?versionId=1",
        "S3://videos/day/a.mov",
        "https://example.com/a.mov",
        "simplecache::s3://videos/day/a.mov",
        "gs://videos/day/a.mov",
    ],
)
def test_other_urls_are_refused(folder: MediaFolder, place: str) -> None:
    places = MediaLocations(folder, URL)
    for find in (places.source, partial(places.output, new_folder=False)):
        with pytest.raises(InvalidRequestError, match="cannot be used") as caught:
            find(place, "footage")
        assert caught.value.field == "footage"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a\n.mov", "control character"),
        ("a.m\0ov", "control character"),
        ("a" * 1100 + ".mov", "1024 bytes at most, and this one has 11"),
        ("é" * 550 + ".mov", "1024 bytes at most, and this one has 11"),
    ],
)
def test_urls_that_can_name_no_object_are_refused(folder: MediaFolder, name: str, words: str) -> None:
    places = MediaLocations(folder, URL)
    for find in (places.source, partial(places.output, new_folder=False)):
        with pytest.raises(InvalidRequestError, match=words) as caught:
            find(f"{URL}/{name}", "footage")
        assert caught.value.field == "footage"


def test_sidecar_manifest_has_key(folder: MediaFolder) -> None:
    """The manifest beside a video has a key too."""
    longest = f"{URL}/{'a' * (1024 - len('day/'))}"
    assert MediaLocations(folder, URL).source(longest, "footage") == longest
    with pytest.raises(InvalidRequestError, match="1024 bytes at most"):
        MediaLocations(folder, URL).output(longest, "output", new_folder=False)


def test_missing_url_setting_is_named(folder: MediaFolder) -> None:
    """Without a URL, every URL is refused and the setting is named."""
    with pytest.raises(InvalidRequestError, match="set DUBSTAGE_MEDIA_URL"):
        MediaLocations(folder, "").source(f"{URL}/a.mov", "footage")
