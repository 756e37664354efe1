"""The rasteriser of the texture stage's settings: checked at the start, and used by every picture that the stage draws."""

import importlib.util
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubstage.texture.v1 import texture_pb2 as pb
from services.common.errors import BackendUnavailableError, InvalidRequestError
from services.common.face.landmarks import MOUTH_AREA
from services.common.face.neural_texture import ACTOR_FORMAT, ARRAY_NAME, TEXTURE_SHAPE
from services.common.geometry.rasterise import Backend
from services.common.geometry.rasterise_pytorch3d import is_installed
from services.common.server.settings import load_settings
from services.common.store.artefacts import ArtefactStore
from services.common.wire.convert import from_image, from_tensor, ref_to_proto
from services.texture.__main__ import compose
from services.texture.servicer import TextureServicer
from services.texture.settings import TextureSettings
from services.texture.types import PortraitFrame, TargetFrame, WarpMode
from tests.contract.texture.requests import face_stream, portrait_stream, target_to_proto, warped_from_proto
from tests.unit.texture.people import HEAD, LANDMARKS, POSE, a_person, a_portrait, turned

MOUTH = HEAD[list(MOUTH_AREA)]


@pytest.fixture
def settings(tmp_path: Path) -> TextureSettings:
    return load_settings(TextureSettings, port=0, artefacts_url=str(tmp_path), rasteriser="pytorch3d")


async def sent(requests: Iterable[Any]) -> AsyncIterator[Any]:
    for request in requests:
        yield request


class Drawings:
    """Return the pictures that the stage draws of a stored person, by the three RPCs that rasterise."""

    def __init__(self, settings: TextureSettings) -> None:
        self._parts = compose(settings)
        assert isinstance(self._parts.servicer, TextureServicer)
        self._servicer = self._parts.servicer
        store, person = ArtefactStore(settings.artefacts_url), a_person()
        texture = np.random.default_rng(4).integers(0, 256, TEXTURE_SHAPE).astype(np.uint8)
        self._identity = ref_to_proto(store.put_arrays(person.arrays(), person.metadata()))
        self._texture = ref_to_proto(store.put_arrays({ARRAY_NAME: texture}, {"format": ACTOR_FORMAT}))

    def close(self) -> None:
        for pool in self._parts.workers:
            pool.shutdown()

    def face(self, mode: WarpMode) -> AsyncIterator[pb.RetrieveWarpResponse]:
        return self._servicer.RetrieveWarp(sent(face_stream(mode, self._identity, [TargetFrame(0, MOUTH, POSE)])), None)

    def features(self) -> AsyncIterator[pb.SampleNeuralTextureResponse]:
        config = pb.SampleNeuralTextureConfig(texture=self._texture, identity=self._identity)
        frame = target_to_proto(TargetFrame(0, MOUTH, POSE)).frame
        requests = [pb.SampleNeuralTextureRequest(config=config), pb.SampleNeuralTextureRequest(target=frame)]
        return self._servicer.SampleNeuralTexture(sent(requests), None)

    def portrait(self) -> AsyncIterator[pb.RotatePortraitResponse]:
        pose = PortraitFrame(0, replace(POSE, rotation=turned(yaw=6.0)), 0.0)
        requests = portrait_stream(a_portrait(), LANDMARKS, POSE, self._identity, [pose])
        return self._servicer.RotatePortrait(sent(requests), None)


@pytest.fixture
def withdrawn(settings: TextureSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Drawings]:
    """A stage whose pytorch3d was there at the start only."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    drawings = Drawings(settings)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    yield drawings
    drawings.close()


def test_missing_rasteriser_ends_start(settings: TextureSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailableError, match=r"pytorch3d is not installed: install .* or choose the rasteriser numba"):
        compose(settings)
    with pytest.raises(InvalidRequestError, match="DUBSTAGE_RASTERISER"):
        load_settings(TextureSettings, rasteriser="opengl")


@pytest.mark.parametrize("mode", [WarpMode.LOW_FREQUENCY_ALBEDO, WarpMode.DETAILED_ALBEDO])
async def test_faces_use_chosen_rasteriser(withdrawn: Drawings, mode: WarpMode) -> None:
    with pytest.raises(BackendUnavailableError, match="pytorch3d"):
        await anext(withdrawn.face(mode))


async def test_drawings_use_chosen_rasteriser(withdrawn: Drawings) -> None:
    with pytest.raises(BackendUnavailableError, match="pytorch3d"):
        await anext(withdrawn.features())
    with pytest.raises(BackendUnavailableError, match="pytorch3d"):
        await anext(withdrawn.portrait())


@pytest.mark.skipif(not is_installed(), reason="pytorch3d is not installed (it is not on PyPI)")
async def test_pytorch3d_answers_as_numba(settings: TextureSettings) -> None:
    """A stage with PyTorch3D answers as a stage with numba."""

    async def drawn(backend: Backend) -> list[np.ndarray]:
        drawings = Drawings(settings.model_copy(update={"rasteriser": backend}))
        face = await anext(drawings.face(WarpMode.DETAILED_ALBEDO))
        features, portrait = await anext(drawings.features()), await anext(drawings.portrait())
        drawings.close()
        return [
            warped_from_proto(face).texture.astype(float),
            255.0 * from_tensor(features.features, "features", dtype=np.float32, shape=(None, None, 16)),
            from_image(portrait.picture, "picture", channels=3).astype(float),
        ]

    for ours, theirs in zip(await drawn("numba"), await drawn("pytorch3d"), strict=True):
        assert np.abs(ours - theirs).mean() < 0.05
        assert (np.abs(ours - theirs).max(axis=-1) > 2.0).mean() < 0.002
