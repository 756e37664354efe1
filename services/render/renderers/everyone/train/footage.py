"""Batches for the prior of `everyone`: windows of all people, in changing colours, with reference pictures of other moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from services.common.array_types import Float32, UInt8
from services.common.face.mouth_bank import SPEECH_SHAPE
from services.common.face.neural_texture import NeuralSurface
from services.render.pairs import NEAREST_FRAMES
from services.render.renderers.everyone.learned_textures import Colours
from services.render.renderers.everyone.pairs import Look, SeenWindow, pair_of, seen_window, stacked
from services.render.renderers.everyone.train.speech import read_speech
from services.render.train.colours import random_colours
from services.render.train.footage import Source
from services.render.train.people import People, Stretch
from services.training.trainset.reader import BoundedCache, TrainSet

_SILENT_SHARE: Final = 0.15
_GREY_SHARE: Final = 0.04
_FRESH_SHARE: Final = 0.25
_GREY: Final = 128
_SPEECH_CACHE_BYTES: Final = 1 << 28


@dataclass(frozen=True, slots=True, eq=False)
class WindowBatch:
    """Examples of a pass.

    Attributes:
        windows: the windows, without textures.
        colours: colours that the windows were brought to and the textures are not.
        people: place of each example's person among all people of the training.
        firsts: uint8 [256, 256, 16] each, first textures of these people.
        fresh: whether an example is shown the first texture, as an actor is who was not personalised yet.
    """

    windows: SeenWindow
    colours: Colours
    people: tuple[int, ...]
    firsts: tuple[UInt8, ...]
    fresh: tuple[bool, ...]

    @property
    def pictures(self) -> UInt8:
        """Inputs of the network with the first textures in the windows' colours: uint8 [B, 160, 160, PICTURE_CHANNELS]."""
        made = []
        for place, texture in enumerate(self.firsts):
            window = SeenWindow(*(values[place] for values in _parts(self.windows)))
            made.append(pair_of(window, _painted(texture, self.colours, place)).picture)
        return np.stack(made)

    @property
    def targets(self) -> UInt8:
        """Frames t of the footage: uint8 [B, 160, 160, 3]."""
        return self.windows.boxes[:, 1]


@dataclass(frozen=True, slots=True, eq=False)
class TexturedPeople:
    """What the source needs of the people beside their footage, in the order of the people.

    Attributes:
        data: the training set.
        surfaces: surfaces of the people.
        firsts: uint8 [256, 256, 16] each, first textures.
    """

    data: TrainSet
    surfaces: Sequence[NeuralSurface]
    firsts: Sequence[UInt8]


class WindowSource(Source[WindowBatch]):
    """Draws batches from people, each person as often as their share says.

    Args:
        people: the people to draw from.
        textured: surfaces and first textures of these people.
        seed: random seed.
    """

    def __init__(self, people: People, textured: TexturedPeople, *, seed: int) -> None:
        super().__init__(people, seed=seed)
        self.textured = textured
        self._speech = BoundedCache[tuple[Stretch, ...], Float32](
            lambda parts: read_speech(textured.data, parts), lambda speech: speech.nbytes, _SPEECH_CACHE_BYTES
        )

    def batch(self, step: int, index: int, size: int) -> WindowBatch:
        """See Source.batch."""
        rng = self._rng(step, index)
        windows, tables, mixings, people, fresh = [], [], [], [], []
        for _ in range(size):
            person = self.people.draw(rng, step)
            bank, row = person.bank, int(rng.integers(person.bank.num_frames))
            # The reference picture must not show the moment that is asked for.
            far = np.flatnonzero(np.abs(bank.frame_index - bank.frame_index[row]) > NEAREST_FRAMES)
            other = bank.boxes[int(rng.choice(far))] if len(far) else np.full_like(bank.boxes[row], _GREY)
            is_grey, is_silent, is_mirrored = rng.random() < _GREY_SHARE, rng.random() < _SILENT_SHARE, rng.random() < 0.5
            colours = random_colours(rng)
            speech = self._speech[self.people.parts(person.number, step)][row]
            look = Look(
                reference=np.full_like(other, _GREY) if is_grey else other,
                speech=np.zeros(SPEECH_SHAPE, np.float32) if is_silent else speech,
                noise=self._noise,
                seed=int(rng.integers(1 << 31)),
                paint=colours.of,
            )
            window = seen_window(bank, row, self.textured.surfaces[person.number], look)
            windows.append(_mirrored(window) if is_mirrored else window)
            tables.append(colours.table.astype(np.float32) / 255.0)
            mixings.append(colours.mixing)
            people.append(person.number)
            fresh.append(bool(rng.random() < _FRESH_SHARE))
        return WindowBatch(
            stacked(windows),
            Colours(np.stack(tables), np.stack(mixings)),
            tuple(people),
            tuple(self.textured.firsts[number] for number in people),
            tuple(fresh),
        )


def _mirrored(window: SeenWindow) -> SeenWindow:
    """Return a window seen in a mirror. Texture coordinates keep their values, so the texture is seen in the mirror too."""
    boxes, grounds, masks = (values[:, :, ::-1] for values in (window.boxes, window.grounds, window.masks))
    return SeenWindow(boxes, grounds, masks, window.uv[:, :, ::-1], window.reference[:, ::-1], window.lips[:, ::-1], window.speech)


def _parts(windows: SeenWindow) -> tuple[UInt8 | Float32, ...]:
    return windows.boxes, windows.grounds, windows.masks, windows.uv, windows.reference, windows.lips, windows.speech


def _painted(texture: UInt8, colours: Colours, place: int) -> UInt8:
    mixed = np.clip(texture[..., :3] @ colours.mixings[place].T, 0.0, 255.0)
    table = np.rint(colours.tables[place] * 255.0).astype(np.uint8)
    return np.dstack([table[np.rint(mixed).astype(np.uint8)], texture[..., 3:]])
