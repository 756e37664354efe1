"""Conversion of a model.bin: the reader, the parity with PyTorch, and refused files. The model here is small and random."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch

from research.audio.speech_encoder import (
    LARGEST_ROUNDING,
    LEAST_COSINE,
    EncoderConfig,
    SpeechEncoder,
    convert,
    encoder_of,
    positions,
    read_variables,
)
from research.training.trainset import TrainSet
from services.audio.speech_encoder import MODEL_FILE, EncoderNetwork
from services.common.array_types import Array, Float32
from services.common.errors import InvalidRequestError
from services.common.store.exported_networks import checked_sha256
from tests.unit.research.audio.speech_sets import speech_set

CONFIG = EncoderConfig(width=32, heads=2, blocks=3, tapped=(2, 3), projected=8)
LAYERS = {"attention_norm": "self_attention/layer_norm", "feed_norm": "ffn/layer_norm"} | {
    "mixed": "self_attention/linear_0",
    "joined": "self_attention/linear_1",
    "wide": "ffn/linear_0",
    "narrow": "ffn/linear_1",
}


def variables_of(network: SpeechEncoder) -> dict[str, Array]:
    """Return the network under the names of the file, float16 as in the packages."""
    found: dict[str, Array] = {}
    for name, values in network.state_dict().items():
        path, part = name.rsplit(".", 1)
        if path.startswith("projections"):
            continue
        if path in {"first", "second"}:
            theirs = {"first": "conv1", "second": "conv2"}[path]
        else:
            _, block, layer = path.split(".")
            theirs = f"layer_{block}/{LAYERS[layer]}"
            if layer.endswith("norm"):
                part = {"weight": "gamma", "bias": "beta"}[part]
        found[f"encoder/{theirs}/{part}"] = values.numpy().astype(np.float16)
    return found


def model_bin(variables: dict[str, Array]) -> bytes:
    def string(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    parts = [struct.pack("<I", 6), string("WhisperSpec"), struct.pack("<II", 3, len(variables))]
    for name, values in variables.items():
        shape = struct.pack(f"<B{values.ndim}I", values.ndim, *values.shape)
        parts += [string(name), shape, struct.pack("<BI", 4, values.nbytes), values.tobytes()]
    return b"".join([*parts, struct.pack("<I", 0)])


@pytest.fixture(scope="module")
def source() -> SpeechEncoder:
    torch.manual_seed(5)
    return SpeechEncoder(CONFIG).eval()


@pytest.fixture
def file(tmp_path: Path, source: SpeechEncoder) -> Path:
    path = tmp_path / "model.bin"
    path.write_bytes(model_bin(variables_of(source)))
    return path


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainSet:
    folder = tmp_path_factory.mktemp("set")
    speech_set(folder, speakers=3, clips=2)
    return TrainSet(folder)


def window(rows: int) -> Float32:
    return np.random.default_rng(rows).normal(-3.0, 2.0, (rows, 80)).astype(np.float32)


def test_the_reader_returns_what_was_written(file: Path, source: SpeechEncoder) -> None:
    expected = variables_of(source)
    found = read_variables(file, digest(file))
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_wheel_read_like_file(file: Path, tmp_path: Path) -> None:
    """A wheel is read like the file in it."""
    wheel = tmp_path / "models.whl"
    with ZipFile(wheel, "w") as archive:
        archive.write(file, "package/model/model.bin")
    assert read_variables(wheel, digest(file)).keys() == read_variables(file, digest(file)).keys()


def test_the_converted_network_follows_pytorch(file: Path, data: TrainSet, tmp_path: Path) -> None:
    parity = convert(file, data, tmp_path, digest(file), CONFIG)
    assert parity.cosine >= LEAST_COSINE
    assert parity.rounding <= LARGEST_ROUNDING
    checked_sha256(tmp_path / MODEL_FILE)
    facts = json.loads((tmp_path / MODEL_FILE).with_suffix(".json").read_text())
    assert facts["source_sha256"] == digest(file)
    assert facts["encoder"]["width"] == 32
    network = EncoderNetwork(tmp_path / MODEL_FILE)
    for rows in (8, 52 * 4, 140 * 4):
        assert network.run(window(rows)).shape == (rows // 2, 16)


def test_projected_states_are_principal_components(file: Path, data: TrainSet, tmp_path: Path) -> None:
    """A component of the converted network varies with the full state's projection, and components vary less and less."""
    convert(file, data, tmp_path, digest(file), CONFIG)
    reference = encoder_of(read_variables(file, digest(file)), CONFIG)
    rows = window(400)
    states = EncoderNetwork(tmp_path / MODEL_FILE).run(rows)
    with torch.inference_mode():
        full = [x[0].numpy().astype(np.float64) for x in reference.states(torch.from_numpy(rows)[None])]
    for tap, whole in enumerate(full):
        seen = states[:, tap * 8 : tap * 8 + 8]
        design = np.concatenate([whole, np.ones((len(whole), 1))], axis=1)
        missed = seen - design @ np.linalg.lstsq(design, seen, rcond=None)[0]
        assert missed.std() < 0.05 * seen.std()


def test_another_file_is_refused(file: Path, data: TrainSet, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"model\.bin: the SHA-256 of model\.bin is [0-9a-f]{64}, expected 1a5afae0"):
        convert(file, data, tmp_path, config=CONFIG)
    assert not (tmp_path / MODEL_FILE).exists()


def test_a_cut_file_and_other_sizes_are_refused(file: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.bin"
    cut.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(InvalidRequestError, match=r"cut\.bin: .* CTranslate2"):
        read_variables(cut, digest(cut))
    with pytest.raises(InvalidRequestError, match=r"encoder/conv1/weight is of shape \[32, 80, 3\], expected \[384, 80, 3\]"):
        encoder_of(read_variables(file, digest(file)), EncoderConfig())
    with pytest.raises(InvalidRequestError, match=r"encoder/layer_3/self_attention/layer_norm/gamma is missing"):
        encoder_of(read_variables(file, digest(file)), EncoderConfig(width=32, heads=2, blocks=4, tapped=(4,)))
    with pytest.raises(InvalidRequestError, match=r"nowhere\.bin: cannot be read"):
        read_variables(tmp_path / "nowhere.bin")


def test_positions_are_whispers() -> None:
    """Sines of geometric rates from 1 to 1/10 000, then their cosines."""
    found = positions(4, 6).numpy()
    rates = np.array([1.0, 1e-2, 1e-4])
    np.testing.assert_allclose(found[3], np.concatenate([np.sin(3 * rates), np.cos(3 * rates)]), atol=1e-6)


def test_quiet_band_floor(source: SpeechEncoder) -> None:
    """A quiet band is cut at eight decades below the loudest."""
    quiet = torch.from_numpy(window(40))[None]
    quiet[0, 5, 5] = 4.0
    lower = quiet.clone()
    quiet[0, 20], lower[0, 20] = -5.0, -9.0
    with torch.inference_mode():
        assert torch.equal(source(quiet), source(lower))
        quiet[0, 20] = -3.0
        assert not torch.equal(source(quiet), source(lower))
