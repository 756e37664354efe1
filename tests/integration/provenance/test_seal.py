"""A video is signed before it gets its name; any change is told; the manifests of what it was made of are kept."""

import hashlib
import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import av
import pytest
from structlog.testing import capture_logs

from gateway.media.mp4 import copy_with_padding
from gateway.media.output import OutputFile, commit_with
from gateway.provenance.binding import manifest_boxes, media_sha256, sidecar_of
from gateway.provenance.claim import DubFacts
from gateway.provenance.credential import KEY_FILE, certificates_in, installation_credential
from gateway.provenance.disclosure import append_packet, disclosure_packet
from gateway.provenance.seal import Sealer
from gateway.provenance.verdict import ManifestState, verdict_of
from services.common.errors import BackendUnavailableError, InvalidRequestError, MediaUnsupportedError
from tests.unit.provenance.second_reader import second_verdict
from tests.unit.provenance.signed_videos import claim_gigabytes, claim_of, flip, write_video

EMBEDDED = (".mp4", ".mov", ".m4v")
BESIDE = (".mkv", ".nut", ".mxf")


@pytest.fixture(scope="module")
def sealer(tmp_path_factory: pytest.TempPathFactory) -> Sealer:
    return Sealer(installation_credential(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def signed(carphone: Path, sealer: Sealer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the signed videos video.mp4 and video.mkv, for tests that change copies of the videos."""
    folder = tmp_path_factory.mktemp("signed")
    for suffix in (".mp4", ".mkv"):
        write_video(folder / f"video{suffix}", carphone, sealer)
    return folder


def _copy(signed: Path, suffix: str, folder: Path) -> Path:
    """Copy a signed video with its sidecar into a folder, and return the copy."""
    for file in signed.glob(f"video{suffix}*"):
        shutil.copy(file, folder)
    return folder / f"video{suffix}"


def _disclose(video: Path) -> None:
    """Write the disclosure record that a signed video has into a video without a manifest."""
    with video.open("r+b") as file:
        append_packet(file, disclosure_packet("The mouth in this video is synthetic."))


def _begun(video: Path, data: bytes, *, overwrite: bool = False) -> OutputFile:
    """A file that has its content and not yet its name."""
    file = OutputFile(video, overwrite=overwrite)
    with file.content() as content:
        content.write(data)
    return file


def _packets(video: Path) -> list[tuple[int, bytes]]:
    with av.open(str(video)) as container:
        return [(packet.pts, bytes(packet)) for packet in container.demux() if packet.size]


@pytest.mark.parametrize("suffix", EMBEDDED)
def test_embedded_manifest_keeps_media(suffix: str, carphone: Path, sealer: Sealer, tmp_path: Path) -> None:
    """MP4 and MOV have the manifest inside and the same media."""
    plain = write_video(tmp_path / f"plain{suffix}", carphone, None)
    signed = write_video(tmp_path / f"signed{suffix}", carphone, sealer)
    verdict = verdict_of(signed)
    assert (verdict.state, verdict.place) == (ManifestState.VALID, "embedded")
    assert verdict.reasons == ("no trusted authority vouches for the signer",)
    assert signed.stat().st_size > plain.stat().st_size
    assert _packets(signed) == _packets(plain)
    _disclose(plain)
    assert verdict.media_sha256 == media_sha256(signed) == media_sha256(plain) == hashlib.sha256(plain.read_bytes()).hexdigest()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"plain{suffix}", f"signed{suffix}"]


@pytest.mark.parametrize("suffix", BESIDE)
def test_sidecar_manifest_keeps_file(suffix: str, carphone: Path, sealer: Sealer, tmp_path: Path) -> None:
    """Other videos have the manifest beside them and not a byte more."""
    plain = write_video(tmp_path / f"plain{suffix}", carphone, None)
    signed = write_video(tmp_path / f"signed{suffix}", carphone, sealer)
    if suffix != ".mxf":  # FFmpeg writes a random id into each MXF file
        assert signed.read_bytes() == plain.read_bytes()
    sidecar = tmp_path / f"signed{suffix}.c2pa"
    for asked in (signed, sidecar):
        verdict = verdict_of(asked)
        assert (verdict.file, verdict.state, verdict.place) == (signed, ManifestState.VALID, "sidecar")
    moved = tmp_path / f"moved{suffix}"
    signed.rename(moved)
    assert verdict_of(moved).state == ManifestState.NONE
    sidecar.rename(tmp_path / f"moved{suffix}.c2pa")
    assert verdict_of(moved).state == ManifestState.VALID


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("part", [0.3, 0.6, 1.0])  # media, and the last byte; a bit of a box's length makes the file unreadable
def test_one_bit_changed_in_a_video_is_told(part: float, suffix: str, signed: Path, tmp_path: Path) -> None:
    video = _copy(signed, suffix, tmp_path)
    size, manifest = video.stat().st_size, 16_384 if suffix == ".mp4" else 0
    flip(video, manifest + int(part * (size - 1 - manifest)))
    verdict = verdict_of(video)
    assert verdict.state == ManifestState.INVALID
    assert any("was changed after it was signed" in reason for reason in verdict.reasons)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_second_reader_says_the_same(suffix: str, carphone: Path, sealer: Sealer, tmp_path: Path) -> None:
    """A reader of other authors finds the video valid, trusts only the certificate that signed, and finds a changed byte."""
    video = write_video(tmp_path / f"video{suffix}", carphone, sealer)
    own, other = sealer.credential.chain, installation_credential(tmp_path / "elsewhere").chain
    assert second_verdict(video, own) == ("valid", "Trusted", [])
    assert second_verdict(video, other).state != "Trusted"
    flip(video, video.stat().st_size - 1)
    integrity, state, failures = second_verdict(video, own)
    assert (integrity, state) == ("invalid", "Invalid")
    assert failures == ["assertion.dataHash.mismatch" if suffix == ".mkv" else "assertion.bmffHash.mismatch"]


def test_a_changed_claim_is_told(signed: Path, tmp_path: Path) -> None:
    video = _copy(signed, ".mp4", tmp_path)
    flip(video, video.read_bytes().index(b"a method"))
    verdict = verdict_of(video)
    assert verdict.state == ManifestState.INVALID
    assert verdict.reasons


def test_manifest_tells_edits_names_nobody(carphone: Path, sealer: Sealer, tmp_path: Path) -> None:
    footage, speech = tmp_path / "Jane Doe.mp4", tmp_path / "Jane Doe.wav"
    footage.write_bytes(carphone.read_bytes())
    speech.write_bytes(b"RIFF of Jane")
    video = write_video(tmp_path / "Jane.mp4", footage, sealer, speech=speech)
    verdict = verdict_of(video)
    assert verdict.generator == "dubstage 9.8.7"
    assert verdict.actions == (
        {"action": "c2pa.opened"},
        {
            "action": "c2pa.edited",
            "description": "The mouth in this video is synthetic.",
            "digital_source_type": "compositeWithTrainedAlgorithmicMedia",
        },
    )
    sources = {item["title"]: item["relationship"] for item in verdict.ingredients}
    assert list(sources.items()) == [("footage", "parentOf"), ("speech", "inputTo")]
    assert verdict.dub.model_dump() == {
        "version": 1,
        "method": "a method",
        "models": [{"stage": "render", "name": "drawer", "version": "ab" * 32}],
        "frames": 12,
        "frame_rate": "30000/1001",
        "dubbed": [[2, 5], [8, 9]],
        "sources": [
            {"role": "footage", "sha256": hashlib.sha256(footage.read_bytes()).hexdigest(), "voice": None},
            {"role": "speech", "sha256": hashlib.sha256(b"RIFF of Jane").hexdigest(), "voice": None},
        ],
        "consent_sha256": {"person": "cd" * 32},
        "job": "ef" * 32,
        "watermark": "",
        "scene": False,
        "stream": False,
    }
    assert b"Jane" not in video.read_bytes()


def test_unchanged_video_not_called_synthetic(carphone: Path, sealer: Sealer, tmp_path: Path) -> None:
    video = tmp_path / "video.mp4"
    honest = replace(claim_of(carphone), synthetic=False, description="No mouth in this video is synthetic.", dubbed=())
    write_video(video, carphone, None)
    file = _begun(video, video.read_bytes(), overwrite=True)
    commit_with(file, sealer.seal(honest, video))
    verdict = verdict_of(video)
    assert verdict.state == ManifestState.VALID
    assert verdict.actions[1] == {"action": "c2pa.edited", "description": "No mouth in this video is synthetic."}
    assert verdict.dub.dubbed == []


@pytest.mark.parametrize(("footage", "video"), [(".mp4", ".mp4"), (".mp4", ".mkv"), (".mkv", ".mkv"), (".mkv", ".mov")])
def test_the_manifest_of_the_footage_is_kept(footage, video, carphone, sealer, signed, tmp_path) -> None:
    second = write_video(tmp_path / f"second{video}", carphone, sealer, source=signed / f"video{footage}")
    verdict, first = verdict_of(second), verdict_of(signed / f"video{footage}").dub
    assert verdict.state == ManifestState.VALID
    (kept,) = verdict.ingredients
    assert DubFacts.model_validate(kept.pop("dub")).statement == first.statement
    assert kept == {"title": "footage", "relationship": "parentOf", "has_manifest": True, "valid": True}


def test_footage_without_valid_manifest(carphone: Path, sealer: Sealer, signed: Path, tmp_path: Path) -> None:
    """Footage that was changed after it was signed is reported, and footage that C2PA cannot parse has no manifest to keep."""
    first = _copy(signed, ".mp4", tmp_path)
    flip(first, first.stat().st_size - 100)
    second = verdict_of(write_video(tmp_path / "second.mp4", carphone, sealer, source=first))
    assert second.state == ManifestState.VALID
    assert (second.ingredients[0]["has_manifest"], second.ingredients[0]["valid"]) == (True, False)
    odd = tmp_path / "odd.mp4"
    odd.write_bytes(b"no video at all, whatever the name says")
    verdict = verdict_of(write_video(tmp_path / "video.mp4", carphone, sealer, source=odd))
    assert (verdict.state, verdict.ingredients[0]["has_manifest"]) == (ManifestState.VALID, False)


def _unreadable(manifest: Path) -> None:
    """Turn the text "method", a key, into bytes: c2pa signs such a manifest, and its reader does not load it."""
    content = manifest.read_bytes()
    assert content.count(b"\x66method") == 1
    manifest.write_bytes(content.replace(b"\x66method", b"\x46method"))


@pytest.mark.parametrize("damage", [claim_gigabytes, _unreadable])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_damaged_footage_manifest_warns(suffix, damage, carphone, sealer, signed, tmp_path) -> None:
    footage = _copy(signed, suffix, tmp_path)
    damage(footage if suffix == ".mp4" else sidecar_of(footage))
    video = _begun(tmp_path / "second.mp4", carphone.read_bytes())
    seal = sealer.seal(claim_of(footage), tmp_path / "second.mp4")
    with capture_logs() as logs:
        commit_with(video, seal)
    verdict = verdict_of(tmp_path / "second.mp4")
    assert (verdict.state, verdict.ingredients[0]["has_manifest"]) == (ManifestState.VALID, False)
    assert verdict.dub.sources[0].sha256 == hashlib.sha256(footage.read_bytes()).hexdigest()
    assert len(seal.warnings) == 1
    assert "names its sources (footage) without their own manifests" in seal.warnings[0]
    assert "source_manifests_left_out" in {line["event"] for line in logs}


def test_kept_footage_manifest_no_warning(carphone: Path, sealer: Sealer, signed: Path, tmp_path: Path) -> None:
    video = _begun(tmp_path / "second.mp4", carphone.read_bytes())
    seal = sealer.seal(claim_of(signed / "video.mp4"), tmp_path / "second.mp4")
    commit_with(video, seal)
    assert seal.warnings == []


def test_installation_certificates_are_trusted(carphone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    video = write_video(tmp_path / "video.mp4", carphone, Sealer(installation_credential(folder)))
    assert verdict_of(video, anchors=certificates_in(folder / KEY_FILE)).state == ManifestState.TRUSTED
    other = tmp_path / "other"
    installation_credential(other)
    stranger = verdict_of(video, anchors=certificates_in(other / KEY_FILE))
    assert (stranger.state, stranger.signer["common_name"]) == (ManifestState.VALID, "dubstage installation (self-signed)")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_unsignable_video_not_written(suffix: str, carphone: Path, sealer: Sealer, tmp_path: Path) -> None:
    """A video whose footage is gone, or that the time stamp authority does not date, is not written."""
    with pytest.raises(MediaUnsupportedError, match="does not exist"):
        write_video(tmp_path / f"video{suffix}", carphone, sealer, source=tmp_path / "gone.mp4")
    assert list(tmp_path.iterdir()) == []
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        stamped = replace(sealer, time_stamp_url=f"http://127.0.0.1:{nobody.getsockname()[1]}")
        with pytest.raises(BackendUnavailableError, match="time stamp authority"):
            write_video(tmp_path / f"video{suffix}", carphone, stamped)
    assert list(tmp_path.iterdir()) == []


def test_other_file_not_replaced_by_manifest(sealer: Sealer, tmp_path: Path) -> None:
    sealer.check_sidecar_path(tmp_path / "video.mkv", overwrite=False)
    (tmp_path / "video.mkv.c2pa").write_bytes(b"somebody's notes")
    (tmp_path / "video.mp4.c2pa").write_bytes(b"somebody's notes")
    with pytest.raises(InvalidRequestError, match=r"video\.mkv\.c2pa exists and is no manifest"):
        sealer.check_sidecar_path(tmp_path / "video.mkv", overwrite=False)
    sealer.check_sidecar_path(tmp_path / "video.mkv", overwrite=True)
    sealer.check_sidecar_path(tmp_path / "video.mp4", overwrite=False)


@pytest.mark.parametrize("overwrite", [True, False])
def test_unusable_manifest_name_refused_early(sealer: Sealer, tmp_path: Path, overwrite: bool) -> None:
    """A video whose manifest can have no name is refused before the work."""
    sealer.check_sidecar_path(tmp_path / f"{'a' * 251}.mp4", overwrite=overwrite)
    with pytest.raises(InvalidRequestError, match="255 at most"):
        sealer.check_sidecar_path(tmp_path / f"{'a' * 251}.mkv", overwrite=overwrite)


def test_same_name_gets_new_manifest(carphone: Path, sealer: Sealer, tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mkv", carphone, sealer)
    before = (tmp_path / "video.mkv.c2pa").read_bytes()
    sealer.check_sidecar_path(video, overwrite=False)
    write_video(video, carphone, sealer)
    assert (tmp_path / "video.mkv.c2pa").read_bytes() != before
    assert verdict_of(video).state == ManifestState.VALID
    assert len(list(tmp_path.iterdir())) == 2


def test_failed_rename_leaves_no_sidecar(carphone: Path, sealer: Sealer, tmp_path: Path) -> None:
    """If the video cannot get its name, no sidecar stays."""
    video = tmp_path / "video.mkv"
    seal = sealer.seal(claim_of(carphone), video)
    file = _begun(video, b"a video")
    os.mkdir(video)
    with pytest.raises(InvalidRequestError, match="is a folder"):
        commit_with(file, seal)
    file.discard()
    assert list(tmp_path.iterdir()) == [video]


@pytest.mark.parametrize("room", [0, 100, 3000])
def test_small_manifest_space_still_signs(room: int, carphone: Path, sealer: Sealer, tmp_path: Path) -> None:
    """A video whose reserved space is too small is copied and signed all the same."""
    plain = write_video(tmp_path / "plain.mp4", carphone, None)
    video = OutputFile(tmp_path / "video.mp4")
    with video.content() as content:
        if room:
            with plain.open("rb") as source:
                copy_with_padding(source, content, room)
        else:
            content.write(plain.read_bytes())
    commit_with(video, sealer.seal(claim_of(carphone), tmp_path / "video.mp4"))
    verdict = verdict_of(tmp_path / "video.mp4")
    _disclose(plain)
    assert (verdict.state, verdict.media_sha256) == (ManifestState.VALID, media_sha256(plain))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain.mp4", "video.mp4"]


def test_a_video_is_signed_without_a_copy(carphone: Path, sealer: Sealer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(OutputFile, "rewriting")
    first = write_video(tmp_path / "first.mp4", carphone, sealer)
    second = write_video(tmp_path / "second.mov", carphone, sealer, source=first)
    assert (verdict_of(first).state, verdict_of(second).state) == (ManifestState.VALID, ManifestState.VALID)


def test_bytes_behind_manifest_detected(signed: Path, tmp_path: Path) -> None:
    """Bytes behind the manifest cannot be used to hide something."""
    video = _copy(signed, ".mp4", tmp_path)
    with video.open("rb") as file:
        box = manifest_boxes(file)[0]
    flip(video, box.end - 1)
    verdict = verdict_of(video)
    assert verdict.state == ManifestState.INVALID
    assert verdict.reasons == ("the bytes behind the manifest were changed after the video was signed",)
