"""From a folder of clips to a dub with networks trained on these clips, by the documented commands alone."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.dub.choices import EnrolOptions
from gateway.dub.request.dub_request import DubRequest
from gateway.media.probe import probe
from gateway.settings import GatewaySettings
from research.stage_host import StageHost
from research.training.networks import networks
from services.common.store.artefacts import ArtefactStore
from tests.system.dubbing import Dubber, first_seconds

FOLDER = (
    "video/vr_face5.mp4",
    "video/vr_face2.mp4",
    "video/lp_d18.mp4",
    "derived/d03_prores422lt_2997.mov",
    "derived/d06_two_faces_left_speaks.mp4",
    "derived/d07_moving_occluder.mp4",
    "derived/d09_audio_late_200ms.mp4",
    "derived/d10_50fps_no_audio.mp4",
)
"""Eight clips of many kinds, without transcripts and without a catalogue. The last has no sound: it is refused."""
CLIP_S = 1.6
"""Most seconds of each clip."""
SMALL = """
posteriorgram = { batch_windows = 16 }
id_removal = { batch_segments = 4, segment_rows = 64 }
sync = { frames = 24 }
temporal_warp = { batch = 2, num_held_out = 2 }
perceptual = { batch_size = 4 }
identity_embedding = { batch_people = 4 }

[ugc_renderer]
warm_batch = 1
check_clips = 1
calibration_pictures = 1

[everybody_renderer]
warm_batch = 1
check_clips = 1
calibration_pictures = 1
network = { widths = [16, 24], depths = [1, 1] }

[headpose_renderer]
warm_batch = 1
check_clips = 1
calibration_pictures = 1
network = { widths = [16, 24], depths = [1, 1] }

[hetero_renderer]
warm_batch = 1
check_clips = 1
calibration_pictures = 1
network = { widths = [8, 12, 16, 24], depths = [1, 1, 1, 1], embedder_widths = [8, 8, 12, 16] }

[everyone_renderer]
warm_batch = 1
check_clips = 1
calibration_pictures = 1
network = { widths = [8, 12, 16, 24] }
"""
"""Settings for small batches, and for small renderers besides that of `ugc`. What has no setting here is as by default."""
STAGES = ("audio", "motion", "texture", "render")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.long
def test_a_folder_of_clips_becomes_networks_that_dub(clips, dubstage, tmp_path, monkeypatch) -> None:
    footage, trainset, runs, weights = (tmp_path / name for name in ("clips", "set", "runs", "weights"))
    footage.mkdir()
    for name in FOLDER:
        first_seconds(clips.path(name), footage / Path(name).name, CLIP_S)

    made = dubstage("trainset", footage, "--output", trainset, "--processes", 2)
    assert made.returncode == 0, made.stderr
    rows = [json.loads(line) for line in (trainset / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    refused = [json.loads(line) for line in (trainset / "refused.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["file"] for row in refused] == ["d10_50fps_no_audio.mp4"]
    assert len(rows) == len(FOLDER) - 1
    assert {row["split"] for row in rows} == {"train", "val"}

    small = tmp_path / "small.toml"
    small.write_text(SMALL, encoding="utf-8")
    trained = dubstage("train", "all", "--data", trainset, "--output", runs, "--steps", 1, "--config", small)
    assert trained.returncode == 0, trained.stderr
    assert sorted(path.name for path in runs.iterdir()) == sorted(networks())
    for name in networks():
        assert (runs / name / "CARD.md").read_text(encoding="utf-8").startswith(f"# {name}\n")

    exported = dubstage("export", "all", "--run", runs, "--output", weights)
    assert exported.returncode == 0, exported.stderr
    assert {Path(line).parent.name for line in exported.stdout.splitlines()} == set(STAGES)

    own = {f"DUBSTAGE_{stage.upper()}_WEIGHTS": str(weights / stage) for stage in STAGES}
    looked = dubstage("doctor", **own)
    assert looked.returncode == 0, looked.stdout + looked.stderr
    assert all(str(weights / stage) in looked.stdout for stage in STAGES)

    video = tmp_path / "dubbed.mp4"
    dubbed = dubstage("dub", footage / "vr_face2.mp4", "--output", video, "--no-personalize", **own)
    assert dubbed.returncode == 0, dubbed.stderr
    assert probe(video).video.num_frames == probe(footage / "vr_face2.mp4").video.num_frames >= 30

    # Adapting the networks to the person works with them too. The command takes no number of steps, and its own takes a minute.
    for name, folder in own.items():
        monkeypatch.setenv(name, folder)
    settings = GatewaySettings(data_dir=tmp_path / "data", artefacts_url=str(tmp_path / "artefacts"))
    with StageHost(settings) as host:
        dubber = Dubber(host, ArtefactStore(settings.artefacts_url), tmp_path / "jobs")
        request = DubRequest(footage=footage / "vr_face2.mp4", speech=None, output=tmp_path / "adapted.mp4", method="dubstage")
        assert dubber(request, EnrolOptions(renderer_steps=1)).plan.rendered().all()
