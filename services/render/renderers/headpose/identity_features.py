"""Identity features of filmed pictures (paper `headpose`, Sec. 3.4), by the embedding trained here or by the user's own ArcFace.

A model of `headpose` belongs to one embedding: features of another embedding cannot be compared with the features in the model's
memory. The header of the model's weights holds the digest of the embedding's file. A file with another digest is refused.

The embedding trained here, a small network from a picture of the lower face to a unit vector that says who the person is, stands in
for ArcFace. research/methods/headpose/identity_embedding.py trains the network on the people of the training set with ArcFace's own
loss, the additive angular margin (Deng et al. 2019). Training varies light, colour, place and sharpness, so that the vector says
whose mouth, chin and cheeks the picture shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from services.common.array_types import Float32, UInt8
from services.common.errors import ModelNotFoundError
from services.common.files import file_sha256
from services.render.networks.weights import StoredConfig, loader, metadata_of, to_tensor

_SLOPE: Final = 0.1
EMBEDDING: Final = "identity_embedding"
"""File name of the embedding in a folder of weights: .safetensors (the embedding trained here) or .onnx (ArcFace)."""
_ARCFACE_SIZE: Final = 112


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentityEmbeddingConfig(StoredConfig):
    """Shape of the network.

    Attributes:
        widths: channels at 80, 40, 20, 10 and 5 px.
        size: numbers of an identity feature.
    """

    widths: tuple[int, ...] = (24, 32, 48, 64, 96)
    size: int = 64


class IdentityEmbedding(nn.Module):
    """Network of convolutions of stride 2, the mean over the picture and a linear layer, scaled to unit length."""

    def __init__(self, config: IdentityEmbeddingConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        for before, after in pairwise((3, *config.widths)):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(8, after), nn.LeakyReLU(_SLOPE)]
            layers += [nn.Conv2d(after, after, 3, 1, 1), nn.LeakyReLU(_SLOPE)] if after > config.widths[0] else []
        self.layers = nn.Sequential(*layers)
        self.output = nn.Linear(config.widths[-1], config.size)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return unit vectors, float [B, size], of pictures, float [B, 3, 160, 160] in [0, 1]."""
        return F.normalize(self.output(self.layers(pictures * 2.0 - 1.0).mean(dim=(2, 3))), dim=1)


load: Final = loader(IdentityEmbedding, IdentityEmbeddingConfig)
"""Identity embedding of a weights file; see `loader`."""


@dataclass(frozen=True, slots=True)
class IdentityFeatures:
    """Identity embedding.

    Attributes:
        path: the embedding's file.
        sha256: digest of the file, hexadecimal.
        size: numbers of an identity feature.
        of: returns unit vectors, float32 [N, size], for render boxes, uint8 [N, 160, 160, 3].
    """

    path: Path
    sha256: str
    size: int
    of: Callable[[UInt8], Float32]


def read_identity_features(path: Path, device: torch.device | None = None) -> IdentityFeatures:
    """Return the embedding of a file: .safetensors, or ArcFace as .onnx (input [N, 3, 112, 112] RGB, (x - 127.5) / 127.5).

    ArcFace was trained on whole faces. Here ArcFace sees the render box, which holds the lower face only.

    Args:
        device: device that computes the features; None: the CPU. ArcFace is always computed on the CPU.

    Raises:
        ModelNotFoundError: the file is missing or holds another network.
    """
    if path.suffix == ".onnx":
        return _arcface(path)
    network = load(path).to(device)

    def of(boxes: UInt8) -> Float32:
        with torch.no_grad():
            return np.asarray(network(to_tensor(boxes, device)).cpu().numpy(), np.float32)

    return IdentityFeatures(path, file_sha256(path), network.config.size, of)


def embedding_of(weights: Path) -> IdentityFeatures:
    """Return the embedding that a model was trained with.

    Args:
        weights: weights file of the model, whose header holds the digest of the embedding. The embedding lies beside this file, as
            identity_embedding.onnx or identity_embedding.safetensors. If both are there, the digest says which one is meant.

    Raises:
        ModelNotFoundError: the weights file is missing, or the embedding beside this file is missing or another one.
    """
    folder, sha256 = weights.parent, metadata_of(weights).get(EMBEDDING, "")
    paths = [path for suffix in (".onnx", ".safetensors") if (path := folder / f"{EMBEDDING}{suffix}").is_file()]
    if not paths:
        raise ModelNotFoundError(f"no {EMBEDDING}.safetensors in {folder}", resource=EMBEDDING)
    digests = {file_sha256(path): path for path in paths}
    if sha256 not in digests:
        others = ", ".join(f"{path} is {digest[:12]}" for digest, path in digests.items())
        raise ModelNotFoundError(
            f"model 'headpose' was trained with the identity embedding {sha256[:12]}, but {others}: put the right embedding there, "
            "or train the model with this one",
            resource=EMBEDDING,
        )
    return read_identity_features(digests[sha256])


def _arcface(path: Path) -> IdentityFeatures:
    try:
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # its exception types are not exported
        raise ModelNotFoundError(f"no ArcFace network at {path}: {error}", resource=str(path)) from error
    given, shape = session.get_inputs()[0], session.get_inputs()[0].shape
    size = session.get_outputs()[0].shape[-1]
    if list(shape[1:]) != [3, _ARCFACE_SIZE, _ARCFACE_SIZE] or not isinstance(size, int):
        raise ModelNotFoundError(f"{path} takes {shape}, ArcFace takes [N, 3, 112, 112]", resource=str(path))

    def of(boxes: UInt8) -> Float32:
        small = np.stack([cv2.resize(box, (_ARCFACE_SIZE, _ARCFACE_SIZE), interpolation=cv2.INTER_AREA) for box in boxes])
        pictures = ((small.astype(np.float32) - 127.5) / 127.5).transpose(0, 3, 1, 2)
        # One picture per call, because such files often have a fixed batch size.
        vectors = np.concatenate([session.run(None, {given.name: picture[None]})[0].reshape(1, -1) for picture in pictures])
        return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9), np.float32)

    return IdentityFeatures(path, file_sha256(path), size, of)
