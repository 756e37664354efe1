"""Bases and targets of the expression coefficients that trainings learn, and the preparation `expression` of a training set.

The preparation writes the targets of the joint training of the Audio ID-Removing Network and expression (Everybody's Talkin', Sec.
3.2.2). That network belongs to the audio stage, and these files are all that its training needs of faces.

The module also has the landmark basis of training clips, the landmark basis that a training builds on, and the facts that an export
needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Self

import numpy as np

from research.motion.clips import Clips
from research.motion.training import read_best
from research.training.networks import Opening, Preparation
from research.training.trainset import FORMAT_VERSION, ClipRow, TrainSet, part_path
from services.common.array_types import Array, Bool, Float32
from services.common.errors import DubstageError, InvalidRequestError
from services.common.face.landmarks import NUM_LIPS
from services.common.files import write_whole
from services.common.geometry.morphable_model import MorphableModel, default_model
from services.common.store.tensor_bytes import NamedArrays, encode_arrays
from services.motion.basis import LandmarkBasis
from services.motion.expression import expression_spread
from services.motion.models import WEIGHTS
from services.motion.runtime import read_constants
from services.motion.style import MIN_FRAMES, measure_mouth
from services.motion.types import NUM_POINTS

STYLE_BASIS: Final = "style_basis"
"""Key of a run's metadata with the digest of the landmark basis of the style."""
SHARED_CONSTANTS: Final = "motion_constants.safetensors"
"""File of the stage's weights that holds the landmark basis of the style."""
SHAPE_FILE: Final = "expression.safetensors"
"""File of the training set with the shape of the coefficients."""
NUM_EXPRESSION: Final = 24
"""Number of predicted coefficients, the first ones of the model. The others hardly move the mouth and are zero."""
_DEPTH_WEIGHT: Final = 0.1
"""Weight of depth against the picture plane in the fit, as in services.common.geometry.coefficients."""
_RIDGE: Final = 1.0
"""Squared error in crop pixels against which the prior counts once, as in services.common.geometry.coefficients."""
_LIP_WEIGHT: Final = 2.0
_LANDMARK_DEPTH_WEIGHT: Final = 0.3
_METADATA: Final = {"format": f"dubstage.expression/{FORMAT_VERSION}"}


def point_weights() -> Float32:
    """Return the weight of each landmark coordinate in fits and losses, float32 [59, 3]: lips above jaw, picture above depth."""
    weights = np.ones((NUM_POINTS, 3), np.float32)
    weights[:NUM_LIPS] *= _LIP_WEIGHT
    weights[:, 2] *= _LANDMARK_DEPTH_WEIGHT
    return weights


def basis_of(clips: Clips, num_coefficients: int) -> LandmarkBasis:
    """Return the landmark basis of the training speakers, each clip about its own mean.

    Args:
        clips: training clips. All of them are read.
        num_coefficients: K, number of components.
    """
    groups = clips.by_speaker().values()
    offsets = [
        np.concatenate([clip.mouth_landmarks[clip.usable] - clip.mouth_landmarks[clip.usable].mean(0) for clip in group])
        for group in groups
    ]
    basis = fit_basis(offsets, num_coefficients)
    # There are two passes: the spread of a clip is measured along the basis, then the mean over speakers is the typical spread.
    spreads = [
        np.mean([measure_mouth(clip.mouth_landmarks[clip.usable], basis).spread for clip in group], axis=0) for group in groups
    ]
    return replace(basis, typical_spread=np.mean(spreads, axis=0).astype(np.float32))


def fit_basis(offsets_by_speaker: list[Float32], num_coefficients: int) -> LandmarkBasis:
    """Return the weighted principal components over speakers. Each speaker counts the same. `typical_spread` is 1, to be measured.

    Args:
        offsets_by_speaker: offsets from the mean mouth, float32 [T, 59, 3] per speaker.
        num_coefficients: K, number of components.
    """
    root = np.sqrt(point_weights()).astype(np.float64)
    covariance = np.zeros((NUM_POINTS * 3, NUM_POINTS * 3))
    for offsets in offsets_by_speaker:
        flat = (offsets * root).reshape(len(offsets), -1)
        covariance += flat.T @ flat / len(flat) / len(offsets_by_speaker)
    _, vectors = np.linalg.eigh(covariance)
    directions = vectors[:, ::-1][:, :num_coefficients].T
    # Signs of eigenvectors are arbitrary: make the largest element positive.
    largest = np.abs(directions).argmax(axis=1)
    directions = directions * np.sign(directions[np.arange(num_coefficients), largest])[:, None]
    directions = directions.reshape(-1, NUM_POINTS, 3)
    components = (directions / root).astype(np.float32)
    dual = (directions * root).astype(np.float32)
    return LandmarkBasis(components, dual, np.ones(num_coefficients, np.float32))


