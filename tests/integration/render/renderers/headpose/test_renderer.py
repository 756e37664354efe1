from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from services.common.errors import InvalidRequestError
from services.common.face.crops import HeadPose
from services.common.face.mouth_bank import MouthBank
from services.render.key_pictures import STATE_SIZE, choose_keys, packed
from services.render.streams import RenderModels, default_state
from services.render.types import RenderFrame
from tests.integration.render.renderers.drawn_actor import DrawnActor, bytes_of, drawn_by
from tests.integration.render.renderers.masks import is_background_outside, repainted
from tests.unit.render.drawn_person import drawing
from tests.unit.render.rendering import committed_models


@pytest.fixture(scope="module", params=["onnxruntime-float32", "onnxruntime-int8"])
def models(request: pytest.FixtureRequest) -> RenderModels:
    return committed_models(request.param)


@pytest.fixture(scope="module")
def clip(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> list[RenderFrame]:
    """Six frames in a row with drawn faces."""
    face, pose = drawing(), HeadPose(1.0, np.eye(3), np.zeros(3))
    return [
        RenderFrame(
            20 + row, bank.boxes[row], face.draw(bank.mouth[row + 5], pose, detailed=True), mask, bank.box_landmarks[row + 5]
        )
        for row in range(6)
    ]


def person(models: RenderModels, bank: MouthBank) -> DrawnActor:
    """The drawn person, with a state of some size."""
    length = models.files["headpose"].state_size - STATE_SIZE
    film = np.random.default_rng(2).normal(0.0, 0.05, length).astype(np.float32)
    return DrawnActor(models, "headpose", packed(film, choose_keys(bank, np.arange(bank.num_frames))))


def test_parts_of_a_stream(actor: DrawnActor, clip: list[RenderFrame]) -> None:
    """Neither the chunks nor the start of a stream change a byte, and after a gap the window begins anew."""
    whole = bytes_of(actor.drawn(clip))
    assert [index for index, _ in whole] == list(range(20, 26))
    assert whole == bytes_of(actor.drawn(clip[:1], clip[1:3], clip[3:]))
    past = [replace(frame, context_only=True) for frame in clip[2:4]]
    assert whole[4:] == bytes_of(actor.drawn([*past, *clip[4:]]))
    assert whole[4] != bytes_of(actor.drawn(clip[4:5]))[0]
    assert bytes_of(actor.drawn([*clip[:2], *clip[4:]]))[2:] == bytes_of(actor.drawn(clip[4:]))


def test_footage_hidden_inside_mask(actor: DrawnActor, clip: list[RenderFrame]) -> None:
    """The footage stays outside the mask and is not seen inside."""
    (made,) = actor.drawn(clip[:1])
    assert is_background_outside(clip[0], made)
    assert bytes_of(actor.drawn([repainted(clip[0])])) == bytes_of([made])


def test_it_draws_the_wanted_mouth(models: RenderModels, bank: MouthBank, clip: list[RenderFrame]) -> None:
    face, pose = drawing(), HeadPose(1.0, np.eye(3), np.zeros(3))
    keys = packed(np.zeros(models.files["headpose"].state_size - STATE_SIZE, np.float32), choose_keys(bank, np.arange(48)))
    untrained = DrawnActor(models, "headpose", keys)
    textures = {row: face.draw(bank.mouth[row], pose, detailed=True) for row in (0, 6)}
    target = [replace(clip[0], texture=textures[row], box_landmarks=bank.box_landmarks[row]) for row in (0, 6)]
    shut, wide = (untrained.drawn([frame])[0].box.astype(int) for frame in target)
    x, y = bank.box_landmarks[6, 20:40].mean(axis=0).round().astype(int)
    middle = (slice(y - 3, y + 4), slice(x - 8, x + 9))
    truth = bank.boxes[6][middle].astype(int)
    assert np.abs(wide[middle] - truth).mean() < 0.6 * np.abs(shut[middle] - truth).mean()


def test_without_an_actor_and_without_a_drawn_face(models: RenderModels, clip: list[RenderFrame]) -> None:
    nobody = DrawnActor(models, "headpose", default_state(models.files["headpose"]))
    assert len(nobody.drawn(clip[:1])) == 1
    with pytest.raises(InvalidRequestError, match="texture is missing"):
        nobody.drawn([replace(clip[0], texture=None, context_only=True)])


def test_int8_is_near_float(bank: MouthBank, clip: list[RenderFrame]) -> None:
    float_, int8 = drawn_by(("onnxruntime-float32", "onnxruntime-int8"), lambda models: person(models, bank), clip[0])
    assert np.abs(float_ - int8).mean() < 2.0
