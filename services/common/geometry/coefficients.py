"""Coefficients from landmarks, by regularised least squares in closed form.

With known cameras the landmarks are linear in the coefficients. The objective

    sum_t,n  w_n |D R_t (mean_n + B_id alpha + B_exp beta_t - x_tn)|^2 + ridge (|alpha / dev|^2 + |beta_t / dev|^2)

has one solution. x are the landmarks brought back to head space. D = diag(1, 1, sqrt(depth_weight)), because the tracker's depth is
the least certain coordinate. All frames of a clip share the identity alpha: the expressions are eliminated frame by frame (Schur
complement), without iterations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from services.common.array_types import Float32, Float64, Floating
from services.common.errors import InvalidRequestError
from services.common.geometry.camera import WeakPerspective
from services.common.geometry.morphable_model import LandmarkSet, MorphableModel


@dataclass(frozen=True, slots=True)
class FittedCoefficients:
    """Coefficients of a clip.

    Attributes:
        identity: float32 [I], shared by the clip.
        expression: float32 [T, E].
        error: float32 [T], mean distance in the picture between projected and given landmarks, frame pixels.
    """

    identity: Float32
    expression: Float32
    error: Float32


def coefficients_from_landmarks(
    model: MorphableModel,
    image: Floating,
    camera: WeakPerspective,
    *,
    landmarks: str | LandmarkSet = "mediapipe",
    identity: Floating | None = None,
    offset: Floating | None = None,
    weights: Floating | None = None,
    depth_weight: float = 0.1,
    ridge: float = 1.0,
) -> FittedCoefficients:
    """Return the coefficients that fit tracked landmarks under known cameras, in closed form.

    Args:
        model: the face model, in the head space of the cameras.
        image: [T, N, 2] or [T, N, 3], frame pixels, N points in the order of `landmarks`; z in the tracker's unit.
        camera: weak perspective of T frames.
        landmarks: name of one of the model's sets, or a set.
        identity: [I], known identity; None estimates one for all T frames.
        offset: [V, 3], the actor's own shape.
        weights: [N] or [T, N], weight of each landmark, 0 for hidden landmarks; None: 1 for each.
        depth_weight: weight of z relative to x and y; without effect where `image` has no z.
        ridge: weight of the coefficients' prior, as a squared tracking error in head space (crop pixels squared).

    Raises:
        InvalidRequestError: shapes do not match, or values are not finite.
    """
    chosen = _landmark_set(model, landmarks)
    points = _check(np.asarray(image, np.float64), len(chosen), camera)
    frames, has_depth = len(points), points.shape[-1] == 3
    scale, rotation = np.asarray(camera.scale, np.float64), np.asarray(camera.rotation, np.float64)
    metric = _metric(rotation, depth_weight if has_depth else 0.0)
    if not has_depth:
        points = np.concatenate([points, np.zeros((frames, len(chosen), 1))], -1)
    head = ((points - np.asarray(camera.translation, np.float64)[:, None]) @ rotation) / scale[:, None, None]
    mean = chosen.of(model.mean_shape if offset is None else model.mean_shape + offset)
    residual = head - mean
    trust = np.broadcast_to(np.ones(len(chosen)) if weights is None else np.asarray(weights, np.float64), (frames, len(chosen)))
    # Coefficients are in standard deviations here, so that the prior is the identity matrix.
    expression_basis = _scaled(chosen, model.expression_basis, model.expression_deviation)
    identity_basis = _scaled(chosen, model.identity_basis, model.identity_deviation)
    if identity is not None:
        alpha = np.asarray(identity, np.float64) / model.identity_deviation
        residual = residual - identity_basis @ alpha
        beta = _solve_expression(expression_basis, residual, metric, trust, ridge)
    else:
        alpha, beta = _solve_both(identity_basis, expression_basis, residual, metric, trust, ridge)
        residual = residual - identity_basis @ alpha
    left = residual - np.einsum("ndk,tk->tnd", expression_basis, beta)
    error = np.linalg.norm(np.einsum("tij,tnj->tni", rotation[:, :2], left), axis=-1) * scale[:, None]
    seen = np.maximum(trust.sum(-1), 1e-12)
    return FittedCoefficients(
        (alpha * model.identity_deviation).astype(np.float32),
        (beta * model.expression_deviation).astype(np.float32),
        ((error * trust).sum(-1) / seen).astype(np.float32),
    )


def _solve_expression(basis: Float64, residual: Float64, metric: Float64, trust: Float64, ridge: float) -> Float64:
    """Return beta [T, E] of min sum_n w |D R (B beta - residual)|^2 + ridge |beta|^2, frame by frame."""
    normal = _normal(basis, basis, metric, trust) + ridge * np.eye(basis.shape[-1])
    return np.asarray(np.linalg.solve(normal, _right(basis, residual, metric, trust)[..., None])[..., 0])


def _solve_both(
    identity: Float64, expression: Float64, residual: Float64, metric: Float64, trust: Float64, ridge: float
) -> tuple[Float64, Float64]:
    """Return alpha [I] and beta [T, E]. The expressions are eliminated, so that only one I x I system is left for the clip."""
    inner = _normal(expression, expression, metric, trust) + ridge * np.eye(expression.shape[-1])
    cross = _normal(expression, identity, metric, trust)
    right = _right(expression, residual, metric, trust)
    eliminated = np.linalg.solve(inner, np.concatenate([cross, right[..., None]], -1))
    size = identity.shape[-1]
    outer = _normal(identity, identity, metric, trust).sum(0) + ridge * np.eye(size)
    target = _right(identity, residual, metric, trust).sum(0)
    schur = outer - np.einsum("tek,tel->kl", cross, eliminated[..., :size])
    alpha = np.linalg.solve(schur, target - np.einsum("tek,te->k", cross, eliminated[..., size]))
    return alpha, eliminated[..., size] - eliminated[..., :size] @ alpha


def _metric(rotation: Float64, depth_weight: float) -> Float64:
    """Return R^T diag(1, 1, depth_weight) R, [T, 3, 3]: the weight of each direction of head space in the picture."""
    return np.asarray(rotation.mT @ (rotation * np.array([1.0, 1.0, depth_weight])[:, None]))


def _normal(a: Float64, b: Float64, metric: Float64, trust: Float64) -> Float64:
    """Return sum_n w_tn A_n^T M_t B_n, [T, K, L]. If all frames have equal weights, the bases are multiplied only once."""
    if (trust == trust[:1]).all():
        products = np.einsum("ndk,nel,n->dekl", a, b, trust[0], optimize=True)
        return np.asarray(np.einsum("tde,dekl->tkl", metric, products, optimize=True))
    weighted = np.einsum("tn,tde,nel->tndl", trust, metric, b, optimize=True)
    return np.asarray(np.einsum("ndk,tndl->tkl", a, weighted, optimize=True))


def _right(basis: Float64, residual: Float64, metric: Float64, trust: Float64) -> Float64:
    """Return sum_n w_tn B_n^T M_t r_tn, [T, K]."""
    weighted = np.einsum("tde,tne->tnd", metric, residual) * trust[..., None]
    return np.asarray(np.einsum("ndk,tnd->tk", basis, weighted, optimize=True))


def _scaled(chosen: LandmarkSet, basis: Float32, deviation: Float32) -> Float64:
    return chosen.of_basis(basis).astype(np.float64) * deviation


def _landmark_set(model: MorphableModel, landmarks: str | LandmarkSet) -> LandmarkSet:
    return model.landmark_set(landmarks) if isinstance(landmarks, str) else landmarks


def _check(image: Float64, count: int, camera: WeakPerspective) -> Float64:
    if image.ndim != 3 or image.shape[1] != count or image.shape[2] not in (2, 3):
        raise InvalidRequestError(f"landmarks are {list(image.shape)}, not [T, {count}, 2 or 3]", field="landmarks")
    if np.shape(camera.scale) != (len(image),):
        raise InvalidRequestError(f"{len(image)} frames of landmarks and cameras of shape {np.shape(camera.scale)}", field="camera")
    if not np.isfinite(image).all():
        raise InvalidRequestError("landmarks have values that are not finite; leave those frames out", field="landmarks")
    return image
