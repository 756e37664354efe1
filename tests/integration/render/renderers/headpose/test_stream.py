from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from services.common.array_types import Float32
from services.common.errors import InvalidRequest
from services.common.face.crops import HeadPose
from services.common.face.mouth_bank import MouthBank
from services.render.key_pictures import STATE_SIZE, choose_keys, packed
from services.render.models import RenderModels
from services.render.streams import default_state, open_stream
from services.render.types import RenderedFrame, RenderFrame
from tests.unit.render.drawn_person import drawing
from tests.unit.render.rendering import committed_models


@pytest.fixture(scope="module", params=["onnxruntime-float32", "onnxruntime-int8"])
def models(request: pytest.FixtureRequest) -> RenderModels:
    return committed_models(request.param)


@pytest.fixture(scope="module")
def film(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> list[RenderFrame]:
    """Six frames in a row with drawn faces."""
    face, pose = drawing(), HeadPose(1.0, np.eye(3), np.zeros(3))
    return [
        RenderFrame(
            20 + row, bank.boxes[row], face.draw(bank.mouth[row + 5], pose, detailed=True), mask, bank.box_landmarks[row + 5]
        )
        for row in range(6)
    ]


def actor(models: RenderModels, bank: MouthBank) -> Float32:
    """The drawn person, with a state of some size."""
    length = models.files["headpose"].state_size - STATE_SIZE
    film = np.random.default_rng(2).normal(0.0, 0.05, length).astype(np.float32)
    return packed(film, choose_keys(bank, np.arange(bank.num_frames)))


def drawn(models: RenderModels, state: Float32, *chunks: list[RenderFrame]) -> list[RenderedFrame]:
    stream = open_stream(models.backend, models.files["headpose"], state)
    return [made for chunk in chunks for made in stream.render(chunk)]


def bytes_of(made: list[RenderedFrame]) -> list[tuple[int, bytes]]:
    return [(frame.frame_index, frame.box.tobytes()) for frame in made]


def test_neither_chunks_nor_where_a_stream_begins_change_a_byte(
    models: RenderModels, bank: MouthBank, film: list[RenderFrame]
) -> None:
    state = actor(models, bank)
    whole = bytes_of(drawn(models, state, film))
    assert [index for index, _ in whole] == list(range(20, 26))
    assert whole == bytes_of(drawn(models, state, film[:1], film[1:3], film[3:]))
    past = [replace(frame, context_only=True) for frame in film[2:4]]
    assert whole[4:] == bytes_of(drawn(models, state, [*past, *film[4:]]))
    assert whole[4] != bytes_of(drawn(models, state, film[4:5]))[0]


def test_after_a_gap_the_window_begins_anew(models: RenderModels, bank: MouthBank, film: list[RenderFrame]) -> None:
    state = actor(models, bank)
    assert bytes_of(drawn(models, state, [*film[:2], *film[4:]]))[2:] == bytes_of(drawn(models, state, film[4:]))


def test_the_footage_stays_outside_the_mask_and_is_not_seen_inside(
    models: RenderModels, bank: MouthBank, film: list[RenderFrame]
) -> None:
    state = actor(models, bank)
    (made,) = drawn(models, state, film[:1])
    outside = film[0].mask == 0
    assert np.array_equal(made.box[outside], film[0].background[outside])
    hidden = replace(film[0], background=np.where(film[0].mask[..., None] > 0, np.uint8(7), film[0].background))
    assert drawn(models, state, [hidden])[0].box.tobytes() == made.box.tobytes()


def test_it_draws_the_wanted_mouth(models: RenderModels, bank: MouthBank, film: list[RenderFrame]) -> None:
    face, pose = drawing(), HeadPose(1.0, np.eye(3), np.zeros(3))
    keys = packed(np.zeros(models.files["headpose"].state_size - STATE_SIZE, np.float32), choose_keys(bank, np.arange(48)))
    shut, wide = (
        drawn(
            models,
            keys,
            [replace(film[0], texture=face.draw(bank.mouth[row], pose, detailed=True), box_landmarks=bank.box_landmarks[row])],
        )[0].box.astype(int)
        for row in (0, 6)
    )
    x, y = bank.box_landmarks[6, 20:40].mean(axis=0).round().astype(int)
    middle = (slice(y - 3, y + 4), slice(x - 8, x + 9))
    truth = bank.boxes[6][middle].astype(int)
    assert np.abs(wide[middle] - truth).mean() < 0.6 * np.abs(shut[middle] - truth).mean()


def test_without_an_actor_and_without_a_drawn_face(models: RenderModels, film: list[RenderFrame]) -> None:
    nobody = default_state(models.files["headpose"])
    assert len(drawn(models, nobody, film[:1])) == 1
    with pytest.raises(InvalidRequest, match="texture is missing"):
        drawn(models, nobody, [replace(film[0], texture=None, context_only=True)])


def test_int8_is_near_float(bank: MouthBank, film: list[RenderFrame]) -> None:
    boxes = []
    for runtime in ("onnxruntime-float32", "onnxruntime-int8"):
        each = committed_models(runtime)
        boxes.append(drawn(each, actor(each, bank), film[:1])[0].box.astype(int))
    assert np.abs(boxes[0] - boxes[1]).mean() < 2.0
