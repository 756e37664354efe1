"""The Basel Face Models of 2009 (Paysan et al. 2009) and 2017 (Gerig et al. 2018).

**Model of 2009**, with the FaceWarehouse expressions that Yi et al., Sec. 3.1, use.

Licence: non-commercial research only, after registration with the University of Basel (faces.dmi.unibas.ch). The expression basis
of Guo et al. (github.com/Juyong/3DFace, Exp_Pca.bin) derives from FaceWarehouse (Cao et al. 2014), which is for research only
too. dubstage ships no part of the model or the basis. Users load their own files under their licences.

Files, in one folder:

    01_MorphableModel.mat    shapeMU [3V, 1] micrometres, shapePC [3V, 199], shapeEV [199, 1], texMU (0-255), texPC, texEV,
                             tl [F, 3] from 1
    Exp_Pca.bin              int32 K, then float32 mean [3 V'] and K components [3 V'] one after another, V' vertices of BFM_exp_idx
    std_exp.txt              K standard deviations
    BFM_exp_idx.mat          trimIndex, from 1: the V' = 53,215 of the V = 53,490 vertices that have expressions
    BFM_front_idx.mat        idx, from 1: the 35,709 of these V' vertices that form the face without ears and neck
    facemodel_info.mat       keypoints, from 1: 68 landmarks among the 35,709; tri, from 1: their triangles

Alternatively one file BFM_model_front.mat, made from these files: meanshape, idBase, exBase, meantex, texBase, tri, keypoints
(decimetres; bases are multiplied by the deviations). The mean of the expressions (expMU) is left out, as in the model of Yi et al.

**Model of 2017:** model2017-1_face12_nomouth.h5, model2017-1_bfm_nomouth.h5, and the files of 2019.

Licence: non-commercial research only, after registration with the University of Basel (faces.dmi.unibas.ch). dubstage
ships no part of the model. Users load their own file under its licence.

The groups shape, expression and color each have model/mean [3V], model/pcaBasis [3V, K] and model/pcaVariance [K], in millimetres
with y up, and colours in [0, 1]. shape/representer/cells is [3, F]. metadata/landmarks/json names points of the mean shape. Named
points with a clear place in the face mesh become landmarks. Users can give 68 vertex numbers instead.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32
from services.common.errors import InvalidRequestError
from services.common.face.loaders.files import (
    FIELD,
    align_to_head_space,
    basis_of,
    cropped,
    landmark_sets_of_68,
    read_sixty_eight,
    reading,
    turned,
    vertices_of,
)
from services.common.geometry.lighting import outwards
from services.common.geometry.morphable_model import LandmarkSet, MorphableModel

LICENCE_2009: Final = (
    "Basel Face Model 2009, (c) University of Basel; the user's own copy, non-commercial research (faces.dmi.unibas.ch)"
)
REMEDY_2009: Final = "give 01_MorphableModel.mat of the Basel Face Model 2009, the folder that holds it, or BFM_model_front.mat"
LICENCE_2017: Final = (
    "Basel Face Model 2017, (c) University of Basel; the user's own copy, non-commercial research (faces.dmi.unibas.ch)"
)
REMEDY_2017: Final = "give model2017-1_face12_nomouth.h5 (or another .h5) of the Basel Face Model 2017"
NAMED_LANDMARKS: Final[dict[str, int]] = {
    "right.eye.corner_outer": 33,
    "right.eye.corner_inner": 133,
    "left.eye.corner_inner": 362,
    "left.eye.corner_outer": 263,
    "center.nose.tip": 1,
    "center.nose.attachement_to_philtrum": 2,
    "right.lips.corner": 61,
    "left.lips.corner": 291,
    "center.lips.upper.outer": 0,
    "center.lips.upper.inner": 13,
    "center.lips.lower.inner": 14,
    "center.lips.lower.outer": 17,
    "center.chin.tip": 152,
}
"""Named points in the file, and the same points in MediaPipe's mesh. Right is the subject's right, at the image's left."""
_IDENTITY_2009: Final = 80
_EXPRESSION_2009: Final = 64
_ALBEDO_2009: Final = 80


def load_bfm2009(path: Path, *, landmarks: Path | None = None) -> MorphableModel:
    """Return the model with the numbers of coefficients of Yi et al. (80 + 64 + 80). The file has 199, 79 and 199.

    Args:
        path: the folder, the folder's 01_MorphableModel.mat, or BFM_model_front.mat. Expressions and the cropped face come from the
            other files in the folder. Without Exp_Pca.bin the model has no expressions.
        landmarks: file of 68 vertex numbers from 0 (JSON or text), for a mesh whose landmarks are not in the files.

    Raises:
        InvalidRequestError: a file is missing, of another kind, or damaged.
    """
    file = path / "01_MorphableModel.mat" if path.is_dir() else path
    content = _read_matlab(file)
    model = _front_model(content, file) if "idBase" in content else _full_model(content, file)
    model = model.truncated(identity=_IDENTITY_2009, expression=_EXPRESSION_2009, albedo=_ALBEDO_2009)
    if landmarks is not None:
        model = dataclasses.replace(model, landmarks=landmark_sets_of_68(read_sixty_eight(landmarks, model.num_vertices)))
    return align_to_head_space(model) if model.landmarks else model


