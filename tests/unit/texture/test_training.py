"""Training of the temporal warp on drawn clips: pairs, steps, resuming, export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from services.texture.export import ExportSpec, export
from services.texture.models import TemporalWarpModel
from services.texture.train.pairs import CHAIN, PairConfig, draw_pairs, load_banks
from services.texture.train.temporal_warp import Run, TrainConfig

if TYPE_CHECKING:
    from tests.unit.texture.conftest import DrawnPerson

SMALL = TrainConfig(num_pairs=6, num_held_out=2, batch=2, check_every=1, steps=2)


@pytest.fixture(scope="module")
def clips(person: DrawnPerson, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for number, use in enumerate(("train", "train", "val")):
        frames = [person.bank_frame(1000 * number + step) for step in range(90)]
        arrays = {
            "landmarks": np.stack([frame.landmarks for frame in frames]),
            "scale": np.array([frame.pose.scale for frame in frames]),
            "rotation": np.stack([frame.pose.rotation for frame in frames]),
            "translation": np.stack([frame.pose.translation for frame in frames]),
            "mouth_landmarks": np.stack([person.mouth(frame.frame_index) for frame in frames]),
            "usable": np.arange(90) % 45 != 40,
        }
        save_file(arrays, folder / f"{number}.safetensors", {"use": use, "speaker": "drawn"})
    return folder


def test_pairs_are_real_sequences_from_elsewhere_in_the_footage(clips: Path) -> None:
    still = PairConfig(worse_share=0.0, scale_spread=0.0, wobble_px=0.0, jitter_px=0.0)
    speakers = load_banks(clips, "train")
    pairs = draw_pairs(speakers, 10, still, seed=1)
    assert pairs.wanted.shape == pairs.source.shape == (10, CHAIN, 86, 2)
    points = speakers[0][0].control_points
    for wanted, source in zip(pairs.wanted, pairs.source, strict=True):
        starts = [int(np.abs(points - sequence[0]).sum(axis=(1, 2)).argmin()) for sequence in (wanted, source)]
        for start, sequence in zip(starts, (wanted, source), strict=True):
            np.testing.assert_allclose(points[start : start + CHAIN], sequence, atol=1e-2)
        index = speakers[0][0].frame_index
        assert abs(index[starts[0]] - index[starts[1]]) >= 40


def test_a_resumed_run_ends_where_an_unbroken_one_does(clips: Path, tmp_path: Path) -> None:
    unbroken = Run(SMALL, clips, tmp_path / "unbroken")
    unbroken.train()

    class Stopped(Run):
        def _save(self) -> None:
            super()._save()
            if self.step == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Stopped(SMALL, clips, tmp_path / "resumed").train()
    resumed = Run(SMALL, clips, tmp_path / "resumed")
    assert resumed.step == 1
    resumed.train()
    assert resumed.history == unbroken.history
    for one, other in zip(resumed.network.parameters(), unbroken.network.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.filterwarnings("ignore:You are using the legacy:DeprecationWarning")
def test_training_lowers_the_held_out_loss_and_what_is_exported_is_what_was_trained(clips: Path, tmp_path: Path) -> None:
    config = TrainConfig(num_pairs=24, num_held_out=4, batch=4, check_every=12, steps=12, decay_times=0)
    run = Run(config, clips, tmp_path / "run")
    run.train()
    assert run.history[-1]["total"] < 0.98 * run.history[0]["total"]
    report = export(tmp_path / "run", tmp_path / "small.onnx", ExportSpec(parity_runs=2))
    assert report.largest_difference_px < 1e-4
    description = json.loads((tmp_path / "small.json").read_text())
    assert description["sha256"].startswith(TemporalWarpModel(tmp_path / "small.onnx").version)
