"""Names of network inputs and outputs that several renderers share. Each export sheet lists the names of its own network."""

from __future__ import annotations

from typing import Final

INPUT_PICTURES: Final = "pictures"
"""Input: the channels of one frame and its window, uint8 [batch, H, W, C]."""
INPUT_STATE: Final = "actor_state"
"""Input: the part of an actor's state that the network takes, float32 [batch, S], or float32 [S] for all frames of a batch."""
OUTPUT_RESIDUAL: Final = "residual"
"""Output: grey levels to add to a picture that the renderer chooses, float32 [batch, H, W, 3]."""
