"""Convert dlib's face embedding from the npm package `@vladmandic/face-api` 1.7.15 to `face_embedding.onnx.gz`.

    npm pack @vladmandic/face-api@1.7.15 && tar xf vladmandic-face-api-1.7.15.tgz
    python -m research.face.embedding --package package --output services/face/weights/face_embedding.onnx.gz

The package stores most weights as uint8, and the ONNX file keeps them so: Cast, Sub and Mul make float32 numbers of them. ONNX
Runtime does so once, when it loads the file. (Behind DequantizeLinear nodes it would replace the last layer by a kernel that rounds
what the layer takes to 8 bits, which changes embeddings by 2e-3, on each kind of processor in another way.) The factors and offsets
behind a convolution (the package's scale layers) are multiplied into its weights and its bias. PyTorch computes the network as the
package's own source does, without this folding, and both results are compared.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional as F

from services.common.array_types import Float32, UInt8
from services.common.errors import ContractBrokenError, InvalidRequestError
from services.common.files import write_whole
from services.face.embedding import EMBEDDING_SIZE, INPUT, NETWORK, OUTPUT, SIDE

PACKAGE: Final = "@vladmandic/face-api 1.7.15"
FILES: Final = {
    "model/face_recognition_model-weights_manifest.json": "cbaffa501b0b9275a12b63357a6843e7e30c054e1c9151e1a5f879b26e32986b",
    "model/face_recognition_model.bin": "b413e420d6840b2775fba32008db6f3cddb07d485967fb42cfcf379c16a8c589",
}
"""The package's files that are read, by path, with their SHA-256."""
MEAN_RGB: Final = (122.782, 117.001, 104.298)
"""Mean colour that the network was trained to expect, of 255."""
BLOCKS: Final = (
    *("conv32_1", "conv32_2", "conv32_3"),
    *("conv64_down", "conv64_1", "conv64_2", "conv64_3"),
    *("conv128_down", "conv128_1", "conv128_2"),
    *("conv256_down", "conv256_1", "conv256_2", "conv256_down_out"),
)
"""Residual blocks in the order of the network. Blocks with `down` in their names halve the picture."""
PARITY: Final = 2e-5
"""Largest difference of a number of the embedding between PyTorch and ONNX Runtime. Embeddings have a length of about 1.3."""
_OPSET: Final = 17
_PARITY_PICTURES: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class StoredWeight:
    """A tensor of the package: value = (stored - zero) * scale.

    Attributes:
        stored: uint8 or float32, in the package's axes ([height, width, in, out] of a convolution).
        scale: step of a uint8 number; 1 if the tensor is stored as float32.
        zero: number that stands for 0. Of vectors, it may lie outside of uint8 and between two numbers.
    """

    stored: UInt8 | Float32
    scale: float
    zero: float

    @property
    def values(self) -> Float32:
        """The weights, float32."""
        return np.asarray((self.stored.astype(np.float64) - self.zero) * self.scale, np.float32)


def read_package(package: Path) -> dict[str, StoredWeight]:
    """Return the tensors of the unpacked package by name.

    Raises:
        InvalidRequestError: a file is missing, or is not that of PACKAGE.
    """
    contents: dict[str, bytes] = {}
    for name, sha256 in FILES.items():
        try:
            contents[name] = (package / name).read_bytes()
        except OSError as problem:
            raise InvalidRequestError(
                f"{package / name} cannot be read: {problem.strerror}; unpack `npm pack {PACKAGE.replace(' ', '@')}` there",
                field="package",
            ) from None
        if hashlib.sha256(contents[name]).hexdigest() != sha256:
            raise InvalidRequestError(
                f"{package / name} is not the file of {PACKAGE}: its SHA-256 is not {sha256}", field="package"
            )
    manifest, data = contents.values()
    return dict(_tensors(json.loads(manifest), data))


def _tensors(manifest: Any, data: bytes) -> Iterator[tuple[str, StoredWeight]]:
    begin = 0
    for entry in (entry for group in manifest for entry in group["weights"]):
        shape, packed = entry["shape"], entry.get("quantization")
        count = int(np.prod(shape))
        stored = np.frombuffer(data, np.uint8 if packed else "<f4", count, begin).reshape(shape)
        begin += stored.nbytes
        scale = float(packed["scale"]) if packed else 1.0
        yield entry["name"], StoredWeight(stored, scale, -float(packed["min"]) / scale if packed else 0.0)
    if begin != len(data):
        raise InvalidRequestError(
            f"the package's weights have {len(data)} bytes, and its manifest describes {begin}", field="package"
        )


