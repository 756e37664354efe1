"""Tests of the networks in a folder of weights: reading, comparing and refusing."""

from __future__ import annotations

import gzip
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from services.common.errors import ArtefactCorruptError, DubstageError, ModelNotFoundError
from services.common.store.exported_networks import networks_in, read_network
from services.common.store.network_session import open_network
from tests.unit.common.store.exported import exported_network, identity_network, run_folder


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return exported_network(tmp_path / "weights", run_folder(tmp_path / "run")).parent


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
