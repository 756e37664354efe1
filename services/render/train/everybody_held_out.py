"""Self-re-enactment for `everybody`: key pictures from the first part of a clip, windows to draw from the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from services.render.adapt.everybody_pairs import WindowView, window_pair
from services.render.adapt.pairs import NO_NOISE, window_rows
from services.render.heatmaps import WINDOW_FRAMES
from services.render.key_pictures import KeyPictures, choose_keys
from services.render.train.held_out import HeldOut, cut_in_two


def read_windows(folder: Path, name: str, *, use: str, num_frames: int, keys: KeyPictures | None = None) -> HeldOut:
    """A clip of a training set that is not trained on, cut in two as `read_held_out` cuts it.

    Args:
        folder: of the training set.
        name: part of the clip's file name.
        use: of the clip in the training set's metadata.
        num_frames: frames to draw, evenly spread; 0: all of the second part, one after the other.
        keys: of the actor; None: chosen from the enrolment part.
    """
    whole, bank, rows = cut_in_two(folder, name, use=use, num_frames=num_frames)
    chosen = keys or choose_keys(bank, np.arange(bank.num_frames))
    pairs = []
    for row in rows:
        window = window_rows(whole.frame_index, int(row), WINDOW_FRAMES)
        pairs.append(window_pair(whole, WindowView(window, whole.boxes[list(window)], chosen), NO_NOISE, 0))
    return HeldOut(name, bank, tuple(pairs), whole.box_landmarks[rows])
