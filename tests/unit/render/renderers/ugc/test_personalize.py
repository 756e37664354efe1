from __future__ import annotations

import numpy as np
import pytest

from services.common.face.mouth_bank import MouthBank, make_bank
from services.render.pairs import NEAREST_FRAMES
from services.render.personalization import PersonalizeRecipe
from services.render.renderers.ugc.personalize import actor_pairs, choose_sources, make_pair


def test_the_moment_itself_never_serves_as_texture(bank: MouthBank) -> None:
    everything = np.arange(bank.num_frames)
    for target in (0, 20, 47):
        rows = choose_sources(bank, target, everything, 3).rows[:, -1]
        assert (np.abs(bank.frame_index[rows] - bank.frame_index[target]) > NEAREST_FRAMES).all()


def test_most_similar_frame_first(bank: MouthBank) -> None:
    """The frame that looks most alike is chosen first."""
    chosen = choose_sources(bank, 6, np.arange(bank.num_frames), 3)
    best = bank.mouth[chosen.rows[0, -1]]
    assert np.abs(best - bank.mouth[6]).max() < 1e-4
    assert chosen.weights.sum() == pytest.approx(1.0)
    assert (np.diff(chosen.weights) <= 0).all()
    two = choose_sources(bank, 6, np.array([33, 18]), 2)
    assert two.rows[:, -1].tolist() == [18, 33]
    assert two.weights[0] > 1.1 * two.weights[1]


def test_bank_without_distant_frame(bank: MouthBank) -> None:
    """A bank without a distant frame has no pair."""
    with pytest.raises(ValueError, match="more than 10"):
        choose_sources(bank, 0, np.arange(8), 3)


def test_pairs_of_frames_with_distant_ones(bank: MouthBank) -> None:
    """Frames in the middle of a short bank have no frame far enough, and so no pair."""
    short = make_bank(bank.boxes[:14], bank.mouth[:14], bank.rotation[:14], bank.frame_index[:14], bank.geometry)
    pairs = actor_pairs(short, PersonalizeRecipe(num_pairs=99), 0)
    np.testing.assert_array_equal([pair.target for pair in pairs], short.boxes[[0, 1, 2, 11, 12, 13]])


def test_the_texture_is_warped_to_the_wanted_mouth(bank: MouthBank) -> None:
    target, sources = 6, choose_sources(bank, 6, np.array([24]), 1)
    pair = make_pair(bank, target, sources, bank.mouth[target])
    inside = pair.picture[..., 8] > 128
    assert np.array_equal(pair.target, bank.boxes[target])
    assert pair.picture[..., 3][inside].mean() < 0.7 * bank.boxes[24][inside][:, 0].mean()
