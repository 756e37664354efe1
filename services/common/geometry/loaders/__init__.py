"""Face models that users bring under their own licences: FLAME, Basel 2009 and 2017, ICT-FaceKit, or a file that
`MorphableModel.save` wrote.

Each loader brings its model to head space, so that a HeadPose, a crop and a renderer take any of them.
"""

from __future__ import annotations

from pathlib import Path

from services.common.errors import InvalidRequest
from services.common.geometry.loaders.files import FIELD
from services.common.geometry.morphable_model import MorphableModel


def load_model(path: Path, landmarks: Path | None = None) -> MorphableModel:
    """Read a face model, choosing the loader by the file's name and ending.

    .safetensors: our own; .h5: Basel 2017; .mat or a folder with 01_MorphableModel.mat: Basel 2009; .pkl or .npz: FLAME; a folder
    with generic_neutral_mesh.obj, or .npy: ICT-FaceKit.

    Args:
        path: file or folder.
        landmarks: the loader's landmark file: FLAME's embedding, or 68 vertex numbers.

    Raises:
        InvalidRequest: missing, of no known kind, or damaged.
    """
    if not path.exists():
        raise InvalidRequest(f"there is no face model at {path}", field=FIELD)
    if path.is_dir():
        if (path / "01_MorphableModel.mat").exists():
            return _bfm2009(path, landmarks)
        if (path / "generic_neutral_mesh.obj").exists():
            return _ict(path)
        raise InvalidRequest(f"{path} holds neither 01_MorphableModel.mat nor generic_neutral_mesh.obj", field=FIELD)
    match path.suffix.lower():
        case ".safetensors":
            return MorphableModel.load(path)
        case ".mat":
            return _bfm2009(path, landmarks)
        case ".npy":
            return _ict(path)
        case ".h5" | ".hdf5":
            from services.common.geometry.loaders.bfm2017 import load_bfm2017

            return load_bfm2017(path, landmarks=landmarks)
        case ".pkl" | ".npz":
            from services.common.geometry.loaders.flame import load_flame

            return load_flame(path, landmarks=landmarks)
    kinds = ".safetensors (dubstage), .pkl or .npz (FLAME), .mat (Basel 2009), .h5 (Basel 2017), a folder (Basel 2009, ICT-FaceKit)"
    raise InvalidRequest(f"{path.name} is no face model that is known by its ending; known are {kinds}", field=FIELD)


def _bfm2009(path: Path, landmarks: Path | None) -> MorphableModel:
    from services.common.geometry.loaders.bfm2009 import load_bfm2009

    return load_bfm2009(path, landmarks=landmarks)


def _ict(path: Path) -> MorphableModel:
    from services.common.geometry.loaders.ict import load_ict

    return load_ict(path)
