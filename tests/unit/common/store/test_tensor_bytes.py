from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from services.common.errors import InvalidRequestError
from services.common.store.tensor_bytes import decode_arrays, encode_arrays

DTYPES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]


def example() -> dict[str, np.ndarray[Any, Any]]:
    generator = np.random.default_rng(1)
    arrays = {f"of {dtype}": (generator.random((3, 5)) * 2).astype(dtype) for dtype in DTYPES}
    return {**arrays, "empty": np.zeros((0, 4), np.float32), "scalar": np.array(3.5)}


def test_every_dtype_and_shape_comes_back() -> None:
    read = decode_arrays(encode_arrays(example(), {"ü": "ß"}))
    assert dict(read.metadata) == {"ü": "ß"}
    assert set(read.arrays) == set(example())
    for name, array in example().items():
        assert read[name].dtype == array.dtype
        assert read[name].flags.aligned
        np.testing.assert_array_equal(read[name], array)
    assert read.size_bytes == sum(array.nbytes for array in example().values())


def test_other_readers_of_safetensors_read_it() -> None:
    theirs = safetensors.numpy.load(encode_arrays(example(), {"k": "v"}))
    for name, array in example().items():
        np.testing.assert_array_equal(theirs[name], array)


def test_what_other_writers_wrote_is_read() -> None:
    ours = decode_arrays(safetensors.numpy.save(example(), {"k": "v"}))
    assert dict(ours.metadata) == {"k": "v"}
    np.testing.assert_array_equal(ours["of f4"], example()["of f4"])


def test_views_and_big_endian_stored() -> None:
    """Views and big endian arrays are stored by value."""
    array = np.arange(12, dtype=">i4").reshape(3, 4)
    assert encode_arrays({"a": array.T[::-1]}) == encode_arrays({"a": array.T[::-1].astype("<i4").copy()})


def test_what_cannot_be_stored_is_refused() -> None:
    with pytest.raises(TypeError, match="dtype"):
        encode_arrays({"a": np.array(["text"])})
    with pytest.raises(TypeError, match="strings"):
        encode_arrays({}, {"rate": 25})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="reserved"):
        encode_arrays({"__metadata__": np.zeros(1)})


def header(**entry: Any) -> bytes:
    text = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **entry}}).encode()
    return len(text).to_bytes(8, "little") + text + bytes(8)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        b"\xff" * 40,
        (2).to_bytes(8, "little") + b"[]",
        (4).to_bytes(8, "little") + b'{"a"',
        header(dtype="F31"),
        header(shape=[3]),
        header(shape=[-2]),
        header(shape=[-1, -2]),
        header(shape="2"),
        header(shape=[1 << 70]),
        header(data_offsets=[8, 16]),
        header(data_offsets=[-8, 0]),
        header(data_offsets=[0]),
        header()[:-1],
    ],
)
def test_damaged_bytes_are_refused(data: bytes) -> None:
    assert decode_arrays(header())["a"].shape == (2,)
    with pytest.raises(InvalidRequestError):
        decode_arrays(data)


@pytest.mark.parametrize(
    "header",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        "[]",
        '{"__metadata__":[]}',
        '{"a":{"dtype":"F32","shape":[0,1267650600228229401496703205376],"data_offsets":[0,0]}}',
        '{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}',
        '{"a":{"dtype":"F99","shape":[],"data_offsets":[0,0]}}',
        '{"a":7}',
    ],
)
def test_a_hostile_header_is_refused(header: str) -> None:
    text = header.encode()
    with pytest.raises(InvalidRequestError, match="named arrays"):
        decode_arrays(len(text).to_bytes(8, "little") + text)
