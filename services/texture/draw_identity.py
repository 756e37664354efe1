"""The albedo modes of RetrieveWarp: instead of a retrieved texture, the identity's face in the wanted pose and expression.

The face is drawn by services/common/identity_drawing.py, which the renderer's training uses too, so that both see the same. Its
light is the identity's mean over the footage; bringing it to the light of a frame is the renderer's part.
"""

from __future__ import annotations

from services.common.crops import head_to_box
from services.common.errors import InvalidRequest
from services.common.identity_drawing import IdentityDrawing
from services.texture.types import TargetFrame, WarpedFrame, WarpMode


class IdentityStream:
    """Drawn faces for one stream of target frames. A frame's answer depends on nothing but the identity and itself."""

    def __init__(self, drawing: IdentityDrawing, mode: WarpMode) -> None:
        """Prepare a stream.

        Args:
            drawing: of the identity.
            mode: one of ALBEDO_MODES.

        Raises:
            InvalidRequest: the detailed albedo is wanted of an identity that has none.
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
        """The face of the next frame; None for one that is only context.

        Raises:
            InvalidRequest: the frame's index is not beyond the last one's.
        """
        if self._last_index is not None and frame.frame_index <= self._last_index:
            raise InvalidRequest(
                f"frame_index must increase: {frame.frame_index} came after {self._last_index}",
                field="frame.frame_index",
            )
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
