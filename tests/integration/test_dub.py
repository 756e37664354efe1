from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from dubstage.client import Connection
from dubstage.client import gateway as client
from dubstage.common.v1 import common_pb2
from dubstage.gateway.v1 import consent_pb2
from dubstage.gateway.v1 import gateway_pb2 as pb
from gateway.media.output import OutputFile, commit_with
from gateway.provenance.credential import installation_credential
from gateway.provenance.seal import Sealer
from gateway.provenance.verdict import ManifestState, verdict_of
from tests.integration.client_calls import dubbing
from tests.integration.servers import RunningGateway, RunningStages
from tests.integration.videos import NUM_FRAMES, Media
from tests.refusals import refused
from tests.unit.provenance.signed_videos import claim_gigabytes, claim_of
from tests.written_pictures import write_pictures


def frames_of(path: object) -> list[bytes]:
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24").tobytes() for frame in video.decode(video=0)]


def test_dub_with_actor(connection: Connection, actor: str, media: Media) -> None:
    """A dub with an actor gives a video with every frame and the new mouth."""
    seen: list[pb.OperationProgress] = []
    dub = client.dub(connection, **dubbing("with_actor.mp4", actor_id=actor, codec="ffv1"))
    result = dub.wait(timeout_s=300, on_progress=seen.append)
    assert result.num_frames == NUM_FRAMES
    assert not result.undubbed
    assert result.num_dubbed >= 0.9 * NUM_FRAMES
    assert result.consent_on_record
    assert sum(count.num_frames for count in result.reasons) == NUM_FRAMES
    assert {count.reason for count in result.reasons} <= {common_pb2.FRAME_REASON_DUBBED, common_pb2.FRAME_REASON_SILENT}
    assert seen[-1].total == NUM_FRAMES
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    original, dubbed = frames_of(media.footage), frames_of(media.root / "with_actor.mp4")
    assert len(dubbed) == NUM_FRAMES
    assert sum(a != b for a, b in zip(original, dubbed, strict=True)) >= 0.9 * NUM_FRAMES


