"""A person's face drawn in the render box: the identity's shape and albedo, the expression that fits wanted mouth landmarks.

Yi et al., Sec. 3.3.1: identity, texture and light are the person's; expression and pose are given. The expression is fitted to
the 59 wanted mouth-area landmarks (expression_fit.py).

A frame costs a product of matrices and a rasterised mesh, and depends on no other frame. Departures from the paper: the camera is
the tracker's weak-perspective head pose in place of a pinhole, and the detailed albedo is merged from several frames
(services/face/fitting).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Float64, Floating
from services.common.errors import InvalidRequest
from services.common.face.crops import BOX_SIZE, HeadPose, box_from_frame
from services.common.face.drawing import FaceMesh, draw_detailed_face, draw_face
from services.common.face.expression_fit import ExpressionFit
from services.common.face.identity import FaceIdentity
from services.common.face.sheet import camera_in_crop
from services.common.geometry.morphable_model import MorphableModel
from services.common.geometry.rasterise import Backend

_BOX: Final = (BOX_SIZE, BOX_SIZE)
_FIELD: Final = "identity"


class IdentityDrawing:
    """Draws one person. Immutable after construction: threads may share the object.

    Pictures depend on the frame alone. The first picture of a process waits about a second for compiled kernels.
    """

    def __init__(self, identity: FaceIdentity, model: MorphableModel, *, backend: Backend = "numba") -> None:
        """Prepare the maps.

        Args:
            identity: identity of FitIdentity.
            model: the morphable model of the identity.
            backend: rasteriser.

        Raises:
            InvalidRequest: the model has no albedo, or too few mouth landmarks for an expression.
        """
        if model.albedo_mean is None:
            raise InvalidRequest(f"the morphable model {model.name!r} has no albedo: its faces cannot be drawn", field=_FIELD)
        self._identity, self._backend = identity, backend
        self._face = ExpressionFit(identity, model)
        self._mesh = FaceMesh.of(model)
        self._light = identity.light.astype(np.float64)
        self._albedo = np.clip(np.asarray(model.albedo(identity.albedo), np.float64), 0.0, 1.0)
        self._texture = identity.texture.astype(np.float32)

    @property
    def identity(self) -> FaceIdentity:
        """The drawn person's identity."""
        return self._identity

    @property
    def mesh(self) -> FaceMesh:
        """Drawn surface."""
        return self._mesh

    @property
    def has_detail(self) -> bool:
        """Whether the identity holds a detailed albedo."""
        return self._texture.size > 0

    def expression_of(self, mouth: Floating) -> Float32:
        """Return expression coefficients, float32 [E], see ExpressionFit.expression_of."""
        return self._face.expression_of(mouth)

    def shape_of(self, expression: Floating) -> Float64:
        """Return the person's face in head space, float64 [V, 3], for coefficients [E]."""
        return self._face.shape_of(expression)

    def draw(self, mouth: Floating, pose: HeadPose, *, detailed: bool) -> npt.NDArray[np.uint8]:
        """Return the face in the render box of a head pose: uint8 RGB [160, 160, 3].

        Pixels that the face does not cover, such as the open mouth, are 0, 0, 0. Covered pixels are never 0, 0, 0.

        Args:
            mouth: float [59, 3], wanted mouth-area landmarks in head space.
            pose: head pose in the frame; scale, roll and place cancel in the box.
            detailed: draw the detailed albedo; False: the low-frequency albedo.

        Raises:
            InvalidRequest: as `expression_of`, or the identity has no detailed albedo.
            BackendUnavailable: the rasteriser is not installed.
        """
        if detailed and not self.has_detail:
            raise InvalidRequest(
                "this identity has no detailed albedo: its morphable model has no texture coordinates", field=_FIELD
            )
        shape = self.shape_of(self.expression_of(mouth))
        camera = camera_in_crop(pose, box_from_frame(pose))
        if detailed:
            face = draw_detailed_face(self._mesh, shape, camera, self._texture, self._light, _BOX, backend=self._backend)
        else:
            face = draw_face(self._mesh, shape, camera, self._albedo, self._light, _BOX, backend=self._backend)
        picture = np.rint(face.picture).astype(np.uint8)
        picture[face.covered & ~picture.any(axis=-1)] = 1
        return picture