def _full_model(content: dict[str, Any], file: Path) -> MorphableModel:
    with reading(file, "Basel Face Model 2009", REMEDY_2009):
        arrays = {
            "mean": vertices_of(content["shapeMU"]),
            "identity": basis_of(content["shapePC"], content["shapeEV"]),
            "albedo_mean": vertices_of(content["texMU"]) / np.float32(255.0),
            "albedo": basis_of(content["texPC"], content["texEV"]) / np.float32(255.0),
        }
        triangles = np.asarray(content["tl"], np.int64) - 1
    count = len(arrays["mean"])
    expression = np.zeros((count, 3, 0), np.float32)
    keypoints: LandmarkSet | None = None
    folder = file.parent
    if (folder / "Exp_Pca.bin").exists():
        kept = _numbers(folder / "BFM_exp_idx.mat", "trimIndex")
        expression = _read_expressions(folder, len(kept))
        if (folder / "BFM_front_idx.mat").exists():
            front = _numbers(folder / "BFM_front_idx.mat", "idx")
            kept, expression = kept[front], expression[front]
        arrays = {key: array[kept] for key, array in arrays.items()}
        triangles = cropped(triangles, kept, count).astype(np.int64)
        if (folder / "facemodel_info.mat").exists():
            keypoints = _sixty_eight(_numbers(folder / "facemodel_info.mat", "keypoints"), len(kept), folder / "facemodel_info.mat")
    return _model("bfm2009", arrays, expression, triangles, keypoints, "micrometre")


def _front_model(content: dict[str, Any], file: Path) -> MorphableModel:
    with reading(file, "cropped Basel Face Model (BFM_model_front.mat)", REMEDY_2009):
        arrays = {
            "mean": vertices_of(content["meanshape"]),
            "identity": basis_of(content["idBase"]),
            "albedo_mean": vertices_of(content["meantex"]) / np.float32(255.0),
            "albedo": basis_of(content["texBase"]) / np.float32(255.0),
        }
        expression = basis_of(content["exBase"])
        triangles = np.asarray(content["tri"], np.int64) - 1
        keypoints = _sixty_eight(np.asarray(content["keypoints"], np.int64).reshape(-1) - 1, len(arrays["mean"]), file)
    return _model("bfm2009_front", arrays, expression, triangles, keypoints, "decimetre")


def _model(
    name: str,
    arrays: dict[str, Float32],
    expression: Float32,
    triangles: npt.NDArray[np.int64],
    keypoints: LandmarkSet | None,
    unit: str,
) -> MorphableModel:
    positions = turned(arrays["mean"])
    return MorphableModel(
        name=name,
        licence=LICENCE_2009,
        unit=unit,
        mean_shape=positions,
        identity_basis=turned(arrays["identity"]),
        expression_basis=turned(expression),
        identity_deviation=np.ones(arrays["identity"].shape[-1], np.float32),
        expression_deviation=np.ones(expression.shape[-1], np.float32),
        triangles=outwards(triangles, positions),
        albedo_mean=arrays["albedo_mean"],
        albedo_basis=arrays["albedo"],
        albedo_deviation=np.ones(arrays["albedo"].shape[-1], np.float32),
        landmarks=MappingProxyType({}) if keypoints is None else landmark_sets_of_68(keypoints),
    )


def _read_matlab(file: Path) -> dict[str, Any]:
    with reading(file, "Basel Face Model 2009", REMEDY_2009):
        try:
            from scipy.io import loadmat
        except ImportError as error:
            raise InvalidRequestError("Basel models need scipy: install dubstage-suite[models3d]", field=FIELD) from error
        return dict(loadmat(file))


def _numbers(file: Path, key: str) -> npt.NDArray[np.int64]:
    """Return the vertex numbers in a MATLAB file, which count from 1, as indices from 0."""
    with reading(file, f"index file with {key!r}", "give the index files that belong to Exp_Pca.bin"):
        return np.asarray(_read_matlab(file)[key], np.int64).reshape(-1) - 1


