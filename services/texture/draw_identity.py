"""Albedo modes of RetrieveWarp: the identity's face in the wanted pose and expression, in place of a retrieved texture.

services/common/face/identity_drawing.py draws the face, in serving and in the renderer's training. The light is the identity's mean
over the footage. The renderer adapts the face to the light of a frame.
"""

from __future__ import annotations

from services.common.errors import InvalidRequest
from services.common.face.crops import head_to_box
from services.common.face.identity_drawing import IdentityDrawing
from services.texture.frame_order import check_order
from services.texture.types import TargetFrame, WarpedFrame, WarpMode


class IdentityStream:
    """Drawn faces for one stream of target frames. A frame's answer depends on the identity and the frame alone."""

    def __init__(self, drawing: IdentityDrawing, mode: WarpMode) -> None:
        """Prepare a stream.

        Args:
            drawing: drawing of the identity.
            mode: one of ALBEDO_MODES.

        Raises:
            InvalidRequest: the mode is DETAILED_ALBEDO, and the identity has no detailed albedo.
        """
        self._drawing = drawing
        self._detailed = mode is WarpMode.DETAILED_ALBEDO
        self._last_index: int | None = None
        if self._detailed and not drawing.has_detail:
            raise InvalidRequest(
                "this identity has no detailed albedo, since its morphable model has no texture coordinates",
                field="config.identity",
            )

    def push(self, frame: TargetFrame) -> WarpedFrame | None:
        """Return the face of the next frame; None for a context frame.

        Raises:
            InvalidRequest: the frame's index does not increase.
        """
        check_order(frame.frame_index, self._last_index)
        self._last_index = frame.frame_index
        if frame.context_only:
            return None
        return WarpedFrame(
            frame_index=frame.frame_index,
            texture=self._drawing.draw(frame.mouth, frame.pose, detailed=self._detailed),
            box_landmarks=head_to_box(frame.mouth, frame.pose),
            bank_frame_index=-1,
            distance=0.0,
            fitting_error=0.0,
            bending_energy=0.0,
        )
