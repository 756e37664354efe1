"""A person's neutral shape from the tracker's meshes, and the part of the shape that an identity basis leaves out."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32
from services.common.face.landmarks import INNER_LOWER_MIDDLE, INNER_UPPER_MIDDLE, LEFT_EYE_LIDS, RIGHT_EYE_LIDS
from services.common.geometry.morphable_model import MorphableModel

CLOSED_SHARE: Final = 0.25
"""The neutral shape is the mean of this share of the frames with open eyes: the frames with the smallest mouth opening."""
BLINKING_SHARE: Final = 0.25
"""Share of all frames that is left out: the frames with the narrowest eyes."""


def neutral_shape(shapes: npt.NDArray[np.floating]) -> Float32:
    """Return the mean of the frames with closed lips and open eyes, float32 [468, 3].

    Args:
        shapes: [T, >= 468, 3], the tracker's meshes of one person brought to head space (`WeakPerspective.unproject`), T >= 1.
    """
    eyes = _gap(shapes, RIGHT_EYE_LIDS + LEFT_EYE_LIDS)
    opening = _gap(shapes, tuple(zip(INNER_UPPER_MIDDLE, INNER_LOWER_MIDDLE, strict=True)))
    awake = eyes >= np.quantile(eyes, BLINKING_SHARE)
    chosen = awake & (opening <= np.quantile(opening[awake], CLOSED_SHARE))
    return np.asarray(shapes[chosen, :468].astype(np.float64).mean(0), np.float32)


def own_shape(model: MorphableModel, identity: npt.NDArray[np.floating], neutral: npt.NDArray[np.floating]) -> Float32:
    """Return the neutral shape of a person minus the shape by the identity basis, float32 [V, 3]: `offset` of
    `MorphableModel.shape`.

    Args:
        model: a model on the tracker's own vertices (the default one).
        identity: [I], the person's coefficients.
        neutral: [V, 3], `neutral_shape` of the person.
    """
    by_basis = model.shape(np.asarray(identity, np.float32), np.zeros(model.num_expression, np.float32))
    return np.asarray(neutral - by_basis, np.float32)


def _gap(shapes: npt.NDArray[np.floating], pairs: tuple[tuple[int, int], ...]) -> npt.NDArray[np.floating]:
    """Return the mean distance of pairs of vertices in the picture plane, [T]."""
    a, b = np.array(pairs).T
    return np.asarray(np.linalg.norm(shapes[:, a, :2] - shapes[:, b, :2], axis=-1).mean(1))
