"""Renderer of `everybody`: each frame with the six before it, from landmarks and key pictures.

face = first key picture + residual(window of masked footage and heatmaps, mask, key pictures; FiLM state)

Input of the network of `everybody`: one frame and its window (paper `everybody`, Sec. 3.3.1).

A frame gives four channels: its RGB picture with noise in place of the mouth area, and a grey picture with a Gaussian at each of
the 59 target landmarks (Jakab et al. 2018). Seven frames, t-6 to t, make a window.

The paper hides a square. Here the render box is that square already: the lower-face mask spans nearly all of its width. So the
noise fills the mask, whose shape depends on person and head pose only, and the rest of the box is left to be seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from services.common.array_types import Array, Float32, UInt8
from services.common.face.crops import BOX_SIZE
from services.render.backends.model_files import INPUT_PICTURES, INPUT_STATE, OUTPUT_RESIDUAL
from services.render.key_pictures import NUM_KEYS, matched_keys, unpacked
from services.render.renderer import NetworkInputs, StreamSetup, Window, drawn_face, with_face, without_dots
from services.render.types import RenderFrame

WINDOW_FRAMES: Final = 7
"""Frames t-6 to t that the network sees (paper: a sliding window of seven)."""
FRAME_CHANNELS: Final = 4
"""Masked RGB and heatmap."""
WINDOW_CHANNELS: Final = FRAME_CHANNELS * WINDOW_FRAMES + 1 + 3 * NUM_KEYS
"""Channels of `window_picture`: the paper's (3 + 1) x 7, the mask, and the key pictures."""

KEYS_BEFORE: Final = slice(3, 6)
KEYS_AFTER: Final = slice(WINDOW_CHANNELS - 3 * (NUM_KEYS - 1), WINDOW_CHANNELS)

_SPREAD_PX: Final = 1.8
_NOISE_LOW: Final = 96
_NOISE_HIGH: Final = 160
_NOISE_SEED: Final = 20213


def landmark_heatmap(box_landmarks: Float32, size: int = BOX_SIZE) -> UInt8:
    """Return Gaussians round the landmarks, added up: uint8 [size, size], 255 where the sum reaches 1 or more.

    In a box of 160 pixels their spread is 1.8 pixels; the spread grows with the box.

    Args:
        box_landmarks: float32 [N, 2], box pixels; landmarks far outside leave no trace.
        size: side of the render box, pixels.
    """
    points = np.asarray(box_landmarks, np.float32)
    pixels, spread = np.arange(size, dtype=np.float32), _SPREAD_PX * (size // BOX_SIZE)
    across, down = (np.exp(-0.5 * ((pixels - points[:, axis : axis + 1]) / spread) ** 2) for axis in (0, 1))
    # The Gaussian is separable: all of them together are one product of matrices.
    heat = down.T @ across
    return np.asarray(np.rint(np.minimum(heat, 1.0) * 255.0), dtype=np.uint8)


def hidden_by_noise(background: UInt8, mask: UInt8, frame_index: int) -> UInt8:
    """Return the picture with noise wherever the mask is above 0: uint8 [H, W, 3].

    The noise depends on the frame's index alone, so it is the same however a stream is cut. It is uniform over a quarter of
    the range: full-range noise, which changes from frame to frame, would have to be learned to be ignored before anything else.

    Args:
        background: uint8 [H, W, 3].
        mask: uint8 [H, W].
        frame_index: index of the frame in its video.
    """
    rng = np.random.default_rng((_NOISE_SEED, frame_index & 0xFFFFFFFF))
    noise = rng.integers(_NOISE_LOW, _NOISE_HIGH, background.shape, dtype=np.uint8)
    return np.where(mask[:, :, None] > 0, noise, background)


def frame_channels(background: UInt8, mask: UInt8, box_landmarks: Float32, frame_index: int) -> UInt8:
    """Return masked RGB and heatmap of one frame: uint8 [H, W, 4]."""
    return np.dstack([hidden_by_noise(background, mask, frame_index), landmark_heatmap(box_landmarks, len(mask))])


def window_picture(window: Sequence[UInt8], mask: UInt8, keys: UInt8) -> UInt8:
    """Return the network's input: uint8 [H, W, WINDOW_CHANNELS].

    Channels 0 to 7: masked RGB of frame t, the first key picture, mask, heatmap of t, as services.render.losses.compose expects
    them. Then come frames t-1 to t-6, then the other key pictures.

    Args:
        window: seven results of `frame_channels`, t-6 to t.
        mask: uint8 [H, W], mask of frame t.
        keys: uint8 [NUM_KEYS, H, W, 3], aligned and colour-matched to frame t.

    Raises:
        ValueError: another number of frames or key pictures.
    """
    if len(window) != WINDOW_FRAMES or len(keys) != NUM_KEYS:
        raise ValueError(f"{WINDOW_FRAMES} frames and {NUM_KEYS} key pictures expected, {len(window)} and {len(keys)} given")
    now = window[-1]
    return np.dstack([now[..., :3], keys[0], mask, now[..., 3], *window[-2::-1], *keys[1:]])


class EverybodyRenderer:
    """See services.render.renderer.FrameRenderer. The window keeps each frame's own channels, uint8 [H, W, FRAME_CHANNELS]."""

    def __init__(self, setup: StreamSetup) -> None:
        film, self._keys = unpacked(setup.state)
        self.actor_inputs: Final[Mapping[str, Array]] = {INPUT_STATE: film}

    def prepare(self, frame: RenderFrame) -> UInt8:
        """See FrameRenderer.prepare."""
        return frame_channels(frame.background, frame.mask, frame.box_landmarks, frame.frame_index)

    def network_inputs(self, window: Window[UInt8]) -> NetworkInputs:
        """See FrameRenderer.network_inputs."""
        frame = window.frame
        keys = matched_keys(self._keys, frame.background, frame.mask, frame.box_landmarks)
        return NetworkInputs({INPUT_PICTURES: window_picture(window.items, frame.mask, keys)}, keys[0])

    def draw(self, window: Window[UInt8], inputs: NetworkInputs, outputs: Mapping[str, Array]) -> UInt8:
        """See FrameRenderer.draw."""
        return with_face(window.frame, without_dots(drawn_face(inputs.base, outputs[OUTPUT_RESIDUAL])))