class FaceEmbeddingNetwork(torch.nn.Module):
    """The network as the package's TypeScript writes it (src/faceRecognitionNet): uint8 [N, 150, 150, 3] RGB to float32 [N, 128].

    Args:
        weights: tensors of the package.
    """

    def __init__(self, weights: Mapping[str, StoredWeight]) -> None:
        super().__init__()
        self._weights = {name: torch.from_numpy(weight.values) for name, weight in weights.items()}

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of RGB crops."""
        x = ((crops.float() - torch.tensor(MEAN_RGB)) / 255).permute(0, 3, 1, 2)
        x = F.max_pool2d(self._convolved(x, "conv32_down", down=True).relu(), 3, 2)
        for block in BLOCKS:
            x = self._residual(x, block, down="down" in block)
        return x.mean((2, 3)) @ self._weights["fc"]

    def _convolved(self, x: torch.Tensor, name: str, *, down: bool = False) -> torch.Tensor:
        filters = self._weights[f"{name}/conv/filters"].permute(3, 2, 0, 1)
        stride, padding = (2, 0) if down else (1, 1)
        x = F.conv2d(x, filters, self._weights[f"{name}/conv/bias"], stride, padding)
        factors, offsets = (self._weights[f"{name}/scale/{kind}"][:, None, None] for kind in ("weights", "biases"))
        return x * factors + offsets

    def _residual(self, x: torch.Tensor, block: str, *, down: bool) -> torch.Tensor:
        changed = self._convolved(self._convolved(x, f"{block}/conv1", down=down).relu(), f"{block}/conv2")
        if down:
            x = F.avg_pool2d(x, 2)
            # The way with the convolutions may end one pixel earlier, and the way around them has fewer channels: zeros fill both.
            changed = F.pad(changed, (0, x.shape[3] - changed.shape[3], 0, x.shape[2] - changed.shape[2]))
            x = F.pad(x, (0, 0, 0, 0, 0, changed.shape[1] - x.shape[1]))
        return (x + changed).relu()


class _Graph:
    """ONNX graph of the network, node by node."""

    def __init__(self, weights: Mapping[str, StoredWeight]) -> None:
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def model(self) -> onnx.ModelProto:
        """Return the whole network: uint8 [N, 150, 150, 3] RGB to float32 [N, 128]."""
        pixels = self._node("Cast", INPUT, to=TensorProto.FLOAT)
        mean = self._constant("mean", np.array(MEAN_RGB, np.float32))
        pixels = self._node("Div", self._node("Sub", pixels, mean), self._constant("levels", np.array(255, np.float32)))
        x = self._convolved(self._node("Transpose", pixels, perm=[0, 3, 1, 2]), "conv32_down", side=7, down=True)
        x, size, channels = self._node("MaxPool", self._node("Relu", x), kernel_shape=[3, 3], strides=[2, 2]), 35, 32
        for block in BLOCKS:
            x, size, channels = self._residual(x, block, size, channels)
        x = self._node("ReduceMean", x, axes=[2, 3], keepdims=0)
        fc = self._dequantised("fc", self._weights["fc"].stored, self._weights["fc"], np.ones(1, np.float32))
        self._nodes.append(helper.make_node("MatMul", [x, fc], [OUTPUT]))
        graph = helper.make_graph(
            self._nodes,
            NETWORK,
            [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", EMBEDDING_SIZE])],
            self._constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], producer_name="dubstage", ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        return model

    def _residual(self, x: str, block: str, size: int, channels: int) -> tuple[str, int, int]:
        down = "down" in block
        changed = self._node("Relu", self._convolved(x, f"{block}/conv1", down=down))
        changed = self._convolved(changed, f"{block}/conv2")
        if down:
            wide = self._weights[f"{block}/conv2/conv/bias"].stored.size
            x = self._node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
            changed = self._padded(changed, rows=size // 2 - (size - 1) // 2)
            x = self._padded(x, channels=wide - channels)
            size, channels = size // 2, wide
        return self._node("Relu", self._node("Add", x, changed)), size, channels

    def _convolved(self, x: str, name: str, *, side: int = 3, down: bool = False) -> str:
        filters = self._weights[f"{name}/conv/filters"]
        bias, factors, offsets = (self._weights[f"{name}/{end}"].values for end in ("conv/bias", "scale/weights", "scale/biases"))
        stored = np.ascontiguousarray(filters.stored.transpose(3, 2, 0, 1))
        return self._node(
            "Conv",
            x,
            self._dequantised(name, stored, filters, factors),
            self._constant(f"{name}/bias", bias * factors + offsets),
            kernel_shape=[side, side],
            strides=[2, 2] if down else [1, 1],
            pads=[0 if down else 1] * 4,
        )

    def _dequantised(self, name: str, stored: npt.NDArray[Any], weight: StoredWeight, factors: Float32) -> str:
        """Return the name of a tensor whose first axis is multiplied by `factors`. uint8 numbers stay uint8 in the file."""
        along_first = (-1, *[1] * (stored.ndim - 1))
        if stored.dtype != np.uint8:
            return self._constant(name, stored * factors.reshape(along_first))
        values = self._node("Cast", self._constant(name, stored), to=TensorProto.FLOAT)
        zero = self._constant(f"{name}/zero", np.array(round(weight.zero), np.float32))
        scale = self._constant(f"{name}/scale", np.asarray(weight.scale * factors, np.float32).reshape(along_first))
        return self._node("Mul", self._node("Sub", values, zero), scale)

    def _padded(self, x: str, *, rows: int = 0, channels: int = 0) -> str:
        """Return a tensor [N, C, H, W] with zeros below and to the right of its pixels, and behind its channels."""
        if not (rows or channels):
            return x
        pads = self._constant(f"pads {rows} {channels}", np.array([0, 0, 0, 0, 0, channels, rows, rows], np.int64))
        return self._node("Pad", x, pads)

    def _node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind} {len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def _constant(self, name: str, values: Any) -> str:
        if all(constant.name != name for constant in self._constants):
            self._constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name


def pictures(count: int) -> UInt8:
    """Return seeded random pictures of several roughnesses, uint8 [count, 150, 150, 3], for the comparison of two networks."""
    rng, images = np.random.default_rng(0), []
    for number in range(count):
        grid = rng.random((1, 3, 3 << (number % 6), 3 << (number % 6)), np.float32) * 255
        smooth = F.interpolate(torch.from_numpy(grid), (SIDE, SIDE), mode="bilinear").numpy()
        images.append(smooth[0].transpose(1, 2, 0).round().astype(np.uint8))
    return np.stack(images)


def convert(package: Path, output: Path) -> float:
    """Write the ONNX file, compressed by gzip, and a JSON file that describes it; return the largest difference from PyTorch.

    Args:
        package: folder of the unpacked package.
        output: NAME.onnx.gz. The description is NAME.json.

    Raises:
        InvalidRequestError: the package's files are missing, or other files.
        ContractBrokenError: ONNX Runtime and PyTorch differ by more than PARITY. Nothing is written.
    """
    weights = read_package(package)
    content = _Graph(weights).model().SerializeToString()
    crops = pictures(_PARITY_PICTURES)
    (computed,) = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run([OUTPUT], {INPUT: crops})
    with torch.inference_mode():
        expected = FaceEmbeddingNetwork(weights)(torch.from_numpy(crops)).numpy()
    difference = float(np.abs(computed - expected).max())
    if not difference <= PARITY:
        raise ContractBrokenError(f"ONNX Runtime and PyTorch differ by {difference:.2e}; at most {PARITY:.0e} is allowed")
    compressed = gzip.compress(content, mtime=0)
    description = {
        "files": {output.name: {"sha256": hashlib.sha256(compressed).hexdigest()}},
        "size_bytes": len(compressed),
        "network": NETWORK,
        "source": {"package": PACKAGE, "licence": "MIT", "sha256_of_files": FILES},
        "parity": {"pictures": _PARITY_PICTURES, "largest_difference": difference, "allowed": PARITY},
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, compressed)
    write_whole(output.with_suffix("").with_suffix(".json"), f"{json.dumps(description, indent=1)}\n".encode())
    return difference


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, required=True, metavar="FOLDER", help="Folder of the unpacked npm package.")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="File to write, NAME.onnx.gz.")
    arguments = parser.parse_args()
    difference = convert(arguments.package, arguments.output)
    size = arguments.output.stat().st_size
    print(f"{arguments.output}: {size:,} bytes; PyTorch and ONNX Runtime differ by {difference:.1e} at most")


if __name__ == "__main__":
    main()
