"""Landmark basis: the directions in which mouths move, and the coefficients along these directions.

    landmarks = rest_mouth + sum_k coefficient_k * spread_k * component_k        (head space, crop pixels)

The components are the principal components of the training speakers' offsets from their own mean mouths, the same for all people.
Rest mouth and spread are the person's.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from services.common.array_types import Float32
from services.common.store.tensor_bytes import NamedArrays


@dataclass(frozen=True, slots=True)
class LandmarkBasis:
    """Principal components of mouth motion, or expression components of a morphable model at the mouth-area points.

    Attributes:
        components: float32 [K, 59, 3], orthonormal under the weights of research.motion.basis.point_weights.
        dual: float32 [K, 59, 3], dual basis of the components: coefficient = <dual, offset>.
        typical_spread: float32 [K], size of each coefficient while the mouth is open (style.measure_mouth): mean over speakers.
    """

    components: Float32
    dual: Float32
    typical_spread: Float32

    @classmethod
    def named(cls, arrays: NamedArrays, prefix: str = "") -> LandmarkBasis:
        """Return the basis in named arrays; each name is `prefix` and the attribute's name."""
        return cls(*(arrays[f"{prefix}{field.name}"] for field in fields(cls)))

    def arrays(self, prefix: str = "") -> dict[str, Float32]:
        """Return the arrays by name, as `named` reads them."""
        return {f"{prefix}{field.name}": getattr(self, field.name) for field in fields(self)}

    def project(self, offsets: Float32) -> Float32:
        """Return coefficients of offsets from a mean mouth: [..., 59, 3] -> float32 [..., K], crop pixels."""
        return np.asarray(np.einsum("...pd,kpd->...k", offsets, self.dual), dtype=np.float32)

    def reconstruct(self, coefficients: Float32) -> Float32:
        """Return offsets of coefficients in crop pixels: [..., K] -> float32 [..., 59, 3]."""
        return np.asarray(np.einsum("...k,kpd->...pd", coefficients, self.components), dtype=np.float32)
