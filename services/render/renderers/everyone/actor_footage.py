"""What a bank gives of its person before any search: the first texture, and windows to learn from."""

from __future__ import annotations

from typing import Final

import numpy as np

from services.common.array_types import Float32, UInt8
from services.common.chassis.calls import check_still_wanted
from services.common.face.crops import HeadPose
from services.common.face.mouth_bank import SPEECH_SHAPE, MouthBank
from services.common.face.neural_texture import NeuralSurface
from services.render.pairs import NEAREST_FRAMES, LandmarkNoise, spread_rows
from services.render.renderers.everyone.actor_state import reference_row
from services.render.renderers.everyone.pairs import Look, SeenWindow, seen_window
from services.render.renderers.everyone.unprojection import first_texture

_UNPROJECTED: Final = 32
"""Frames that the first texture is made of."""
_SILENT_SHARE: Final = 0.15
"""Share of the windows whose speech is left out, so that the texture does not rely on speech."""


def bank_texture(bank: MouthBank, surface: NeuralSurface, seed: int) -> UInt8:
    """Return the first texture of a bank's person, uint8 [256, 256, 16], from frames that are evenly spread over the bank.

    Fitted expressions serve if the bank holds them, else the expressions that the landmarks give.

    Args:
        bank: pictures, landmarks and poses of the person.
        surface: the person's surface.
        seed: random seed of the channels that do not resemble RGB.
    """

    def seen(row: int) -> tuple[UInt8, Float32]:
        check_still_wanted()
        expression = surface.expression_of(bank.mouth[row]) if bank.expression is None else bank.expression[row]
        return bank.boxes[row], surface.uv_of(expression, HeadPose(1.0, bank.rotation[row], np.zeros(3)))

    return first_texture((seen(int(row)) for row in spread_rows(np.arange(bank.num_frames), _UNPROJECTED)), seed)


def actor_windows(bank: MouthBank, surface: NeuralSurface, count: int, seed: int) -> list[SeenWindow]:
    """Return windows of the bank, evenly spread. The reference picture of a window shows another moment, if there is one.

    Args:
        bank: pictures, landmarks and poses of the person.
        surface: the person's surface.
        count: largest number of windows.
        seed: random seed of noise, references and silence.

    Raises:
        Cancelled: the call that this is done for is over.
    """
    rng = np.random.default_rng((seed, 0))
    own, silence = reference_row(bank), np.zeros(SPEECH_SHAPE, np.float32)
    windows = []
    for row in spread_rows(np.arange(bank.num_frames), count):
        check_still_wanted()
        far = np.flatnonzero(np.abs(bank.frame_index - bank.frame_index[row]) > NEAREST_FRAMES)
        other = own if own in far or not len(far) else int(rng.choice(far))
        is_silent = bank.speech is None or rng.random() < _SILENT_SHARE
        look = Look(
            reference=bank.boxes[other],
            speech=silence if is_silent or bank.speech is None else bank.speech[row],
            noise=LandmarkNoise(),
            seed=int(rng.integers(1 << 31)),
        )
        windows.append(seen_window(bank, int(row), surface, look))
    return windows