def style_basis(opening: Opening, network: str) -> LandmarkBasis:
    """Return the landmark basis of the style that a training builds on: of a run if one is given, else the committed one.

    Args:
        opening: what the training is opened with.
        network: name of the network whose training fits the basis.

    Raises:
        InvalidRequestError: the folder that was given holds no run of this network.
    """
    run = opening.run_of(network)
    return committed_basis() if run is None else LandmarkBasis.named(read_best(run, network))


def committed_basis() -> LandmarkBasis:
    """Return the landmark basis of the style that comes with the stage."""
    return LandmarkBasis.named(read_constants(WEIGHTS / SHARED_CONSTANTS))


def basis_digest(basis: LandmarkBasis) -> str:
    """Return the SHA-256 of a landmark basis, hexadecimal."""
    arrays = basis.arrays()
    return hashlib.sha256(b"".join(np.ascontiguousarray(arrays[name]).tobytes() for name in sorted(arrays))).hexdigest()


def check_style_basis(kept: NamedArrays, weights: Path, network: str) -> None:
    """Check that a folder of weights holds the landmark basis that a run was trained on.

    The run's network answers in units of the person's spread, and the spread is measured in the folder's basis.

    Args:
        kept: file of the run, whose metadata hold the digest of the basis.
        network: name of the run's network.

    Raises:
        ModelNotFoundError: the folder has no constants.
        InvalidRequestError: the folder holds another basis.
    """
    held = LandmarkBasis.named(read_constants(weights / SHARED_CONSTANTS))
    if kept.metadata.get(STYLE_BASIS) != basis_digest(held):
        raise InvalidRequestError(
            f"{network} was trained on another landmark basis than the basis in {weights}; export the run that the training was "
            f"built on (--using) into this folder first, or train {network} again",
            field="run",
        )


class ExpressionTarget(NamedTuple):
    """Expression of one clip.

    Attributes:
        coefficients: float32 [T, E], from the clip's own rest mouth, in units of the clip's own spread.
        spread: float32 [E], the clip's own spread.
    """

    coefficients: Float32
    spread: Float32


def expression_basis(model: MorphableModel, mouth: LandmarkBasis, num_expression: int = NUM_EXPRESSION) -> LandmarkBasis:
    """Return the model's expression basis at the mouth-area points, with the dual basis from regularised least squares.

        e = (B^T D B + ridge / deviation^2)^-1 B^T D offsets,   D = diag(1, 1, depth_weight) at each point

    Args:
        model: a morphable model in head space with the landmark set `mouth_area`.
        mouth: the landmark basis of the style, whose typical spread is carried over.
        num_expression: E, number of coefficients to use, the first ones of the model.
    """
    basis = model.landmark_set("mouth_area").of_basis(model.expression_basis)[..., :num_expression].astype(np.float64)
    metric = np.array([1.0, 1.0, _DEPTH_WEIGHT])[:, None]
    normal = np.einsum("pdk,pdl->kl", basis * metric, basis)
    normal += _RIDGE * np.diag(1.0 / model.expression_deviation[:num_expression].astype(np.float64) ** 2)
    dual = np.einsum("kl,pdl->kpd", np.linalg.inv(normal), basis * metric)
    components = np.ascontiguousarray(np.moveaxis(basis, -1, 0), np.float32)
    unmeasured = LandmarkBasis(components, dual.astype(np.float32), np.ones(num_expression, np.float32))
    return LandmarkBasis(components, unmeasured.dual, expression_spread(mouth.typical_spread, mouth, unmeasured))


