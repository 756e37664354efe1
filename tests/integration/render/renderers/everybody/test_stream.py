from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from services.common.array_types import Float32
from services.common.errors import InvalidRequest
from services.common.face.mouth_bank import MouthBank
from services.render.key_pictures import STATE_SIZE, choose_keys, packed
from services.render.models import RenderModels
from services.render.streams import default_state, open_stream
from services.render.types import RenderedFrame, RenderFrame
from tests.unit.render.rendering import RUNTIMES, committed_models


@pytest.fixture(scope="module", params=RUNTIMES)
def models(request: pytest.FixtureRequest) -> RenderModels:
    return committed_models(request.param)


@pytest.fixture(scope="module")
def film(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> list[RenderFrame]:
    """Ten frames in a row, without textures."""
    return [RenderFrame(20 + row, bank.boxes[row], None, mask, bank.box_landmarks[row + 5]) for row in range(10)]


def actor(models: RenderModels, bank: MouthBank) -> Float32:
    """The drawn person, with a FiLM state of some size."""
    length = models.files["everybody"].state_size - STATE_SIZE
    film = np.random.default_rng(2).normal(0.0, 0.05, length).astype(np.float32)
    return packed(film, choose_keys(bank, np.arange(bank.num_frames)))


@pytest.fixture(scope="module")
def whole(models: RenderModels, bank: MouthBank, film: list[RenderFrame]) -> list[RenderedFrame]:
    """The film in one call."""
    return drawn(models, actor(models, bank), film)


def drawn(models: RenderModels, state: Float32, *chunks: list[RenderFrame]) -> list[RenderedFrame]:
    stream = open_stream(models.backend, models.files["everybody"], state)
    return [made for chunk in chunks for made in stream.render(chunk)]


def bytes_of(made: list[RenderedFrame]) -> list[tuple[int, bytes]]:
    return [(frame.frame_index, frame.box.tobytes()) for frame in made]


def test_chunks_change_no_byte(models: RenderModels, bank: MouthBank, film: list[RenderFrame], whole: list[RenderedFrame]) -> None:
    state = actor(models, bank)
    assert [made.frame_index for made in whole] == list(range(20, 30))
    assert bytes_of(whole) == bytes_of(drawn(models, state, film[:1], film[1:4], film[4:9], film[9:]))


def test_a_stream_with_its_past_gives_the_bytes_of_the_whole(
    models: RenderModels, bank: MouthBank, film: list[RenderFrame], whole: list[RenderedFrame]
) -> None:
    state = actor(models, bank)
    past = [replace(frame, context_only=True) for frame in film[2:8]]
    assert bytes_of(whole)[8:] == bytes_of(drawn(models, state, [*past, *film[8:]]))
    assert bytes_of(whole)[8:] != bytes_of(drawn(models, state, film[8:]))


def test_after_a_gap_the_window_begins_anew(models: RenderModels, bank: MouthBank, film: list[RenderFrame]) -> None:
    state = actor(models, bank)
    assert bytes_of(drawn(models, state, [*film[:2], *film[8:]]))[2:] == bytes_of(drawn(models, state, film[8:]))


def test_what_the_masks_hide_has_no_influence(models: RenderModels, bank: MouthBank, film: list[RenderFrame]) -> None:
    state = actor(models, bank)
    hidden = [replace(frame, background=np.where(frame.mask[..., None] > 0, np.uint8(7), frame.background)) for frame in film[:3]]
    assert bytes_of(drawn(models, state, film[:3])) == bytes_of(drawn(models, state, hidden))


def test_outside_the_mask_the_box_is_the_background(film: list[RenderFrame], whole: list[RenderedFrame]) -> None:
    for frame, made in zip(film, whole, strict=True):
        outside = frame.mask == 0
        assert np.array_equal(made.box[outside], frame.background[outside])
        assert np.array_equal(made.mask, frame.mask)


def test_the_wanted_landmarks_open_the_mouth(models: RenderModels, bank: MouthBank, film: list[RenderFrame]) -> None:
    state = actor(models, bank)
    wanted = [replace(film[0], frame_index=0, box_landmarks=bank.box_landmarks[row]) for row in (0, 6)]
    shut, wide = (drawn(models, state, [frame])[0].box.astype(int) for frame in wanted)
    x, y = bank.box_landmarks[6, 20:40].mean(axis=0).round().astype(int)
    middle = (slice(y - 3, y + 4), slice(x - 8, x + 9))
    truth = bank.boxes[6][middle].astype(int)
    assert np.abs(wide[middle] - truth).mean() < 0.6 * np.abs(shut[middle] - truth).mean()


def test_runtimes_agree(bank: MouthBank, film: list[RenderFrame]) -> None:
    boxes = []
    for runtime in RUNTIMES:
        loaded = committed_models(runtime)
        boxes.append(drawn(loaded, actor(loaded, bank), film[:1])[0].box.astype(int))
    float_, openvino, int8 = boxes
    assert np.abs(float_ - openvino).max() <= 1
    assert np.abs(float_ - int8).mean() < 1.5


def test_nobody_can_be_drawn(models: RenderModels, film: list[RenderFrame]) -> None:
    (made,) = drawn(models, default_state(models.files["everybody"]), film[:1])
    inside = film[0].mask == 255
    skin = made.box[inside].astype(int)
    assert np.abs(np.median(skin, axis=0) - np.median(film[0].background[~inside], axis=0)).max() < 60


def test_the_other_model_needs_a_texture(models: RenderModels, frames: list[RenderFrame], film: list[RenderFrame]) -> None:
    file = models.files["ugc"]
    stream = open_stream(models.backend, file, default_state(file))
    assert stream.render([replace(frames[0], context_only=True)]) == []
    with pytest.raises(InvalidRequest, match="texture is missing"):
        stream.render(film[:1])


def test_a_state_of_another_length_is_refused(models: RenderModels) -> None:
    with pytest.raises(InvalidRequest, match="has 3 numbers"):
        open_stream(models.backend, models.files["everybody"], np.zeros(3, np.float32))
