"""Tests of the networks in a folder of weights: writing, reading, comparing and refusing; files are written whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from services.common.errors import ArtefactCorruptError, DubstageError, ModelNotFoundError
from services.common.store.exported_networks import (
    cards_in,
    copy_card,
    networks_in,
    read_network,
    write_exported_network,
)
from services.common.store.network_session import open_network


@dataclass(frozen=True)
class Facts:
    """Return the description of an export."""

    tolerance: float = 1e-4


def identity_network(name: str = "same") -> bytes:
    """Return an ONNX file that returns its input. Files with other names have other bytes."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], name, [value], [answer])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text('{"network": "same", "config": {"width": 3}}')
    (folder / "CARD.md").write_text("# same")
    (folder / "same.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def weights(tmp_path: Path, run: Path) -> Path:
    path = tmp_path / "weights" / "same.onnx"
    write_exported_network(path, identity_network(), run=run, weights=run / "same.safetensors", spec=Facts(), parity=Facts(0.0))
    return path.parent


def test_export_has_description_and_card(weights: Path) -> None:
    """An export is the network its description and its card."""
    assert sorted(path.name for path in weights.iterdir()) == ["same.card.md", "same.json", "same.onnx"]
    sheet = json.loads((weights / "same.json").read_text())
    assert sheet["sha256"] == hashlib.sha256((weights / "same.onnx").read_bytes()).hexdigest()
    assert sheet["training"]["config"] == {"width": 3}
    assert sheet["weights_sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert sheet["card"] == "same.card.md"
    (network,) = networks_in(weights)
    assert (network.path, network.card, network.digest) == (weights / "same.onnx", weights / "same.card.md", sheet["sha256"][:12])
    assert cards_in(weights) == [weights / "same.card.md"]


def test_a_network_is_loaded_and_computes(weights: Path) -> None:
    session = open_network(weights / "same.onnx", 1)
    np.testing.assert_array_equal(session.run(None, {"x": np.array([1, 2], np.float32)})[0], [1, 2])


def test_a_compressed_network_is_loaded_and_computes(tmp_path: Path) -> None:
    """A network that gzip compressed computes what the network computes. A file that is cut off is named."""
    path, compressed = tmp_path / "same.onnx.gz", gzip.compress(identity_network())
    path.write_bytes(compressed)
    assert [network.path for network in networks_in(tmp_path)] == [path]
    np.testing.assert_array_equal(open_network(path, 1).run(None, {"x": np.array([1, 2], np.float32)})[0], [1, 2])
    path.write_bytes(compressed[:-20])
    with pytest.raises(ArtefactCorruptError, match=r"same\.onnx\.gz is damaged"):
        open_network(path, 1)


def test_earlier_card_is_removed(weights: Path, run: Path) -> None:
    """The card of an earlier export does not stay."""
    (run / "CARD.md").unlink()
    assert copy_card(run, weights / "same.onnx") is None
    assert networks_in(weights)[0].card is None


def test_one_matching_description_suffices(weights: Path) -> None:
    """A network may be described by several files of which one is right."""
    (weights / "both.json").write_text(json.dumps({"files": {"same.onnx": {"sha256": "0" * 64}}}))
    read_network(weights / "same.onnx")
    (weights / "same.json").unlink()
    with pytest.raises(ArtefactCorruptError, match=r"same\.onnx is damaged.*not with 000000000000 in both\.json"):
        read_network(weights / "same.onnx")


def test_network_without_description_accepted(weights: Path) -> None:
    """A network without a description is taken as it is."""
    (weights / "same.json").unlink()
    assert networks_in(weights / "same.onnx") == networks_in(weights)


@pytest.mark.parametrize(
    ("files", "error", "name"),
    [
        ({"same.onnx": None}, ModelNotFoundError, "same.onnx"),
        ({"same.onnx": identity_network()[:20]}, ArtefactCorruptError, "same.onnx"),
        ({"same.json": None, "same.onnx": b"a page of a download that failed"}, ArtefactCorruptError, "same.onnx"),
        ({"same.json": b'{"sha256": '}, ArtefactCorruptError, "same.json"),
        ({"same.json": b"[1]"}, ArtefactCorruptError, "same.json"),
    ],
    ids=["missing", "half", "text without description", "half a description", "a list"],
)
def test_a_missing_or_damaged_file_is_named(
    weights: Path, files: dict[str, bytes | None], error: type[DubstageError], name: str
) -> None:
    for file, content in files.items():
        (weights / file).unlink()
        if content is not None:
            (weights / file).write_bytes(content)
    with pytest.raises(error) as caught:
        open_network(weights / "same.onnx", 1)
    assert str(weights / name) in caught.value.message


@pytest.mark.parametrize("name", ["same.onnx", "same.onnx.gz"])
def test_network_replaced_before_load(tmp_path: Path, name: str) -> None:
    """A sound network that takes the place of the one that was checked is not loaded."""
    pack = gzip.compress if name.endswith(".gz") else bytes
    content = pack(identity_network())
    (tmp_path / name).write_bytes(content)
    (tmp_path / "same.json").write_text(json.dumps({"files": {name: {"sha256": hashlib.sha256(content).hexdigest()}}}))
    session = open_network(tmp_path / name, 1)
    (tmp_path / name).write_bytes(pack(identity_network("other")))
    with pytest.raises(ArtefactCorruptError, match=rf"{name} is damaged: it was replaced"):
        session.loaded()
    (tmp_path / name).write_bytes(content)
    assert session.loaded() is session.loaded()


def test_described_network_loads_late(weights: Path) -> None:
    """The digest tells whether a described file is whole, so the first run loads the network, in whichever thread comes first."""
    session = open_network(weights / "same.onnx", 1)
    (weights / "same.onnx").rename(weights / "moved.onnx")
    with pytest.raises(ArtefactCorruptError, match=r"same\.onnx is damaged"):
        session.loaded()
    (weights / "moved.onnx").rename(weights / "same.onnx")
    with ThreadPoolExecutor(4) as pool:
        found = {id(each) for each in pool.map(lambda _: session.loaded(), range(8))}
    assert len(found) == 1
