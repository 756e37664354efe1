from dataclasses import replace

import numpy as np
import pytest

from services.common.errors import InvalidRequestError
from services.common.face.mouth_bank import MouthBank
from services.render.key_pictures import STATE_SIZE, choose_keys, packed
from services.render.streams import RenderModels, default_state, open_stream
from services.render.types import RenderedFrame, RenderFrame
from tests.integration.render.renderers.drawn_actor import DrawnActor, bytes_of, drawn_by
from tests.integration.render.renderers.masks import is_background_outside, repainted, skin_error
from tests.unit.render.rendering import RUNTIMES


def person(models: RenderModels, bank: MouthBank) -> DrawnActor:
    """The drawn person, with a FiLM state of some size."""
    length = models.files["everybody"].state_size - STATE_SIZE
    film = np.random.default_rng(2).normal(0.0, 0.05, length).astype(np.float32)
    return DrawnActor(models, "everybody", packed(film, choose_keys(bank, np.arange(bank.num_frames))))


def test_parts_of_a_stream(actor: DrawnActor, clip: list[RenderFrame], whole: list[RenderedFrame]) -> None:
    """Chunks change no byte, a part with its past gives the bytes of the whole, and after a gap the window begins anew."""
    assert [made.frame_index for made in whole] == list(range(20, 30))
    assert bytes_of(whole) == bytes_of(actor.drawn(clip[:1], clip[1:4], clip[4:9], clip[9:]))
    past = [replace(frame, context_only=True) for frame in clip[2:8]]
    assert bytes_of(whole)[8:] == bytes_of(actor.drawn([*past, *clip[8:]]))
    assert bytes_of(whole)[8:] != bytes_of(actor.drawn(clip[8:]))
    assert bytes_of(actor.drawn([*clip[:2], *clip[8:]]))[2:] == bytes_of(actor.drawn(clip[8:]))


def test_mask_divides_face_and_footage(actor: DrawnActor, clip: list[RenderFrame], whole: list[RenderedFrame]) -> None:
    """What the masks hide has no influence, and outside the mask the box is the background."""
    assert bytes_of(actor.drawn(clip[:3])) == bytes_of(actor.drawn(list(map(repainted, clip[:3]))))
    assert all(is_background_outside(frame, made) for frame, made in zip(clip, whole, strict=True))


def test_the_wanted_landmarks_open_the_mouth(actor: DrawnActor, bank: MouthBank, clip: list[RenderFrame]) -> None:
    target = [replace(clip[0], frame_index=0, box_landmarks=bank.box_landmarks[row]) for row in (0, 6)]
    shut, wide = (actor.drawn([frame])[0].box.astype(int) for frame in target)
    x, y = bank.box_landmarks[6, 20:40].mean(axis=0).round().astype(int)
    middle = (slice(y - 3, y + 4), slice(x - 8, x + 9))
    truth = bank.boxes[6][middle].astype(int)
    assert np.abs(wide[middle] - truth).mean() < 0.6 * np.abs(shut[middle] - truth).mean()


def test_runtimes_agree(bank: MouthBank, clip: list[RenderFrame]) -> None:
    float_, openvino, int8 = drawn_by(RUNTIMES, lambda models: person(models, bank), clip[0])
    assert np.abs(float_ - openvino).max() <= 1
    assert np.abs(float_ - int8).mean() < 1.5


def test_nobody_can_be_drawn(models: RenderModels, clip: list[RenderFrame]) -> None:
    """Without an actor, the renderer draws nobody; a state of another length is refused."""
    (made,) = DrawnActor(models, "everybody", default_state(models.files["everybody"])).drawn(clip[:1])
    assert skin_error(clip[0], made) < 60
    with pytest.raises(InvalidRequestError, match="has 3 numbers"):
        open_stream(models.backend, models.files["everybody"], np.zeros(3, np.float32))


def test_the_other_model_needs_a_texture(models: RenderModels, frames: list[RenderFrame], clip: list[RenderFrame]) -> None:
    file = models.files["ugc"]
    stream = open_stream(models.backend, file, default_state(file))
    assert stream.render([replace(frames[0], context_only=True)]) == []
    with pytest.raises(InvalidRequestError, match="texture is missing"):
        stream.render(clip[:1])
