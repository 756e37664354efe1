from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from services.common.errors import ArtefactNotFoundError
from services.common.face.morphable_models import MorphableModels
from services.common.store.artefacts import ArrayCache, ArtefactRef, ArtefactStore
from services.texture.artefacts import StoredFaces
from services.texture.bank import build_bank

if TYPE_CHECKING:
    from tests.unit.texture.conftest import DrawnPerson


@pytest.fixture
def store(tmp_path: Path) -> ArtefactStore:
    return ArtefactStore(tmp_path / "artefacts")


def faces_of(store: ArtefactStore, person: DrawnPerson, cache_bytes: int) -> tuple[StoredFaces, ArtefactRef]:
    stored = StoredFaces(store, ArrayCache(store, max_bytes=cache_bytes), MorphableModels(None), "numba")
    return stored, stored.keep_bank(build_bank([person.bank_frame(frame) for frame in range(8)]))


def test_streams_share_the_costs_of_a_cached_bank(store: ArtefactStore, person: DrawnPerson) -> None:
    stored, ref = faces_of(store, person, 1 << 24)
    costs = stored.inside_costs(ref)
    assert stored.inside_costs(ref) is costs
    assert costs.bank.num_frames == 8


def test_costs_leave_memory_with_the_bank(store: ArtefactStore, person: DrawnPerson) -> None:
    """The costs of a bank that the cache does not hold are computed for each stream."""
    stored, ref = faces_of(store, person, 0)
    assert stored.inside_costs(ref) is not stored.inside_costs(ref)


def test_erased_bank_is_not_served_from_memory(store: ArtefactStore, person: DrawnPerson) -> None:
    stored, ref = faces_of(store, person, 1 << 24)
    stored.inside_costs(ref)
    store.delete(ref)
    with pytest.raises(ArtefactNotFoundError):
        stored.inside_costs(ref)