@pytest.mark.long
def test_every_frame_has_the_label(connection: Connection, actor: str, media: Media) -> None:
    """A label changes one corner of every frame, and a dub without a label has another job."""
    shown: dict[str, np.ndarray] = {}
    for name, label in (("plain", {}), ("labelled", {"label": "AI dubbed", "label_position": "top-left"})):
        client.dub(connection, **dubbing(f"{name}.mkv", actor_id=actor, codec="ffv1"), **label).wait(timeout_s=300)
        with av.open(str(media.root / f"{name}.mkv")) as video:
            shown[name] = np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])
    height, width = shown["plain"].shape[1:3]
    outside = np.s_[:, height // 4 :]
    assert (shown["plain"] != shown["labelled"]).any(axis=(1, 2, 3)).all()
    assert (shown["labelled"][:, : height // 8, : width // 3] > 200).all(axis=-1).any(axis=(1, 2)).all(), "white letters"
    difference = shown["plain"][outside].astype(int) - shown["labelled"][outside]
    assert abs(difference).max() <= 16, "another job has another watermark, and nothing else differs"


@pytest.mark.long
def test_quality_of_the_pictures(connection: Connection, actor: str, media: Media) -> None:
    """A lower quality gives a smaller file."""
    sizes = []
    for name, quality in (("high", ""), ("small", "small"), ("smallest", "45")):
        asked = dubbing(f"{name}.mp4", actor_id=actor, codec="h264")
        client.dub(connection, **asked, encode_quality=quality).wait(timeout_s=300)
        with av.open(str(media.root / f"{name}.mp4")) as video:
            sizes.append(sum(packet.size for packet in video.demux(video=0)))
    assert sizes[2] < sizes[1] < sizes[0]


@pytest.mark.long
def test_damaged_footage_manifest_warns(connection: Connection, actor: str, media: Media, tmp_path: Path) -> None:
    """Footage whose own manifest is damaged gives a signed video and a warning."""
    footage = OutputFile(media.root / "damaged_manifest.mp4")
    with footage.content() as content:
        content.write(media.footage.read_bytes())
    sealer = Sealer(installation_credential(tmp_path))
    commit_with(footage, sealer.seal(claim_of(media.footage), media.root / "damaged_manifest.mp4"))
    claim_gigabytes(media.root / "damaged_manifest.mp4")
    request = dubbing("of_damaged_manifest.mp4", actor_id=actor, footage="damaged_manifest.mp4")
    result = client.dub(connection, **request).wait(timeout_s=300)
    assert any("without their own manifests" in warning for warning in result.warnings)
    verdict = verdict_of(media.root / "of_damaged_manifest.mp4")
    assert (verdict.state, verdict.ingredients[0]["has_manifest"]) == (ManifestState.VALID, False)


@pytest.mark.long
def test_passing_actor_ends_with_job(gateway: RunningGateway, connection: Connection, actor: str, stages: RunningStages) -> None:
    before, jobs = stages.blobs(), set((gateway.data / "jobs").iterdir())
    result = client.dub(connection, **dubbing("in_passing.mp4")).wait(timeout_s=300)
    assert result.num_dubbed > 0
    assert not result.consent_on_record
    # The enrolled actor learned the same from the same footage: their blobs are theirs still.
    assert client.dub(connection, **dubbing("again.mp4", actor_id=actor)).wait(timeout_s=300).num_dubbed > 0
    assert stages.blobs() == before
    assert set((gateway.data / "jobs").iterdir()) <= jobs


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"footage": "../footage.mp4"}, "footage_uri"),
        ({"footage": "/etc/passwd"}, "footage_uri"),
        ({"footage": "file:///etc/passwd"}, "footage_uri"),
        ({"footage": "https://example.org/a.mp4"}, "footage_uri"),
        ({"footage": "link.mp4"}, "footage_uri"),
        ({"footage": "nothing.mp4"}, "footage_uri"),
        ({"speech": "nothing.wav"}, "speech_uri"),
        ({"output": "/tmp/out.mp4"}, "output_uri"),
        ({"output": "footage.mp4"}, "output_uri"),
        ({"output": "no/such/folder.mp4"}, "output_uri"),
        ({"output": ""}, "output_uri"),
        ({"method": "magic"}, "method"),
        ({"consent": consent_pb2.ConsentRecord(subject="x")}, "consent.granted_by"),
        ({"seed": -1}, "seed"),
    ],
)
def test_unusable_request_refused_at_once(gateway: RunningGateway, media: Media, fields: dict[str, Any], field: str) -> None:
    """A request that cannot be served is refused before an operation begins."""
    link = media.root / "link.mp4"
    if not link.is_symlink():
        link.symlink_to("/etc/hostname")
    with gateway.connect() as connection, refused(reason="INVALID_REQUEST") as caught:
        client.dub(connection, **dubbing("refused.mp4", **fields))
    assert caught.value.field.removeprefix("dub.") == field
    assert "Traceback" not in caught.value.message


def test_missing_actor_and_video_fail(gateway: RunningGateway, media: Media) -> None:
    """An unknown actor is named, and footage that is not a video leaves no output."""
    with gateway.connect() as connection, refused(match="no actor 'nobody'", reason="ACTOR_NOT_FOUND"):
        client.dub(connection, **dubbing("refused.mp4", actor_id="nobody"))
    (media.root / "text.mp4").write_text("this is not a video")
    with gateway.connect() as connection, refused(reason="MEDIA_UNSUPPORTED"):
        client.dub(connection, **dubbing("from_text.mp4", footage="text.mp4")).wait(timeout_s=300)
    assert not list(media.root.glob("*from_text*"))


def test_footage_without_face_passes_through(connection: Connection, media: Media) -> None:
    """Footage without a face gives a video that says that no frame is dubbed."""
    wall = [np.full((120, 160, 3), 80 + shade, np.uint8) for shade in range(12)]
    write_pictures(media.root / "wall.mp4", wall, "libx264")
    dub = client.dub(connection, **dubbing("wall_dubbed.mp4", footage="wall.mp4", codec="ffv1"), label="AI dubbed")
    result = dub.wait(timeout_s=300)
    assert (result.num_frames, result.num_dubbed) == (12, 0)
    assert result.undubbed.startswith("none of the 12 frames is dubbed (NO_FACE 12)")
    assert frames_of(media.root / "wall_dubbed.mp4") == frames_of(media.root / "wall.mp4"), "nothing is synthetic: no label"
