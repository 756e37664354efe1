"""Fit of light, albedo, shape and pose to colours, by Gauss-Newton steps with analytic derivatives.

The fit minimises, over the pose, expression and light of every frame and over the identity and albedo that all frames share:

    sum_s v_s |I(q_s) - 255 a_s * (Phi(n_s) L)|^2 / sigma^2  +  landmarks / landmark_px^2  +  |coefficients / deviation|^2

For surface point s, q_s is the projection in the picture, n_s the normal, a_s the albedo, and L the spherical-harmonics light (Yi
et al., Sec. 3.1; Blanz and Vetter 1999). A picture is compared at points of the surface, not at pixels. The set of points is
therefore fixed within a step, and only the picture and the model have derivatives. The rasteriser finds the hidden points. Frames
share only identity and albedo: each frame's own unknowns are eliminated (Schur complement), so time and memory grow linearly with
the number of frames. Steps are damped (Levenberg and Marquardt). A step is taken only if the sum falls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Float64
from services.common.face.drawing import draw_face
from services.common.geometry.camera import WeakPerspective
from services.common.geometry.lighting import NUM_COEFFICIENTS, estimate_light, shading_basis
from services.common.geometry.rasterise import Backend
from services.common.geometry.rotations import matrix_from_axis_angle
from services.face.fitting.frames import FrameFits, landmark_errors
from services.face.fitting.model import ModelLandmarks, Surface, normal_slopes, shading_slope
from services.face.fitting.person import PersonShape

_BLUR_PX: Final = 1.2
_POSE: Final = 7
_LIGHT: Final = 3 * NUM_COEFFICIENTS
_ROBUST: Final = 25.0
_ROBUST_PX: Final = 4.0
_LIGHT_RIDGE: Final = 0.02
_START_ROUNDS: Final = 4
_HELD: Final = 1e9
_ITERATIONS: Final = 6
"""Largest number of steps."""
_SIGMA: Final = 30.0
"""Difference in grey levels (0..255), summed over the points, that costs as much as one deviation of a coefficient."""
_LANDMARK_PX: Final = 0.3
"""Error of a landmark, crop pixels, that costs as much as one deviation of a coefficient."""


@dataclass(frozen=True, slots=True)
class PhotometricFit:
    """Result of the fit of T frames to colours and landmarks.

    Attributes:
        identity: float32 [I], shared by all frames.
        albedo: float32 [A], shared by all frames.
        expression: float32 [T, E].
        camera: T cameras, crop pixels.
        light: float32 [T, 9, 3], camera axes, colours 0..1.
        landmark_error: float32 [T], crop pixels.
        photometric_error: float32 [T], mean absolute difference between rendered and seen colours over the skin, 0..255.
    """

    identity: Float32
    albedo: Float32
    expression: Float32
    camera: WeakPerspective
    light: Float32
    landmark_error: Float32
    photometric_error: Float32


@dataclass(frozen=True, slots=True)
class _State:
    """All unknowns. Coefficients are in standard deviations."""

    alpha: Float64
    delta: Float64
    beta: Float64
    camera: WeakPerspective
    light: Float64


@dataclass(frozen=True, slots=True)
class _Frame:
    """One frame's part of the normal equations, and its sum of squares."""

    own: Float64
    cross: Float64
    shared: Float64
    own_right: Float64
    shared_right: Float64
    energy: float


