from __future__ import annotations

import numpy as np

from research.render.people import grey_keys, random_colours
from services.render.key_pictures import KeyPictures


def test_the_same_change_of_colours_is_made_everywhere() -> None:
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    colours = random_colours(np.random.default_rng(2))
    made = colours.of(picture)
    assert not np.array_equal(made, picture)
    assert np.array_equal(colours.of(picture[:, ::-1]), made[:, ::-1])
    assert np.array_equal(random_colours(np.random.default_rng(2)).of(picture), made)


def test_key_pictures_change_and_those_of_nobody_stay() -> None:
    colours = random_colours(np.random.default_rng(2))
    picture = np.random.default_rng(1).integers(0, 256, (160, 160, 3), dtype=np.uint8)
    keys = KeyPictures(picture[None], np.ones((1, 59, 2), np.float32))
    assert np.array_equal(colours.of_keys(keys).pictures[0], colours.of(picture))
    assert colours.of_keys(nobody := grey_keys()) is nobody