def _read_expressions(folder: Path, count: int) -> Float32:
    """Return the expression basis (Exp_Pca.bin) multiplied by the deviations (std_exp.txt), float32 [count, 3, K]."""
    file, deviations = folder / "Exp_Pca.bin", folder / "std_exp.txt"
    remedy = "give Exp_Pca.bin and std_exp.txt of Guo et al. (github.com/Juyong/3DFace)"
    with reading(file, "expression basis (Exp_Pca.bin)", remedy):
        data = file.read_bytes()
        components = int(np.frombuffer(data[:4], "<i4")[0])
        expected = 4 + 4 * 3 * count * (components + 1)
        if components <= 0 or len(data) != expected:
            raise ValueError(f"{len(data)} bytes instead of {expected} for {components} components of {count} vertices")
        values = np.frombuffer(data, "<f4", offset=4 + 12 * count).reshape(components, count, 3)
    with reading(deviations, "list of standard deviations (std_exp.txt)", remedy):
        spread = np.array(deviations.read_text(encoding="utf-8").split(), np.float32)
        if len(spread) != components:
            raise ValueError(f"{len(spread)} deviations for {components} components")
    return np.ascontiguousarray(np.moveaxis(values, 0, -1) * spread, np.float32)


def _sixty_eight(vertices: npt.NDArray[np.int64], count: int, file: Path) -> LandmarkSet:
    if len(vertices) != 68 or vertices.min() < 0 or vertices.max() >= count:
        raise InvalidRequestError(f"the keypoints of {file} are not 68 of the model's {count} vertices", field=FIELD)
    return LandmarkSet.of_vertices(vertices)


def load_bfm2017(path: Path, *, landmarks: Path | None = None) -> MorphableModel:
    """Return the model with all coefficients of the file (199 + 100 + 199).

    The model is in head space if the file names landmarks or `landmarks` is given.

    Args:
        path: the .h5 file.
        landmarks: 68 vertex numbers from 0 (JSON or text) instead of the file's own landmarks.

    Raises:
        InvalidRequestError: the file is missing, of another kind, or damaged, or h5py is not installed.
    """
    with reading(path, "Basel Face Model 2017", REMEDY_2017):
        try:
            import h5py
        except ImportError as error:
            raise InvalidRequestError(
                "the Basel Face Model 2017 needs h5py: install dubstage-suite[models3d]", field=FIELD
            ) from error
        with h5py.File(path, "r") as file:
            mean, shape_basis = _linear(file, "shape")
            moved, expression_basis = _linear(file, "expression")
            colour, colour_basis = _linear(file, "color")
            triangles = np.asarray(file["shape/representer/cells"], np.int64)
            named = _named_landmarks(file)
        positions = turned(mean + moved)
        model = MorphableModel(
            name=path.stem,
            licence=LICENCE_2017,
            unit="millimetre",
            mean_shape=positions,
            identity_basis=turned(shape_basis),
            expression_basis=turned(expression_basis),
            identity_deviation=np.ones(shape_basis.shape[-1], np.float32),
            expression_deviation=np.ones(expression_basis.shape[-1], np.float32),
            triangles=outwards(triangles.T if triangles.shape[0] == 3 and triangles.shape[1] != 3 else triangles, positions),
            albedo_mean=colour,
            albedo_basis=colour_basis,
            albedo_deviation=np.ones(colour_basis.shape[-1], np.float32),
        )
    if landmarks is not None:
        model = dataclasses.replace(model, landmarks=landmark_sets_of_68(read_sixty_eight(landmarks, model.num_vertices)))
    elif len(named) >= 4:
        coordinates = np.array(list(named.values()))
        nearest = np.linalg.norm(mean[None] - coordinates[:, None], axis=-1).argmin(1)
        numbers = [NAMED_LANDMARKS[name] for name in named]
        model = dataclasses.replace(model, landmarks=MappingProxyType({"mediapipe": LandmarkSet.of_vertices(nearest, numbers)}))
    return align_to_head_space(model) if model.landmarks else model


def _linear(file: Any, group: str) -> tuple[Float32, Float32]:
    """Return the mean [V, 3] and the basis [V, 3, K], in standard deviations, of one of the file's three models."""
    mean, basis, variance = (_dataset(file, f"{group}/model/{part}") for part in ("mean", "pcaBasis", "pcaVariance"))
    return vertices_of(mean), basis_of(basis, np.sqrt(variance.reshape(-1)))


def _dataset(file: Any, key: str) -> Float32:
    if key not in file:
        raise KeyError(key)
    return np.asarray(file[key], np.float32)


def _named_landmarks(file: Any) -> dict[str, list[float]]:
    """Return the file's landmarks that NAMED_LANDMARKS knows, with positions on the mean shape in millimetres."""
    if "metadata/landmarks/json" not in file:
        return {}
    text = np.asarray(file["metadata/landmarks/json"]).reshape(-1)[0]
    items = json.loads(text.decode() if isinstance(text, bytes) else str(text))
    return {item["id"]: item["coordinates"] for item in items if item["id"] in NAMED_LANDMARKS}