@dataclass(frozen=True, slots=True)
class ExpressionSpace:
    """Bases of mouths and of expression.

    Attributes:
        mouth: landmark basis of the style, in which the spread of a person is measured.
        expression: expression basis of the morphable model at the mouth-area points.
        face_model: digest of the morphable model.
        num_expression: number of expression coefficients of the morphable model.
    """

    mouth: LandmarkBasis
    expression: LandmarkBasis
    face_model: str
    num_expression: int

    @classmethod
    def of(cls, mouth: LandmarkBasis, num_coefficients: int = NUM_EXPRESSION) -> Self:
        """Return the first coefficients of the default model.

        Args:
            mouth: landmark basis of the style.
            num_coefficients: E.
        """
        face = default_model()
        return cls(mouth, expression_basis(face, mouth, num_coefficients), face.digest, face.num_expression)

    @classmethod
    def built_on(cls, opening: Opening, network: str, num_coefficients: int) -> Self:
        """Return the coefficients over the landmark basis that a training builds on, see basis.style_basis."""
        return cls.of(style_basis(opening, network), num_coefficients)

    def target(self, mouths: Float32, usable: Bool) -> ExpressionTarget:
        """Measure the expression of a clip. Rest mouth and spread are the clip's own, as in serving.

        Args:
            mouths: float32 [T, 59, 3], mouth landmarks in head space.
            usable: bool [T].
        """
        measured = measure_mouth(mouths[usable], self.mouth)
        spread = expression_spread(measured.spread, self.mouth, self.expression)
        coefficients = self.expression.project(mouths - measured.rest_mouth) / spread
        return ExpressionTarget(coefficients.astype(np.float32), spread)

    def facts(self) -> dict[str, str]:
        """Return the metadata of a run's file: the morphable model, and the digest of the landmark basis of the style."""
        return {
            "face_model": self.face_model,
            "num_expression": str(self.num_expression),
            STYLE_BASIS: basis_digest(self.mouth),
        }


def prepare_expression(folder: Path, _clips: Path, processes: int, progress: Callable[[int, int], None]) -> Mapping[str, str]:
    """Write the expression of all clips with a face, and the shape of the coefficients (layout, part `expression`).

    Coefficients belong to the frames of the picture: a reader takes out the lag.

    Args:
        folder: folder of the training set.
        processes: threads. NumPy and the file system do the work.
        progress: called with the number of clips done and of all clips.

    Returns:
        Reasons by clip for what is missing.
    """
    data = TrainSet(folder)
    space = ExpressionSpace.of(committed_basis())
    expression = space.expression
    moved = expression.components * expression.typical_spread[:, None, None]
    _write(folder / SHAPE_FILE, {"shape": np.ascontiguousarray(moved.reshape(len(moved), -1).T)})
    rows = [row for row in data.rows if row.has_face]
    missing: dict[str, str] = {}
    write = partial(_write_clip, data, space)
    with ThreadPoolExecutor(max(1, processes)) as threads:
        for done, (row, reason) in enumerate(zip(rows, threads.map(write, rows), strict=True), 1):
            if reason:
                missing[row.name] = reason
            progress(done, len(rows))
    return missing


def _write_clip(data: TrainSet, space: ExpressionSpace, row: ClipRow) -> str:
    """Write the expression of a clip if it is not there; return why it cannot be measured, or an empty text."""
    path = part_path(data.folder, row.shard, row.name, "expression")
    if path.is_file():
        return ""
    try:
        track = data.arrays(row, "track", ("mouth_landmarks", "usable"))
    except DubstageError as problem:
        return str(problem)
    usable = track["usable"].astype(np.bool_)
    if int(usable.sum()) < MIN_FRAMES:
        return f"expression needs {MIN_FRAMES} usable frames, the clip has {int(usable.sum())}"
    _write(path, {"coefficients": space.target(track["mouth_landmarks"], usable).coefficients})
    return ""


def _write(path: Path, arrays: Mapping[str, Array]) -> None:
    write_whole(path, encode_arrays(arrays, _METADATA))


EXPRESSION: Final = Preparation(
    name="expression",
    summary="expression coefficients of all clips with a face, for the joint training of the audio stage",
    prepare=prepare_expression,
)
