"""Identity of one person as an artefact: shape, albedo, light and texture on a morphable model, from FitIdentity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32
from services.common.errors import InvalidRequestError
from services.common.face.crops import MAX_HEAD_PX
from services.common.geometry.morphable_model import MorphableModel
from services.common.store.tensor_bytes import NamedArrays

FORMAT: Final = "dubstage.face_identity/1"
"""Metadata `format` of the artefact."""
_FIELD: Final = "identity"


@dataclass(frozen=True, eq=False)
class FaceIdentity:
    """Identity of one person on one model.

    Attributes:
        model: name of the morphable model.
        model_digest: digest of the model; coefficients have no meaning on another model.
        identity: float32 [I].
        offset: float32 [V, 3], head space: the person's neutral shape beyond the identity basis.
        albedo: float32 [A], coefficients: the low-frequency albedo; empty where the model has no albedo.
        light: float32 [9, 3], mean over the footage, camera axes; ambient where the model has no albedo.
        texture: uint8 [S, S, 3], the detailed albedo, 0..255 for albedo 0..1; [0, 0, 3] where the model has no texture
            coordinates or no albedo.
        seen: uint8 [S, S], 255 where the footage shows the texel, 0 where it was filled in.
        num_frames: number of frames of the fit.
        landmark_error: mean distance of projected and tracked landmarks, crop pixels.
        photometric_error: mean absolute difference of rendered and seen colours, 0..255.
    """

    model: str
    model_digest: str
    identity: Float32
    offset: Float32
    albedo: Float32
    light: Float32
    texture: npt.NDArray[np.uint8]
    seen: npt.NDArray[np.uint8]
    num_frames: int
    landmark_error: float
    photometric_error: float

    def neutral(self, model: MorphableModel) -> Float32:
        """Return the person's face without expression, float32 [V, 3], head space."""
        return np.asarray(model.shape(self.identity, np.zeros(model.num_expression, np.float32), self.offset), np.float32)

    def personal(self, model: MorphableModel) -> MorphableModel:
        """Return the model of this person alone: its mean shape is the neutral face, and it has no identity coefficients."""
        return model.with_neutral_shape(self.neutral(model))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays of the artefact. `identity_from_arrays` reads them."""
        names = ("identity", "offset", "albedo", "light", "texture", "seen")
        errors = np.array([self.landmark_error, self.photometric_error], np.float32)
        return {
            **{name: getattr(self, name) for name in names},
            "errors": errors,
            "num_frames": np.array([self.num_frames], np.int64),
        }

    def metadata(self) -> dict[str, str]:
        """Return the metadata of the artefact."""
        return {"format": FORMAT, "model": self.model, "model_digest": self.model_digest}


def model_of_identity(stored: NamedArrays) -> str:
    """Return the name of the morphable model of a stored identity.

    Raises:
        InvalidRequestError: the artefact is no identity.
    """
    if stored.metadata.get("format") != FORMAT or "model" not in stored.metadata:
        raise InvalidRequestError("this artefact is no face identity of FitIdentity", field=_FIELD)
    return stored.metadata["model"]


def identity_from_arrays(stored: NamedArrays, model: MorphableModel) -> FaceIdentity:
    """Return a stored identity.

    Args:
        stored: the artefact.
        model: the morphable model that `model_of_identity` names.

    Raises:
        InvalidRequestError: the artefact is no identity, belongs to another model, or is incomplete.
    """
    name = model_of_identity(stored)
    if stored.metadata.get("model_digest") != model.digest:
        raise InvalidRequestError(
            f"this identity was fitted on another {name!r} than the one installed here; fit it again", field=_FIELD
        )
    shapes = {
        "identity": (model.num_identity,),
        "offset": (model.num_vertices, 3),
        "albedo": (model.num_albedo,),
        "light": (9, 3),
        "errors": (2,),
        "num_frames": (1,),
    }
    for key, shape in shapes.items():
        array = stored.arrays.get(key)
        kind = "i" if key == "num_frames" else "f"
        # NaN fails this comparison.
        if array is None or array.shape != shape or array.dtype.kind != kind or not (np.abs(array) <= MAX_HEAD_PX).all():
            raise InvalidRequestError(
                f"this identity's {key} is missing, damaged or not {list(shape)}: fit the identity again", field=_FIELD
            )
    texture, seen = stored.arrays.get("texture"), stored.arrays.get("seen")
    if (
        texture is None
        or seen is None
        or seen.ndim != 2
        or texture.shape != (*seen.shape, 3)
        or {texture.dtype, seen.dtype} != {np.dtype(np.uint8)}
    ):
        raise InvalidRequestError("this identity's texture is missing or damaged: fit the identity again", field=_FIELD)
    landmark_error, photometric_error = stored.arrays["errors"]
    return FaceIdentity(
        model=name,
        model_digest=model.digest,
        **{key: np.asarray(stored.arrays[key], np.float32) for key in ("identity", "offset", "albedo", "light")},
        texture=np.asarray(texture),
        seen=np.asarray(seen),
        num_frames=int(stored.arrays["num_frames"][0]),
        landmark_error=float(landmark_error),
        photometric_error=float(photometric_error),
    )