class PhotometricProblem:
    """The frames of one person on one model."""

    def __init__(
        self,
        face: ModelLandmarks,
        surface: Surface,
        person: PersonShape,
        frames: FrameFits,
        landmarks: Float64,
        crops: npt.NDArray[np.uint8],
        *,
        identity_is_measured: bool = False,
        backend: Backend = "numba",
    ) -> None:
        """Prepare the problem.

        Args:
            face: the model's landmarks.
            surface: surface points of the same model.
            frames: fits of T frames from landmarks, cameras in crop pixels.
            landmarks: [T, N, 3], crop pixels.
            crops: uint8 [T, 256, 256, 3], RGB.
            identity_is_measured: whether to keep the identity: a measured neutral face is more precise than colours.
            backend: rasteriser.
        """
        self._backend = backend
        self._face, self._surface, self._landmarks, self._crops = face, surface, landmarks, crops
        self._model = face.model
        self._offset = person.offset.astype(np.float64)
        neutral = self._model.shape(person.identity.astype(np.float64), np.zeros(self._model.num_expression), self._offset)
        self._identity_slopes, self._expression_slopes = normal_slopes(surface, neutral)
        beta = frames.expression / self._model.expression_deviation.astype(np.float64)
        alpha = person.identity / self._model.identity_deviation.astype(np.float64)
        self._identity_centre = alpha if identity_is_measured else np.zeros_like(alpha)
        self._identity_prior = _HELD if identity_is_measured else 1.0
        delta = np.zeros(self._model.num_albedo)
        state = _State(alpha, delta, beta, frames.camera, np.zeros((len(beta), NUM_COEFFICIENTS, 3)))
        self._trust = np.stack(
            [surface.visible(self._shape(state, t), _camera(state, t), crops.shape[1:3], backend) for t in range(len(beta))]
        )
        self._state = self._with_light_and_albedo(state)

    def solve(self, check_call: Callable[[], None] = lambda: None) -> PhotometricFit:
        """Return the fit after the last step.

        Args:
            check_call: called before each frame of each step. An exception from the call stops the fit.
        """
        state, damping = self._state, 1e-3
        frames = self._frames(state, check_call)
        energy = self._energy(state, frames)
        for _ in range(_ITERATIONS):
            candidate = self._stepped(state, frames, damping)
            next_frames = self._frames(candidate, check_call)
            next_energy = self._energy(candidate, next_frames)
            if next_energy >= energy:
                damping *= 10.0
                continue
            done = energy - next_energy < 1e-4 * energy
            state, frames, energy, damping = candidate, next_frames, next_energy, damping * 0.3
            if done:
                break
        self._state = state
        return self._result(state)

    def _shape(self, state: _State, frame: int) -> Float64:
        model = self._model
        shape = model.shape(state.alpha * model.identity_deviation, state.beta[frame] * model.expression_deviation, self._offset)
        return np.asarray(shape, np.float64)

    def _with_light_and_albedo(self, state: _State) -> _State:
        """Return the state with light and albedo, solved alternately as linear problems, on the shapes from the landmarks."""
        surface, count = self._surface, len(state.beta)
        seen, normals = np.empty((count, len(surface.points), 3)), np.empty((count, len(surface.points), 3))
        for t in range(count):
            shape = self._shape(state, t)
            seen[t] = _sample(_blurred(self._crops[t]), surface.points.of(_camera(state, t).project(shape))) / 255.0
            normals[t] = surface.normals(shape, _camera(state, t))
        delta, basis = state.delta, surface.albedo_basis
        light = state.light
        prior = (_SIGMA / 255.0) ** 2 * np.eye(len(delta))
        for _ in range(_START_ROUNDS):
            albedo = np.broadcast_to(surface.albedo_mean + basis @ delta, seen.shape)
            light = np.asarray(estimate_light(seen, albedo, normals, self._trust, ridge=_LIGHT_RIDGE))
            shade = shading_basis(normals) @ light
            rows = shade[..., None] * basis
            weights = self._trust[..., None]
            normal = np.einsum("tsck,tscl->kl", rows * weights[..., None], rows, optimize=True) + prior
            right = np.einsum("tsck,tsc->k", rows, weights * (seen - shade * surface.albedo_mean), optimize=True)
            delta = np.linalg.solve(normal, right)
        return _State(state.alpha, delta, state.beta, state.camera, light)

    def _frames(self, state: _State, check_call: Callable[[], None]) -> list[_Frame]:
        frames = []
        for t in range(len(state.beta)):
            check_call()
            frames.append(self._frame(state, t))
        return frames

    def _frame(self, state: _State, t: int) -> _Frame:
        surface = self._surface
        camera, light = _camera(state, t), state.light[t]
        shape = self._shape(state, t)
        points = surface.points.of(shape)
        normals = surface.normals(shape, camera)
        image = camera.project(points)
        picture = _blurred(self._crops[t])
        seen, gradient = _sample_with_gradient(picture, image)
        albedo = surface.albedo_mean + surface.albedo_basis @ state.delta
        shade = shading_basis(normals) @ light
        residual = seen - 255.0 * albedo * shade
        robust = 1.0 / (1.0 + (residual**2).mean(-1) / _ROBUST**2) ** 2
        weights = self._trust[t] * robust / _SIGMA**2
        turned = points @ camera.rotation.T
        scale = float(camera.scale)
        # Derivatives of picture minus model by the point's position and by the point's normal, [S, channels, 3].
        by_position = np.concatenate([gradient * scale, np.zeros((*gradient.shape[:2], 1))], -1)
        by_normal = -255.0 * albedo[..., None] * shading_slope(normals, light)
        turn = camera.rotation
        pose = np.empty((*residual.shape, _POSE))
        pose[..., :3] = np.cross(turned[:, None], by_position) + np.cross(normals[:, None], by_normal)
        pose[..., 3:6] = by_position
        pose[..., 6] = np.einsum("sci,si->sc", by_position, turned)
        position, normal = (part.astype(np.float32) @ turn.astype(np.float32) for part in (by_position, by_normal))
        expression = position @ surface.expression + normal @ self._expression_slopes
        identity = position @ surface.identity + normal @ self._identity_slopes
        phi = -255.0 * shading_basis(normals)
        lights = np.zeros((*residual.shape, 3, NUM_COEFFICIENTS))
        for channel in range(3):
            lights[:, channel, channel] = albedo[:, channel, None] * phi
        albedos = -255.0 * shade[..., None] * surface.albedo_basis
        count = len(points) * 3
        root = np.repeat(np.sqrt(weights), 3)[:, None]
        own = (np.concatenate([part.reshape(count, -1) for part in (pose, expression, lights)], 1) * root).astype(np.float32)
        shared = (np.concatenate([part.reshape(count, -1) for part in (identity, albedos)], 1) * root).astype(np.float32)
        right = (residual.reshape(-1, 1) * root).astype(np.float32)
        sums = [
            np.asarray(part, np.float64)
            for part in (own.T @ own, own.T @ shared, shared.T @ shared, own.T @ right, shared.T @ right)
        ]
        energy = float((self._trust[t] * (1.0 - np.sqrt(robust))).sum() * _ROBUST**2 * 3.0 / _SIGMA**2)
        blocks = _Frame(sums[0], sums[1], sums[2], -sums[3][:, 0], -sums[4][:, 0], energy)
        return self._with_landmarks(blocks, state, t)

    def _with_landmarks(self, blocks: _Frame, state: _State, t: int) -> _Frame:
        """Add the landmarks' error and the frame's own priors."""
        face, camera = self._face, _camera(state, t)
        points = face.landmarks.of(self._shape(state, t))
        scale = float(camera.scale)
        axes = np.sqrt(np.array([1.0, 1.0, 0.1])) / _LANDMARK_PX
        residual = (self._landmarks[t] - camera.project(points)) / scale
        doubt = 1.0 + (residual[:, :2] ** 2).sum(-1, keepdims=True) / _ROBUST_PX**2
        root = np.sqrt(face.facing(camera.rotation[None])[0])[:, None] * axes / doubt
        turned = points @ camera.rotation.T
        pose = np.zeros((*residual.shape, _POSE))
        for axis in range(3):
            pose[..., axis] = np.cross(np.eye(3)[axis], turned)
        pose[..., [0, 1, 2], [3, 4, 5]] = 1.0
        pose[..., 6] = turned
        expression, identity = (np.matmul(camera.rotation, basis) for basis in (face.expression, face.identity))
        own = (np.concatenate([pose, expression], -1) * root[..., None]).reshape(residual.size, -1)
        shared = (identity * root[..., None]).reshape(residual.size, -1)
        right = (residual * root).reshape(-1)
        size, shared_size = own.shape[1], shared.shape[1]
        blocks.own[:size, :size] += own.T @ own
        blocks.cross[:size, :shared_size] += own.T @ shared
        blocks.shared[:shared_size, :shared_size] += shared.T @ shared
        blocks.own_right[:size] += own.T @ right
        blocks.shared_right[:shared_size] += shared.T @ right
        beta = state.beta[t]
        rows = np.arange(_POSE, size)
        blocks.own[rows, rows] += 1.0
        blocks.own_right[_POSE:size] -= beta
        # A face's normals cover only half a sphere, so colours determine bands 1 and 2 badly: pull both slightly towards 0.
        pull = _LIGHT_RIDGE * np.trace(blocks.own[size:, size:]) / _LIGHT
        bands = size + np.array([c * NUM_COEFFICIENTS + k for c in range(3) for k in range(1, NUM_COEFFICIENTS)])
        blocks.own[bands, bands] += pull
        values = state.light[t].T.reshape(-1)[bands - size]
        blocks.own_right[bands] -= pull * values
        squares = (right.reshape(residual.shape) ** 2 * doubt).sum()
        energy = blocks.energy + float(squares + beta @ beta + pull * values @ values)
        return _Frame(blocks.own, blocks.cross, blocks.shared, blocks.own_right, blocks.shared_right, energy)

    def _energy(self, state: _State, frames: list[_Frame]) -> float:
        away = state.alpha - self._identity_centre
        return sum(frame.energy for frame in frames) + float(self._identity_prior * away @ away + state.delta @ state.delta)

    def _stepped(self, state: _State, frames: list[_Frame], damping: float) -> _State:
        prior = np.concatenate([np.full(len(state.alpha), self._identity_prior), np.ones(len(state.delta))])
        outer = np.diag(prior * (1.0 + damping))
        right = -prior * np.concatenate([state.alpha - self._identity_centre, state.delta])
        eliminated = []
        for frame in frames:
            own = frame.own + np.diag(damping * np.diag(frame.own) + 1e-9)
            part = np.linalg.solve(own, np.concatenate([frame.cross, frame.own_right[:, None]], 1))
            outer = outer + frame.shared + damping * np.diag(np.diag(frame.shared)) - frame.cross.T @ part[:, :-1]
            right = right + frame.shared_right - frame.cross.T @ part[:, -1]
            eliminated.append(part)
        change = np.linalg.solve(outer, right)
        own = np.stack([part[:, -1] - part[:, :-1] @ change for part in eliminated])
        size = state.beta.shape[1]
        camera = WeakPerspective(
            state.camera.scale * np.exp(own[:, 6]),
            matrix_from_axis_angle(own[:, :3]) @ state.camera.rotation,
            state.camera.translation + state.camera.scale[:, None] * own[:, 3:6],
        )
        light = state.light + own[:, _POSE + size :].reshape(-1, 3, NUM_COEFFICIENTS).mT
        count = len(state.alpha)
        return _State(
            state.alpha + change[:count], state.delta + change[count:], state.beta + own[:, _POSE : _POSE + size], camera, light
        )

    def _result(self, state: _State) -> PhotometricFit:
        model, count = self._model, len(state.beta)
        albedo = np.asarray(model.albedo(state.delta * model.albedo_deviation), np.float64)
        photometric, landmark = np.zeros(count, np.float32), np.zeros(count, np.float32)
        for t in range(count):
            camera, shape = _camera(state, t), self._shape(state, t)
            size = self._crops.shape[1:3]
            drawn = draw_face(self._surface.mesh, shape, camera, albedo, state.light[t], size, backend=self._backend)
            photometric[t] = np.abs(drawn.picture - self._crops[t])[drawn.covered].mean() if drawn.covered.any() else 0.0
            projected = camera.project(self._face.landmarks.of(shape))
            landmark[t] = landmark_errors(projected[None], self._landmarks[t : t + 1], np.ones(1))[0]
        return PhotometricFit(
            identity=(state.alpha * model.identity_deviation).astype(np.float32),
            albedo=(state.delta * model.albedo_deviation).astype(np.float32),
            expression=(state.beta * model.expression_deviation).astype(np.float32),
            camera=state.camera,
            light=state.light.astype(np.float32),
            landmark_error=landmark,
            photometric_error=photometric,
        )


def _camera(state: _State, t: int) -> WeakPerspective:
    return WeakPerspective(state.camera.scale[t], state.camera.rotation[t], state.camera.translation[t])


def _blurred(crop: npt.NDArray[np.uint8]) -> Float32:
    return np.asarray(cv2.GaussianBlur(crop.astype(np.float32), (0, 0), _BLUR_PX, borderType=cv2.BORDER_REPLICATE))


def _sample(picture: Float32, image: Float64) -> Float64:
    pixels = image.astype(np.float32)
    return np.asarray(
        cv2.remap(picture, pixels[None, :, 0], pixels[None, :, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0], np.float64
    )


def _sample_with_gradient(picture: Float32, image: Float64) -> tuple[Float64, Float64]:
    """Return the colours [S, 3] and the derivatives by x and y [S, 3, 2], as differences between the pixels on either side."""
    right, left, down, up = (_sample(picture, image[:, :2] + shift) for shift in ((1, 0), (-1, 0), (0, 1), (0, -1)))
    return _sample(picture, image), np.stack([(right - left) / 2.0, (down - up) / 2.0], -1)
