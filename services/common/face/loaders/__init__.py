"""Loaders for face models that users hold under their own licences: FLAME, Basel 2009 and 2017, ICT-FaceKit.

A file that `MorphableModel.save` wrote loads too. Each loader brings the model to head space, so that head poses, crops and
renderers work with any model.
"""

from __future__ import annotations

from pathlib import Path

from services.common.errors import InvalidRequestError
from services.common.face.loaders.files import FIELD
from services.common.geometry.morphable_model import MorphableModel


def load_model(path: Path, landmarks: Path | None = None, texture: Path | None = None) -> MorphableModel:
    """Return the face model in a file or folder. The name and the ending choose the loader.

    .safetensors: dubstage's own format; .h5: Basel 2017; .mat or a folder with 01_MorphableModel.mat: Basel 2009; .pkl or .npz:
    FLAME; a folder with generic_neutral_mesh.obj, or .npy: ICT-FaceKit.

    Args:
        path: file or folder.
        landmarks: the loader's landmark file: FLAME's embedding, or 68 vertex numbers.
        texture: FLAME's texture file. Other formats hold their textures themselves.

    Raises:
        InvalidRequestError: the file is missing, of an unknown kind, or damaged.
    """
    if not path.exists():
        raise InvalidRequestError(f"there is no face model at {path}", field=FIELD)
    if path.is_dir():
        if (path / "01_MorphableModel.mat").exists():
            return _bfm2009(path, landmarks)
        if (path / "generic_neutral_mesh.obj").exists():
            return _ict(path)
        raise InvalidRequestError(f"{path} holds neither 01_MorphableModel.mat nor generic_neutral_mesh.obj", field=FIELD)
    match path.suffix.lower():
        case ".safetensors":
            return MorphableModel.load(path)
        case ".mat":
            return _bfm2009(path, landmarks)
        case ".npy":
            return _ict(path)
        case ".h5" | ".hdf5":
            from services.common.face.loaders.bfm import load_bfm2017

            return load_bfm2017(path, landmarks=landmarks)
        case ".pkl" | ".npz":
            from services.common.face.loaders.flame import load_flame

            return load_flame(path, landmarks=landmarks, texture=texture)
    kinds = ".safetensors (dubstage), .pkl or .npz (FLAME), .mat (Basel 2009), .h5 (Basel 2017), a folder (Basel 2009, ICT-FaceKit)"
    raise InvalidRequestError(f"{path.name} is no face model by its ending; known are {kinds}", field=FIELD)


def _bfm2009(path: Path, landmarks: Path | None) -> MorphableModel:
    from services.common.face.loaders.bfm import load_bfm2009

    return load_bfm2009(path, landmarks=landmarks)


def _ict(path: Path) -> MorphableModel:
    from services.common.face.loaders.ict import load_ict

    return load_ict(path)
