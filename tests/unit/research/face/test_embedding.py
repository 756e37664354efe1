"""The converter of the face embedding, on a made-up package of the same layout."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from research.face import embedding
from research.face.embedding import BLOCKS, FILES, FaceEmbeddingNetwork, convert, pictures, read_package
from services.common.errors import ContractBrokenError, InvalidRequestError
from services.common.store.network_session import open_network

MANIFEST, BIN = FILES


def write_package(folder: Path, *, seed: int = 0) -> Path:
    """A package with the names, shapes and storage of the real one, and random numbers."""
    rng = np.random.default_rng(seed)
    entries, data = [], b""

    def add(name: str, shape: tuple[int, ...], low: float, high: float, *, packed: bool = True) -> None:
        nonlocal data
        entry: dict[str, object] = {"name": name, "shape": list(shape), "dtype": "float32"}
        if packed:
            scale = (high - low) / 255
            # TensorFlow.js moves the range so that one of the 256 numbers is 0, if 0 lies in the range.
            low = round(low / scale) * scale if low < 0 < high else low
            entry["quantization"] = {"dtype": "uint8", "scale": scale, "min": low}
            data += rng.integers(0, 256, shape, dtype=np.uint8).tobytes()
        else:
            data += rng.uniform(low, high, shape).astype("<f4").tobytes()
        entries.append(entry)

    def layer(name: str, side: int, came: int, goes: int, *, packed: bool = True) -> None:
        spread = 2.0 / np.sqrt(side * side * came)
        add(f"{name}/conv/filters", (side, side, came, goes), -spread, spread, packed=packed)
        add(f"{name}/conv/bias", (goes,), -1e-3, 1e-3)
        add(f"{name}/scale/weights", (goes,), 0.5, 1.5)
        add(f"{name}/scale/biases", (goes,), -0.2, 0.2)

    layer("conv32_down", 7, 3, 32)
    came = 32
    for block in BLOCKS:
        goes = int(block.removeprefix("conv").partition("_")[0])
        packed = goes != 64
        layer(f"{block}/conv1", 3, came, goes, packed=packed)
        layer(f"{block}/conv2", 3, goes, goes, packed=packed)
        came = goes
    add("fc", (256, 128), -0.05, 0.05)
    (folder / "model").mkdir(parents=True)
    (folder / MANIFEST).write_text(json.dumps([{"paths": [Path(BIN).name], "weights": entries}]))
    (folder / BIN).write_bytes(data)
    return folder


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = write_package(tmp_path / "package")
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}
    monkeypatch.setattr(embedding, "FILES", digests)
    return folder


def test_the_onnx_file_computes_what_pytorch_computes(package: Path, tmp_path: Path) -> None:
    output = tmp_path / "weights" / "face_embedding.onnx.gz"
    assert convert(package, output) < 2e-5
    crops = pictures(3)
    (found,) = open_network(output, threads=1).run(None, {"crops": crops})
    with torch.inference_mode():
        wanted = FaceEmbeddingNetwork(read_package(package))(torch.from_numpy(crops)).numpy()
    assert np.linalg.norm(wanted[0] - wanted[1]) > 1e-3
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    description = json.loads((output.parent / "face_embedding.json").read_text())
    assert description["files"][output.name]["sha256"] == hashlib.sha256(output.read_bytes()).hexdigest()
    assert [path.name for path in output.parent.iterdir() if path.name.startswith(".")] == []


def test_other_package_names_file(tmp_path: Path, package: Path) -> None:
    """Another package is refused by the name of the file."""
    (package / BIN).write_bytes((package / BIN).read_bytes()[:-1] + b"\0")
    with pytest.raises(InvalidRequestError, match=r"face_recognition_model\.bin .* 1\.7\.15"):
        convert(package, tmp_path / "out.onnx.gz")
    with pytest.raises(InvalidRequestError, match=r"npm pack @vladmandic/face-api@1\.7\.15"):
        convert(tmp_path / "nothing", tmp_path / "out.onnx.gz")
    assert not (tmp_path / "out.onnx.gz").exists()


def test_differing_network_not_written(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that differs from its source is not written."""
    monkeypatch.setattr(embedding, "MEAN_RGB", (0.0, 0.0, 0.0))
    graph = embedding._Graph(read_package(package)).model()
    monkeypatch.undo()
    monkeypatch.setattr(embedding, "FILES", {name: hashlib.sha256((package / name).read_bytes()).hexdigest() for name in FILES})
    monkeypatch.setattr(embedding._Graph, "model", lambda _: graph)
    with pytest.raises(ContractBrokenError, match="PyTorch differ by"):
        convert(package, tmp_path / "out.onnx.gz")
    assert list(tmp_path.glob("out*")) == []
