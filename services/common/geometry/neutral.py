"""A person's neutral shape from tracked frames: what identity is beyond the basis, which few speakers limit."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.geometry.array_module import Float32
from services.common.geometry.morphable_model import MorphableModel
from services.common.landmarks import INNER_LOWER_MIDDLE, INNER_UPPER_MIDDLE, LEFT_EYE_LIDS, RIGHT_EYE_LIDS

CLOSED_SHARE: Final = 0.25
"""Share of the frames with open eyes, those with the smallest mouth opening, that the neutral shape is the mean of."""
BLINKING_SHARE: Final = 0.25
"""Share of all frames, those with the narrowest eyes, that don't count."""


def neutral_shape(shapes: npt.NDArray[np.floating]) -> Float32:
    """The mean of the frames with closed lips and open eyes, float32 [468, 3].

    Args:
        shapes: [T, >= 468, 3], the tracker's meshes of one person brought to head space (`WeakPerspective.unproject`), T >= 1.
    """
    eyes = _gap(shapes, RIGHT_EYE_LIDS + LEFT_EYE_LIDS)
    opening = _gap(shapes, tuple(zip(INNER_UPPER_MIDDLE, INNER_LOWER_MIDDLE, strict=True)))
    awake = eyes >= np.quantile(eyes, BLINKING_SHARE)
    chosen = awake & (opening <= np.quantile(opening[awake], CLOSED_SHARE))
    return np.asarray(shapes[chosen, :468].astype(np.float64).mean(0), np.float32)


def own_shape(model: MorphableModel, identity: npt.NDArray[np.floating], neutral: npt.NDArray[np.floating]) -> Float32:
    """What a person's neutral shape has beyond the identity basis, float32 [V, 3]: the `offset` of `MorphableModel.shape`.

    Args:
        model: a model on the tracker's own vertices (the default one).
        identity: [I], the person's coefficients.
        neutral: [V, 3], `neutral_shape` of the person.
    """
    by_basis = model.shape(np.asarray(identity, np.float32), np.zeros(model.num_expression, np.float32))
    return np.asarray(neutral - by_basis, np.float32)


def _gap(shapes: npt.NDArray[np.floating], pairs: tuple[tuple[int, int], ...]) -> npt.NDArray[np.floating]:
    """Mean distance in the picture plane of pairs of vertices, [T]."""
    a, b = np.array(pairs).T
    return np.asarray(np.linalg.norm(shapes[:, a, :2] - shapes[:, b, :2], axis=-1).mean(1))
