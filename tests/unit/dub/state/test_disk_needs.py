"""A full disk is foreseen: what a dub will write is compared with the free space of each file system."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.dub.state.disk_needs import DiskNeed, check_disks, output_needs, records_need, video_need, windows_need
from gateway.media.probe import probe
from services.common.errors import StorageFullError
from tests.unit.media.made_footage import make_clip

MB = 1_000_000


def free_bytes(monkeypatch: pytest.MonkeyPatch, free: dict[str, int]) -> None:
    """Let folders whose path has one of the names as a part lie on disks of their own with so many free bytes."""

    def name_of(folder: object) -> str:
        return next(name for name in free if name in Path(str(folder)).parts)

    def usage(folder: object) -> SimpleNamespace:
        return SimpleNamespace(total=1 << 50, free=(256 << 20) + free[name_of(folder)])

    monkeypatch.setattr("gateway.dub.state.disk_needs._disk_of", lambda folder: list(free).index(name_of(folder)))
    monkeypatch.setattr("shutil.disk_usage", usage)


def test_disks_hold_their_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each disk must hold the sum of what is written to it."""
    free_bytes(monkeypatch, {"data": 20 * MB, "videos": 8 * MB})
    for name in ("data", "videos"):
        (tmp_path / name).mkdir()
    records = DiskNeed(tmp_path / "data" / "jobs" / "key", 12 * MB, "the job's records", "DUBSTAGE_DATA_DIR")
    windows = DiskNeed(tmp_path / "data" / "artefacts", 9 * MB, "the rendered mouths", "DUBSTAGE_ARTEFACTS_URL")
    video = DiskNeed(tmp_path / "videos", 5 * MB, "the video", "--output")
    check_disks(Path("plate.mov"), [records, video])
    check_disks(Path("plate.mov"), [windows, video])
    with pytest.raises(StorageFullError) as caught:
        check_disks(Path("plate.mov"), [records, windows, video])
    assert caught.value.message == (
        "the disk has too little space to dub plate.mov: about 12 MB for the job's records in "
        f"{tmp_path}/data/jobs/key, about 9 MB for the rendered mouths in {tmp_path}/data/artefacts; 20 MB of the disk may be "
        "filled. Free some (`dubstage jobs clean` removes unfinished jobs), or choose another disk with DUBSTAGE_DATA_DIR or "
        "DUBSTAGE_ARTEFACTS_URL"
    )
    assert caught.value.subject == str(tmp_path / "data" / "jobs" / "key")


def test_earlier_output_needs_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that an earlier run has written need no room."""
    free_bytes(monkeypatch, {tmp_path.name: 0})
    check_disks(Path("plate.mov"), [windows_need(tmp_path, [(10, 0)], journalled=10 * MB), DiskNeed(tmp_path, 0, "", "")])
    with pytest.raises(StorageFullError, match="the rendered mouths"):
        check_disks(Path("plate.mov"), [windows_need(tmp_path, [(10, 0)], journalled=MB)])


@pytest.mark.parametrize(("scale", "per_frame"), [(0, 230_400), (1, 230_400), (2, 307_200), (4, 614_400)])
def test_larger_faces_have_larger_windows(tmp_path: Path, scale: int, per_frame: int) -> None:
    assert windows_need(tmp_path, [(100, scale)], 0).num_bytes == 100 * per_frame


def test_records_size_by_footage(tmp_path: Path) -> None:
    """Records grow with the footage its sound and a background video."""
    video = probe(make_clip(tmp_path / "clip.mp4")).video

    def size(**more: object) -> int:
        wanted = {"own_sound": False, "keeps_expression": False, "background": None, "used": 0, **more}
        return records_need(tmp_path, 1000, 1000, **wanted).num_bytes  # type: ignore[arg-type]

    assert 80 * MB < size() < 100 * MB
    assert size() < size(own_sound=True, keeps_expression=True) < 1.1 * size()
    assert size(own_sound=True) == size()
    assert size(background=video) > size()
    assert size(used=MB) == size() - MB


def test_a_lossless_video_needs_most(tmp_path: Path) -> None:
    video = probe(make_clip(tmp_path / "clip.mp4")).video
    need = {codec: video_need(tmp_path / "video.mkv", codec, video).num_bytes for codec in ("h264", "hevc", "mpeg2video", "ffv1")}
    assert need["h264"] == need["hevc"] < need["mpeg2video"] < need["ffv1"]


def test_kept_parts_count_once(tmp_path: Path) -> None:
    """Windows and segments count where they are kept, without what an earlier run has stored."""
    video = probe(make_clip(tmp_path / "clip.mp4")).video

    def needs(store: Path | None, stored: int = 0) -> dict[str, int]:
        found = output_needs(tmp_path / "video.mp4", "h264", video, store, [(10, 1), (5, 2)], stored=stored, segmented=True)
        return {need.what: need.num_bytes for need in found}

    written = needs(None)
    (size,) = written.values()
    mouths = 10 * 230_400 + 5 * 307_200
    assert needs(tmp_path) == {**written, "the encoded pictures": size // 2, "the rendered mouths": mouths}
    assert needs(tmp_path, stored=MB) == {**written, "the rendered mouths": mouths - MB}
