from dataclasses import replace

import numpy as np
import numpy.typing as npt

from services.common.face.mouth_bank import MouthBank
from services.render.renderers.hetero.renderer import STATE_SIZE, packed
from services.render.streams import RenderModels, default_state
from services.render.types import RenderedFrame, RenderFrame
from tests.integration.render.renderers.drawn_actor import DrawnActor, bytes_of, drawn_by
from tests.integration.render.renderers.masks import is_background_outside, repainted, skin_error
from tests.unit.render.rendering import RUNTIMES


def person(models: RenderModels, bank: MouthBank) -> DrawnActor:
    """The drawn person, with numbers of some size for the layers."""
    length = models.files["hetero"].state_size - STATE_SIZE
    numbers = np.random.default_rng(2).normal(0.0, 0.02, length).astype(np.float32)
    return DrawnActor(models, "hetero", packed(numbers, bank.boxes[5]))


def test_parts_of_a_stream(actor: DrawnActor, clip: list[RenderFrame], whole: list[RenderedFrame]) -> None:
    """Chunks change no byte, and a part with the frames before and after gives the bytes of the whole stream."""
    assert [made.frame_index for made in whole] == list(range(20, 30))
    assert bytes_of(whole) == bytes_of(actor.drawn(clip[:1], clip[1:4], clip[4:9], clip[9:]))
    part = [replace(frame, context_only=place not in (4, 5)) for place, frame in enumerate(clip)][2:8]
    assert bytes_of(whole)[4:6] == bytes_of(actor.drawn(part))
    for alone in (part[:4], part[2:]):
        assert bytes_of(whole)[4:6] != bytes_of(actor.drawn(alone))


def test_mask_divides_face_and_footage(actor: DrawnActor, clip: list[RenderFrame], whole: list[RenderedFrame]) -> None:
    """What the masks hide has no influence, and outside the mask the box is the background."""
    assert bytes_of(actor.drawn(clip[:3])) == bytes_of(actor.drawn(list(map(repainted, clip[:3]))))
    assert all(is_background_outside(frame, made) for frame, made in zip(clip, whole, strict=True))


def opened_by(shut: RenderedFrame, wide: RenderedFrame, bank: MouthBank) -> npt.NDArray[np.float64]:
    """Return the change of the mouth if the target mouth is open, grey levels, flat."""
    x, y = bank.box_landmarks[6, 20:40].mean(axis=0).round().astype(int)
    part = slice(y - 14, y + 15), slice(x - 18, x + 19)
    return np.asarray(wide.box[part].astype(np.float64) - shut.box[part]).ravel()


def test_reference_changes_skin_not_lips(actor: DrawnActor, bank: MouthBank, clip: list[RenderFrame]) -> None:
    untrained = replace(actor, state=packed(np.zeros(len(actor.state) - STATE_SIZE, np.float32), bank.boxes[0]))
    # A moustache and a beard.
    bearded = bank.boxes[0].copy()
    bearded[110:150:2, 30:130] //= 3
    shut, wide = (replace(clip[0], frame_index=0, box_landmarks=bank.box_landmarks[row]) for row in (0, 6))
    pictures = [[untrained.drawn([frame], reference=given)[0] for frame in (shut, wide)] for given in (None, bearded)]
    own, other = (each[0].box.astype(int) for each in pictures)
    chin = slice(118, 140), slice(50, 110)
    assert np.abs(own[chin] - other[chin]).mean() > 3.0
    changes = [opened_by(closed, opened, bank) for closed, opened in pictures]
    assert min(np.abs(change).mean() for change in changes) > 4.0
    assert np.corrcoef(*changes)[0, 1] > 0.6


def test_own_reference_is_default(actor: DrawnActor, bank: MouthBank, clip: list[RenderFrame], whole: list[RenderedFrame]) -> None:
    """The actor's own reference is used unless another is given."""
    other = replace(actor, state=packed(actor.state[:-STATE_SIZE], bank.boxes[0]))
    assert bytes_of(other.drawn(clip)) != bytes_of(whole)
    given = [bytes_of(each.drawn(clip, reference=bank.boxes[30])) for each in (actor, other)]
    assert given[0] == given[1]


def test_runtimes_agree(bank: MouthBank, clip: list[RenderFrame]) -> None:
    float_, openvino, int8 = drawn_by(RUNTIMES, lambda models: person(models, bank), clip[0])
    assert np.abs(float_ - openvino).max() <= 1
    assert np.abs(float_ - int8).mean() < 1.5


def test_nobody_can_be_drawn(models: RenderModels, clip: list[RenderFrame]) -> None:
    (made,) = DrawnActor(models, "hetero", default_state(models.files["hetero"])).drawn(clip[:1])
    assert skin_error(clip[0], made) < 60
