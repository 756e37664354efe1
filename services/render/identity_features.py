"""Identity features of filmed pictures: the embedding trained here, or the user's own ArcFace weights (paper `headpose`, Sec. 3.4).

A model of `headpose` belongs to one embedding: the features in its memory mean nothing beside those of another. The digest of the
embedding's file is part of the model's weights, and another file is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import onnxruntime as ort
import torch

from services.common.errors import ModelNotFound
from services.render.backends.registry import file_sha256
from services.render.networks.weights import load_identity_embedding
from services.render.types import Float32, UInt8

EMBEDDING: Final = "identity_embedding"
"""File name of the embedding in a folder of weights, .safetensors (ours) or .onnx (ArcFace)."""
_ARCFACE_SIZE: Final = 112


@dataclass(frozen=True, slots=True)
class IdentityFeatures:
    """An embedding.

    Attributes:
        sha256: of its file.
        size: numbers of a feature.
        of: render boxes, uint8 [N, 160, 160, 3], to unit vectors, float32 [N, size].
    """

    sha256: str
    size: int
    of: Callable[[UInt8], Float32]


def read_identity_features(path: Path) -> IdentityFeatures:
    """The embedding of a file: ours (.safetensors), or ArcFace as ONNX (.onnx; input [N, 3, 112, 112] RGB, (x - 127.5) / 127.5).

    ArcFace was trained on whole faces. It is shown the render box here, which holds the lower face only.

    Raises:
        ModelNotFound: no such file, or another network's.
    """
    if path.suffix == ".onnx":
        return _arcface(path)
    network = load_identity_embedding(path)

    def of(boxes: UInt8) -> Float32:
        pictures = torch.from_numpy(np.ascontiguousarray(boxes)).permute(0, 3, 1, 2).float().div_(255.0)
        with torch.no_grad():
            return np.asarray(network(pictures).numpy(), np.float32)

    return IdentityFeatures(file_sha256(path), network.config.size, of)


def embedding_of(folder: Path, sha256: str) -> IdentityFeatures:
    """The embedding of a folder of weights that a model was trained with.

    Args:
        folder: holds identity_embedding.safetensors, or identity_embedding.onnx, which goes first.
        sha256: digest that the model names.

    Raises:
        ModelNotFound: there is none, or another.
    """
    path = next((path for suffix in (".onnx", ".safetensors") if (path := folder / f"{EMBEDDING}{suffix}").is_file()), None)
    if path is None:
        raise ModelNotFound(f"no {EMBEDDING}.safetensors in {folder}", resource=EMBEDDING)
    if (found := file_sha256(path)) != sha256:
        raise ModelNotFound(
            f"model 'headpose' was trained with the identity embedding {sha256[:12]}, {path} is {found[:12]}: put that one there, "
            "or train the model with this one (--identity-weights)",
            resource=EMBEDDING,
        )
    return read_identity_features(path)


def _arcface(path: Path) -> IdentityFeatures:
    try:
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # its exception types are not exported
        raise ModelNotFound(f"no ArcFace network at {path}: {error}", resource=str(path)) from error
    given, shape = session.get_inputs()[0], session.get_inputs()[0].shape
    size = session.get_outputs()[0].shape[-1]
    if list(shape[1:]) != [3, _ARCFACE_SIZE, _ARCFACE_SIZE] or not isinstance(size, int):
        raise ModelNotFound(f"{path} takes {shape}, ArcFace takes [N, 3, 112, 112]", resource=str(path))

    def of(boxes: UInt8) -> Float32:
        small = np.stack([cv2.resize(box, (_ARCFACE_SIZE, _ARCFACE_SIZE), interpolation=cv2.INTER_AREA) for box in boxes])
        pictures = ((small.astype(np.float32) - 127.5) / 127.5).transpose(0, 3, 1, 2)
        # One at a time: such files often have a fixed batch.
        made = np.concatenate([session.run(None, {given.name: picture[None]})[0].reshape(1, -1) for picture in pictures])
        return np.asarray(made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-9), np.float32)

    return IdentityFeatures(file_sha256(path), size, of)
