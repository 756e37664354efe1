"""Hands before a face, by MediaPipe's hand networks: a palm detector, and 21 landmarks of each palm.

Skin before skin changes colours little, so the colours alone (quality.py) tell that something covers a face, and not where. The
networks take some ten times as long as the mesh of a face. So they look only where the colours of a face have changed.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from services.common.array_types import Float32, Float64, UInt8
from services.common.face.crops import CROP_SIZE, HeadPose, apply_affine, crop_from_frame, invert
from services.common.face.hands import MAX_HANDS, NUM_HAND_LANDMARKS, hand_mask
from services.common.face.sampling import sample_patch
from services.face.detection import EXECUTOR, Graph, landmarks_of
from services.face.quality import covered_share

LOOK_FROM: Final = 0.008
"""Share of the lower face with foreign colours from which on hands are looked for. Of nine talking people without a hand, seven
stayed below in every frame."""
_PATCH: Final = 256
_REACH: Final = 2.0
"""Side of the patch, in sides of the face crop."""
_FINGERS: Final = (
    ((98, 140), (82, 72)),
    ((118, 125), (112, 48)),
    ((138, 125), (140, 48)),
    ((157, 138), (170, 66)),
    ((165, 175), (215, 135)),
)
"""First and last point of each finger of a drawn hand, pixels of a patch."""
_SKIN: Final = (224, 172, 140)
_GRAPH: Final = (
    EXECUTOR
    + f"""
input_stream: "image"
output_stream: "hands"
node {{
  calculator: "ConstantSidePacketCalculator"
  output_side_packet: "PACKET:0:num_hands"
  output_side_packet: "PACKET:1:model_complexity"
  output_side_packet: "PACKET:2:use_prev_landmarks"
  options {{
    [mediapipe.ConstantSidePacketCalculatorOptions.ext] {{
      packet {{ int_value: {MAX_HANDS} }} packet {{ int_value: 0 }} packet {{ bool_value: false }}
    }}
  }}
}}
node {{
  calculator: "HandLandmarkTrackingCpu"
  input_stream: "IMAGE:image"
  input_side_packet: "NUM_HANDS:num_hands"
  input_side_packet: "MODEL_COMPLEXITY:model_complexity"
  input_side_packet: "USE_PREV_LANDMARKS:use_prev_landmarks"
  output_stream: "LANDMARKS:hands"
}}
"""
)


class HandNetwork:
    """MediaPipe's hand networks, without memory of earlier pictures."""

    def __init__(self) -> None:
        self._graph = Graph(_GRAPH, ("hands",))
        # The calculator of a hand's place writes a note at the first hand, and the first picture of a graph is read in silence.
        self._graph.run(drawn_hand())

    def __call__(self, picture: UInt8) -> Float32:
        """Return the landmarks of at most two hands, float32 [N, 21, 2], pixels.

        Args:
            picture: uint8 RGB [S, S, 3].
        """
        packet = self._graph.run(picture).get("hands")
        hands = [] if packet is None else [landmarks_of(message) for message in self._graph.get.get_proto_list(packet)]
        points = np.array([hand[:, :2] for hand in hands], np.float32).reshape(-1, NUM_HAND_LANDMARKS, 2)
        return np.asarray(points * len(picture) - 0.5, np.float32)

    def close(self) -> None:
        """Free the networks."""
        self._graph.close()


def drawn_hand() -> UInt8:
    """Return a drawing in which the networks find one hand, uint8 RGB [256, 256, 3]."""
    picture = np.zeros((_PATCH, _PATCH, 3), np.uint8)
    cv2.ellipse(picture, (128, 165), (42, 48), 0, 0, 360, _SKIN, -1)
    cv2.rectangle(picture, (104, 195), (152, _PATCH), _SKIN, -1)
    for begin, end in _FINGERS:
        cv2.line(picture, begin, end, _SKIN, 18, cv2.LINE_AA)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 2), np.uint8)


def hands_before(network: HandNetwork, picture: UInt8, landmarks: Float32, pose: HeadPose) -> tuple[Float32, float]:
    """Return the hands that cover a part of a face, and the share of the lower face that they cover.

    Args:
        picture: uint8 RGB [H, W, 3].
        landmarks: float32 [478, 3], of the face, frame pixels.
        pose: head pose of the face.

    Returns:
        float32 [N, 21, 2], frame pixels, and the share, 0 to 1.
    """
    affine = _patch_from_frame(pose)
    hands = network(sample_patch(picture, affine, (_PATCH, _PATCH)))
    face = apply_affine(affine, landmarks)
    shares = [covered_share(hand_mask(hand[None], _PATCH), face) for hand in hands]
    near = [hand for hand, share in zip(hands, shares, strict=True) if share > 0.0]
    if not near:
        return np.empty((0, NUM_HAND_LANDMARKS, 2), np.float32), 0.0
    together = np.stack(near)
    return apply_affine(invert(affine), together), covered_share(hand_mask(together, _PATCH), face)


def _patch_from_frame(pose: HeadPose) -> Float64:
    """Return the similarity frame pixels -> patch pixels, float64 [2, 3]. Face crop and patch have the same middle."""
    affine = crop_from_frame(pose)
    affine[:, 2] += (_REACH - 1.0) / 2.0 * CROP_SIZE + 0.5
    affine *= _PATCH / (_REACH * CROP_SIZE)
    affine[:, 2] -= 0.5
    return affine
