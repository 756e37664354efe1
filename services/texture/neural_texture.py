"""Sampling of a neural texture for a stream of frames (Saunders and Namboodiri, Sec. 3.3)."""

from __future__ import annotations

from services.common.array_types import UInt8
from services.common.errors import InvalidRequestError
from services.common.face.neural_texture import NeuralSurface, sample
from services.texture.artefacts import StoredFaces
from services.texture.types import SampledFrame, TargetFrame, TextureConfig, UvFrame, check_order


class TextureStream:
    """Features for one stream of frames. The answer of a frame depends on the person and the frame alone."""

    def __init__(self, texture: UInt8, surface: NeuralSurface | None) -> None:
        """Prepare a stream.

        Args:
            texture: uint8 [256, 256, 16], the person's neural texture.
            surface: the person's surface; None: the stream takes UV maps only.
        """
        self._texture, self._surface = texture, surface
        self._last_index: int | None = None

    def push(self, frame: UvFrame | TargetFrame) -> SampledFrame | None:
        """Return the features of the next frame; None for a context frame.

        Raises:
            InvalidRequestError: the frame's index does not increase, or a target frame has no surface.
        """
        check_order(frame.frame_index, self._last_index, "uv" if isinstance(frame, UvFrame) else "target")
        self._last_index = frame.frame_index
        if isinstance(frame, UvFrame):
            return SampledFrame(frame.frame_index, sample(self._texture, frame.uv))
        if self._surface is None:
            raise InvalidRequestError(
                "config.identity is missing: target frames are drawn with the identity", field="config.identity"
            )
        if frame.context_only:
            return None
        uv = self._surface.uv_of(self._surface.expression_of(frame.mouth), frame.pose)
        return SampledFrame(frame.frame_index, sample(self._texture, uv))


def open_texture(config: TextureConfig, stored: StoredFaces) -> TextureStream:
    """Return the stream of a configuration.

    Raises:
        InvalidRequestError, ArtefactNotFoundError, ArtefactCorruptError, ModelNotFoundError: the texture or the identity cannot be
            used.
    """
    texture = stored.texture(config.texture)
    surface = None if config.identity is None else stored.surface(config.identity)
    return TextureStream(texture, surface)
