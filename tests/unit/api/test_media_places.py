"""Files that callers may name: the media folder, and objects below one URL."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from gateway.api.media_folder import MediaFolder
from gateway.api.media_places import MediaPlaces
from services.common.errors import InvalidRequest

URL = "s3://films/day"


@pytest.fixture
def folder(tmp_path: Path) -> MediaFolder:
    (tmp_path / "clip.mp4").write_bytes(b"x")
    return MediaFolder(tmp_path)


def test_paths_become_absolute_and_objects_below_the_url_stay(folder: MediaFolder, tmp_path: Path) -> None:
    places = MediaPlaces(folder, URL)
    assert places.source("clip.mp4", "footage") == str(tmp_path / "clip.mp4")
    assert places.source(f"file://{tmp_path}/clip.mp4", "footage") == str(tmp_path / "clip.mp4")
    assert places.output("new.mp4", "output", new_folder=True) == str(tmp_path / "new.mp4")
    # The worker makes the folder.
    assert places.output("films/day/new.mp4", "output", new_folder=True) == str(tmp_path / "films" / "day" / "new.mp4")
    with pytest.raises(InvalidRequest, match="no folder"):
        places.output("clip.mp4/new.mp4", "output", new_folder=True)
    assert places.source(f"{URL}/shots/a.mov", "footage") == f"{URL}/shots/a.mov"
    assert places.output(f"{URL}/b.mov", "output", new_folder=False) == f"{URL}/b.mov"


@pytest.mark.parametrize(
    "place",
    [
        "s3://films/night/a.mov",
        "s3://films/daylight/a.mov",
        "s3://films/day",
        "s3://films/day/",
        "s3://films/day/../night/a.mov",
        "s3://films/day//a.mov",
        "s3://films/day/./a.mov",
        "s3://films/day/a.mov?versionId=1",
        "S3://films/day/a.mov",
        "https://example.com/a.mov",
        "simplecache::s3://films/day/a.mov",
        "gs://films/day/a.mov",
    ],
)
def test_other_urls_are_refused(folder: MediaFolder, place: str) -> None:
    places = MediaPlaces(folder, URL)
    for find in (places.source, partial(places.output, new_folder=False)):
        with pytest.raises(InvalidRequest, match="cannot be used") as caught:
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
    places = MediaPlaces(folder, URL)
    for find in (places.source, partial(places.output, new_folder=False)):
        with pytest.raises(InvalidRequest, match=words) as caught:
            find(f"{URL}/{name}", "footage")
        assert caught.value.field == "footage"


def test_the_manifest_beside_a_film_has_a_key_too(folder: MediaFolder) -> None:
    longest = f"{URL}/{'a' * (1024 - len('day/'))}"
    assert MediaPlaces(folder, URL).source(longest, "footage") == longest
    with pytest.raises(InvalidRequest, match="1024 bytes at most"):
        MediaPlaces(folder, URL).output(longest, "output", new_folder=False)


def test_without_a_url_every_url_is_refused_and_the_setting_is_named(folder: MediaFolder) -> None:
    with pytest.raises(InvalidRequest, match="set DUBSTAGE_MEDIA_URL"):
        MediaPlaces(folder, "").source(f"{URL}/a.mov", "footage")
