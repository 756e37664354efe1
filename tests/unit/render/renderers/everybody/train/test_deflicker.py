from __future__ import annotations

import numpy as np

from services.render.renderers.everybody.train.deflicker import deflickered, warped_by_flow


def test_every_frequency_is_mixed_as_equation_7_says() -> None:
    columns = np.arange(48) + np.zeros((32, 1))
    for cycles, moved in ((3, 0.0), (8, 0.0), (3, 1.5)):
        wave = np.cos(2 * np.pi * cycles * columns / 48).astype(np.float32)[..., None]
        own = 4 * np.pi**2 * (cycles / 48) ** 2
        before = np.exp(-moved)
        made = deflickered(wave, 0.0 * wave, moved)
        np.testing.assert_allclose(made, wave * own / (own + before), atol=1e-5)
        made = deflickered(0.0 * wave, wave, moved)
        np.testing.assert_allclose(made, wave * before / (own + before), atol=1e-5)


def test_equal_pictures_stay_as_they_are() -> None:
    picture = np.random.default_rng(0).normal(size=(20, 20, 3)).astype(np.float32)
    np.testing.assert_allclose(deflickered(picture, picture, 0.3), picture, atol=1e-5)


def test_a_mouth_that_moves_far_is_left_alone() -> None:
    rng = np.random.default_rng(1)
    drawn, before = (rng.normal(size=(20, 20, 3)).astype(np.float32) for _ in range(2))
    drawn -= drawn.mean(axis=(0, 1))
    before -= before.mean(axis=(0, 1))
    np.testing.assert_allclose(deflickered(drawn, before, 30.0), drawn, atol=1e-5)


def test_flicker_of_colour_is_weakened() -> None:
    rng = np.random.default_rng(2)
    face = np.zeros((40, 40, 3), np.float32)
    made, results = face, []
    for _ in range(30):
        drawn = face + rng.normal(0.0, 2.0, (1, 1, 3)).astype(np.float32)
        made = deflickered(drawn, made, 0.0)
        results.append(made)
    assert np.std(results) < 0.1


def test_the_flow_follows_what_moves() -> None:
    rows, columns = np.mgrid[:96, :96].astype(np.float64)
    texture = 128 + 60 * np.sin(rows / 5) * np.cos(columns / 7)
    old = np.repeat(texture.astype(np.uint8)[..., None], 3, axis=2)
    new = np.roll(old, 2, axis=1)
    moved = warped_by_flow(old.astype(np.float32), old, new)
    inner = (slice(16, 80), slice(16, 80))
    before = np.abs(old[inner].astype(float) - new[inner]).mean()
    assert np.abs(moved[inner] - new[inner]).mean() < 0.3 * before
