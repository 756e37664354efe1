from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.common.errors import InvalidRequestError
from services.common.face.morphable_models import MorphableModels
from services.common.face.mouth_bank import FORMAT, MouthBank, bank_arrays
from services.common.face.neural_texture import TEXTURE_SHAPE, neural_texture_from_arrays
from services.common.store.artefacts import ArrayCache, ArtefactStore
from services.render.actors import ActorStates
from tests.unit.render.drawn_person import person
from tests.unit.render.toy import Toy


@pytest.fixture
def store(tmp_path: Path) -> ArtefactStore:
    return ArtefactStore(tmp_path / "artefacts")


@pytest.fixture
def actors(store: ArtefactStore) -> ActorStates:
    return ActorStates(store, ArrayCache(store, max_bytes=1 << 20), MorphableModels(None))


def test_state_bound_to_prior(actors: ActorStates, tmp_path: Path) -> None:
    """A stored state comes back for its own prior only."""
    model = Toy(state_size=3).write(tmp_path)
    assert not actors.state(None, model).any()
    state = np.array([1.0, -2.0, 3.0], np.float32)
    ref = actors.store_state(state, model)
    assert np.array_equal(actors.state(ref, model), state)
    with pytest.raises(InvalidRequestError, match=r"config\.actor .* model 'toy'"):
        actors.state(ref, replace(model, prior_sha256="1" * 64))
    with pytest.raises(InvalidRequestError, match=r"config\.actor: expected float32 \[4\], got float32 \[3\]"):
        actors.state(ref, replace(model, state_size=4))


def test_a_neural_texture_is_stored_beside_the_state(actors: ActorStates, store: ArtefactStore, tmp_path: Path) -> None:
    model = Toy(state_size=3).write(tmp_path)
    state = np.array([1.0, -2.0, 3.0], np.float32)
    texture = np.random.default_rng(1).integers(0, 256, TEXTURE_SHAPE).astype(np.uint8)
    ref = actors.store_state(state, model, texture)
    assert np.array_equal(actors.state(ref, model), state)
    assert np.array_equal(neural_texture_from_arrays(store.get_arrays(ref)), texture)
    with pytest.raises(InvalidRequestError, match="no neural texture"):
        neural_texture_from_arrays(store.get_arrays(actors.store_state(state, model)))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e5])
def test_invalid_state_refused(actors: ActorStates, tmp_path: Path, value: float) -> None:
    """A state of no numbers or too large ones is refused."""
    model = Toy(state_size=3).write(tmp_path)
    ref = actors.store_state(np.array([0.0, value, 0.0], np.float32), model)
    with pytest.raises(InvalidRequestError, match=r"config\.actor is damaged"):
        actors.state(ref, model)


def test_banks_and_identities_are_told_apart(actors: ActorStates, store: ArtefactStore, bank: MouthBank, tmp_path: Path) -> None:
    stored = store.put_arrays(bank_arrays(bank), {"format": FORMAT})
    identity = store.put_arrays(person().arrays(), person().metadata())
    assert actors.bank(stored).num_frames == bank.num_frames
    assert actors.drawing(identity) is not None
    assert actors.drawing(None) is None
    with pytest.raises(InvalidRequestError, match="no face identity"):
        actors.drawing(stored)
    with pytest.raises(InvalidRequestError):
        actors.bank(identity)
    with pytest.raises(InvalidRequestError, match=r"config\.actor: not a renderer's actor"):
        actors.state(stored, Toy(state_size=3).write(tmp_path))
