"""Self-re-enactment for `everyone`: texture and reference from the first part of a clip, windows of the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from services.common.array_types import UInt8
from services.common.face.neural_texture import NeuralSurface
from services.render.pairs import NO_NOISE, Pair
from services.render.renderers.everyone.actor_footage import bank_texture
from services.render.renderers.everyone.actor_state import reference_row
from services.render.renderers.everyone.pairs import Look, pair_of, seen_window
from services.render.renderers.everyone.train.speech import read_speech
from services.render.renderers.everyone.train.surfaces import read_surface
from services.render.train.held_out import Clip, HeldOut, TwoParts, held_out
from services.render.train.people import Stretch


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """Looks of a person.

    Attributes:
        texture: uint8 [256, 256, 16].
        reference: uint8 [160, 160, 3].
    """

    texture: UInt8
    reference: UInt8


def read_windows(
    clip: Clip, num_frames: int, surface: NeuralSurface, looks: Looks | None = None, *, silent: bool = False
) -> HeldOut:
    """Return a clip with windows of footage, filled with a texture.

    Args:
        clip: the clip.
        num_frames: number of frames to draw, evenly spread; 0: all frames of the second part, one after the other.
        surface: the person's surface.
        looks: looks of the actor; None: the first texture and the reference picture of the enrolment part.
        silent: leave the speech out.
    """
    speech = read_speech(clip.data, [Stretch(clip.row, 0, clip.row.usable_frames)])
    chosen = looks

    def pair(parts: TwoParts, row: int) -> Pair:
        nonlocal chosen
        bank = parts.bank
        chosen = chosen or Looks(bank_texture(bank, surface, 0), bank.boxes[reference_row(bank)].copy())
        around = np.zeros_like(speech[row]) if silent else speech[row]
        return pair_of(seen_window(parts.whole, row, surface, Look(chosen.reference, around, NO_NOISE, 0)), chosen.texture)

    return held_out(clip, num_frames, pair)


def read_held_out(clip: Clip, num_frames: int) -> HeldOut:
    """Return a held-out clip with windows for an actor who was not personalised; see services.render.train.held_out."""
    return read_windows(clip, num_frames, read_surface(clip.data, clip.row.speaker))
