from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from research.methods.hetero.render import NETWORK, CompositeSource, HeteroRecipe, HeteroWeights, random_lips, with_coloured_lips
from research.render.people import random_row
from research.training.training import LoopSettings
from research.training.trainset import TrainSet
from services.common.face.landmarks import mouth_opening
from services.common.face.mouth_bank import MouthBank
from services.render.renderers.hetero.network import HeteroConfig, load
from services.render.renderers.hetero.renderer import NUM_CHANNELS
from tests.unit.motion.brief_training import train_briefly
from tests.unit.research.render.tiny_training import people_of, run_whole_and_killed, weights_of

RECIPE = HeteroRecipe(
    loop=LoopSettings(steps=2, seed=2, check_every=1, bfloat16=True),
    warm_steps=1,
    warm_batch=1,
    batch=1,
    network=HeteroConfig(widths=(8, 8, 8, 8), depths=(1, 1, 1, 1), embedder_widths=(4, 4, 4, 4), rank=2),
    check_clips=1,
    calibration_pictures=2,
)


@pytest.mark.long
def test_killed_run_same_weights(data: TrainSet, runs: dict[str, Path], tmp_path: Path) -> None:
    whole, broken = run_whole_and_killed(NETWORK, RECIPE, data, runs, tmp_path, killed_at=1)
    assert weights_of(broken) == weights_of(whole)
    assert load(whole / "hetero.safetensors").config == RECIPE.network
    assert {"spatial_judge", "temporal_judge", "temporal_matching"} <= figures_of(whole)


def test_a_recipe_can_leave_blocks_out(data: TrainSet, runs: dict[str, Path], tmp_path: Path) -> None:
    network = replace(RECIPE.network, neighbours=False, adain_levels=0, skips=False, details=False)
    recipe = replace(RECIPE, network=network, weights=HeteroWeights(temporal=0.0))
    folder = tmp_path / "run"
    train_briefly(NETWORK, data, recipe, folder, runs=runs)
    assert load(folder / "hetero.safetensors").config == network
    assert "spatial_judge" in figures_of(folder)
    assert "temporal_judge" not in figures_of(folder)


def figures_of(folder: Path) -> set[str]:
    """Names of the figures in a run's curves."""
    return {line.split(",")[1] for line in (folder / "curves.csv").read_text().splitlines()}


def source(data: TrainSet) -> CompositeSource:
    return CompositeSource(people_of(data), seed=3, sequences_from=5, length=3)


def test_batches_are_those_of_their_step_and_index(data: TrainSet) -> None:
    drawn = source(data)
    one, again, other, index = (drawn.batch(*place, 2) for place in ((3, 0), (3, 0), (4, 0), (3, 1)))
    assert one.pictures.shape == (2, 160, 160, NUM_CHANNELS)
    assert np.array_equal(one.pictures, again.pictures)
    assert not np.array_equal(one.pictures, other.pictures)
    assert not np.array_equal(one.pictures, index.pictures)


def test_sequences_begin_with_the_second_phase(data: TrainSet) -> None:
    drawn = source(data)
    assert len(drawn.batch(4, 0, 2).targets) == 2
    batch = drawn.batch(5, 0, 2)
    assert batch.pictures.shape == (6, 160, 160, NUM_CHANNELS)
    # The composite of t + 1 is the composite of t, one frame later.
    for first in (0, 3):
        assert np.array_equal(batch.pictures[first, ..., 14:17], batch.pictures[first + 1, ..., :3])


def test_wide_mouths_are_drawn_more_often(bank: MouthBank) -> None:
    rng = np.random.default_rng(0)
    rows = [random_row(bank, rng) for _ in range(300)]
    wide = np.argsort(mouth_opening(bank.mouth), kind="stable")[-14:]
    assert len(set(rows)) == bank.num_frames
    assert 0.55 < np.isin(rows, wide).mean() < 0.75


def test_only_lips_are_coloured(bank: MouthBank) -> None:
    """Lips of half of the examples are coloured, and the skin and the inside of the mouth are not."""
    coloured = with_coloured_lips(bank.boxes[6], bank.box_landmarks[6], np.array([1.0, 0.5, 0.5], np.float32)).astype(int)
    changed = np.abs(coloured - bank.boxes[6]).max(axis=2)
    column, row = bank.box_landmarks[6, [5, 25]].mean(axis=0).round().astype(int)
    assert changed[row, column] > 10
    inside, chin = bank.box_landmarks[6, 20:40].mean(axis=0), bank.box_landmarks[6, 15] + (0.0, 12.0)
    for column, row in (inside.round().astype(int), chin.round().astype(int)):
        assert changed[row, column] == 0
    gains = [random_lips(np.random.default_rng(seed)) for seed in range(200)]
    kept = [gain for gain in gains if (gain == 1.0).all()]
    assert 80 < len(kept) < 120
    assert np.array_equal(with_coloured_lips(bank.boxes[0], bank.box_landmarks[0], kept[0]), bank.boxes[0])
