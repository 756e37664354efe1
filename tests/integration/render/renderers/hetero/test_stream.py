from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from services.common.array_types import Float32, UInt8
from services.common.face.mouth_bank import MouthBank
from services.render.models import RenderModels
from services.render.renderers.hetero.reference import STATE_SIZE, packed
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
    """The drawn person, with numbers of some size for the layers."""
    length = models.files["hetero"].state_size - STATE_SIZE
    numbers = np.random.default_rng(2).normal(0.0, 0.02, length).astype(np.float32)
    return packed(numbers, bank.boxes[5])


@pytest.fixture(scope="module")
def whole(models: RenderModels, bank: MouthBank, film: list[RenderFrame]) -> list[RenderedFrame]:
    """The film in one call."""
    return drawn(models, actor(models, bank), film)


def drawn(models: RenderModels, state: Float32, *chunks: list[RenderFrame], reference: UInt8 | None = None) -> list[RenderedFrame]:
    stream = open_stream(models.backend, models.files["hetero"], state, reference)
    return [*(made for chunk in chunks for made in stream.render(chunk)), *stream.finish()]


def bytes_of(made: list[RenderedFrame]) -> list[tuple[int, bytes]]:
    return [(frame.frame_index, frame.box.tobytes()) for frame in made]


def test_chunks_change_no_byte(models: RenderModels, bank: MouthBank, film: list[RenderFrame], whole: list[RenderedFrame]) -> None:
    state = actor(models, bank)
    assert [made.frame_index for made in whole] == list(range(20, 30))
    assert bytes_of(whole) == bytes_of(drawn(models, state, film[:1], film[1:4], film[4:9], film[9:]))


def test_a_part_with_frames_before_and_after_gives_the_bytes_of_the_whole(
    models: RenderModels, bank: MouthBank, film: list[RenderFrame], whole: list[RenderedFrame]
) -> None:
    state = actor(models, bank)
    part = [replace(frame, context_only=place not in (4, 5)) for place, frame in enumerate(film)][2:8]
    assert bytes_of(whole)[4:6] == bytes_of(drawn(models, state, part))
    for alone in (part[:4], part[2:]):
        assert bytes_of(whole)[4:6] != bytes_of(drawn(models, state, alone))


def test_what_the_masks_hide_has_no_influence(models: RenderModels, bank: MouthBank, film: list[RenderFrame]) -> None:
    state = actor(models, bank)
    hidden = [replace(frame, background=np.where(frame.mask[..., None] > 0, np.uint8(7), frame.background)) for frame in film[:3]]
    assert bytes_of(drawn(models, state, film[:3])) == bytes_of(drawn(models, state, hidden))


def test_outside_the_mask_the_box_is_the_background(film: list[RenderFrame], whole: list[RenderedFrame]) -> None:
    for frame, made in zip(film, whole, strict=True):
        outside = frame.mask == 0
        assert np.array_equal(made.box[outside], frame.background[outside])
        assert np.array_equal(made.mask, frame.mask)


def opened_by(shut: RenderedFrame, wide: RenderedFrame, bank: MouthBank) -> npt.NDArray[np.float64]:
    """What changes in the mouth if the wanted mouth is open, grey levels, flat."""
    x, y = bank.box_landmarks[6, 20:40].mean(axis=0).round().astype(int)
    part = slice(y - 14, y + 15), slice(x - 18, x + 19)
    return np.asarray(wide.box[part].astype(np.float64) - shut.box[part]).ravel()


def test_another_reference_changes_the_skin_and_not_the_lips_that_are_wanted(
    models: RenderModels, bank: MouthBank, film: list[RenderFrame]
) -> None:
    state = packed(np.zeros(len(actor(models, bank)) - STATE_SIZE, np.float32), bank.boxes[0])
    # A moustache and a beard.
    bearded = bank.boxes[0].copy()
    bearded[110:150:2, 30:130] //= 3
    shut, wide = (replace(film[0], frame_index=0, box_landmarks=bank.box_landmarks[row]) for row in (0, 6))
    pictures = [[drawn(models, state, [frame], reference=given)[0] for frame in (shut, wide)] for given in (None, bearded)]
    own, other = (each[0].box.astype(int) for each in pictures)
    chin = slice(118, 140), slice(50, 110)
    assert np.abs(own[chin] - other[chin]).mean() > 3.0
    changes = [opened_by(closed, opened, bank) for closed, opened in pictures]
    assert min(np.abs(change).mean() for change in changes) > 4.0
    assert np.corrcoef(*changes)[0, 1] > 0.6


def test_the_actors_own_reference_is_used_unless_another_is_given(
    models: RenderModels, bank: MouthBank, film: list[RenderFrame], whole: list[RenderedFrame]
) -> None:
    numbers = actor(models, bank)[:-STATE_SIZE]
    other = packed(numbers, bank.boxes[0])
    assert bytes_of(drawn(models, other, film)) != bytes_of(whole)
    given = [bytes_of(drawn(models, state, film, reference=bank.boxes[30])) for state in (actor(models, bank), other)]
    assert given[0] == given[1]


def test_runtimes_agree(bank: MouthBank, film: list[RenderFrame]) -> None:
    boxes = []
    for runtime in RUNTIMES:
        loaded = committed_models(runtime)
        boxes.append(drawn(loaded, actor(loaded, bank), film[:1])[0].box.astype(int))
    float_, openvino, int8 = boxes
    assert np.abs(float_ - openvino).max() <= 1
    assert np.abs(float_ - int8).mean() < 1.5


def test_nobody_can_be_drawn(models: RenderModels, film: list[RenderFrame]) -> None:
    (made,) = drawn(models, default_state(models.files["hetero"]), film[:1])
    inside = film[0].mask == 255
    skin = made.box[inside].astype(int)
    assert np.abs(np.median(skin, axis=0) - np.median(film[0].background[~inside], axis=0)).max() < 60
