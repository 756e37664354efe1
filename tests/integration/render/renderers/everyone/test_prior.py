"""The committed prior of `everyone` holds nobody: without an actor's texture and reference picture it draws no face."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from services.common.array_types import UInt8
from services.common.face.mouth_bank import MouthBank
from services.common.face.neural_texture import TEXTURE_SHAPE
from services.render.backends.registry import WEIGHTS_FOLDER
from services.render.models import RenderModels
from services.render.renderers.everyone.network import WEIGHTS
from services.render.streams import default_state, open_stream
from services.render.types import RenderedFrame, RenderFrame
from tests.unit.render.renderers.everyone.person import shown_frames
from tests.unit.render.rendering import committed_models

GREY = np.full(TEXTURE_SHAPE, 128, np.uint8)


@pytest.fixture(scope="module", params=["onnxruntime-float32", "onnxruntime-int8"])
def models(request: pytest.FixtureRequest) -> RenderModels:
    return committed_models(request.param)


@pytest.fixture(scope="module")
def film(bank: MouthBank, mask: UInt8) -> list[RenderFrame]:
    return shown_frames(bank, mask, GREY, 6)


def drawn(models: RenderModels, *chunks: list[RenderFrame]) -> list[RenderedFrame]:
    model = models.files["everyone"]
    stream = open_stream(models.backend, model, default_state(model))
    return [*(made for chunk in chunks for made in stream.render(chunk)), *stream.finish()]


def test_a_grey_texture_draws_no_face(models: RenderModels, film: list[RenderFrame], mask: UInt8) -> None:
    inside = mask == 255
    for made in drawn(models, film):
        filmed = film[made.frame_index].background[inside].astype(float)
        assert made.box[inside].astype(float).std(axis=0).max() < 0.5 * filmed.std(axis=0).max()
        assert np.array_equal(made.box[mask == 0], film[made.frame_index].background[mask == 0])


def test_neither_chunks_nor_where_a_stream_begins_change_a_byte(models: RenderModels, film: list[RenderFrame]) -> None:
    whole = [made.box.tobytes() for made in drawn(models, film)]
    assert whole == [made.box.tobytes() for made in drawn(models, film[:1], film[1:3], film[3:])]
    assert whole[2:5] == [made.box.tobytes() for made in drawn(models, film[1:])][1:4]


def test_no_array_of_the_weights_is_as_large_as_a_texture() -> None:
    arrays = load_file(WEIGHTS_FOLDER / WEIGHTS)
    assert max(array.size for array in arrays.values()) < np.prod(TEXTURE_SHAPE) / 8
