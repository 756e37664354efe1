"""Tensor and Image messages that do not hold what they say."""

from __future__ import annotations

import numpy as np
import pytest

from dubstage.common.v1alpha1 import common_pb2 as pb
from services.common.errors import InvalidRequest
from services.common.wire.arrays import from_image, from_tensor, to_gray_image, to_tensor

POINTS = np.arange(6, dtype=np.float32).reshape(2, 3)


def refused(message: pb.Tensor, says: str, **wanted: object) -> None:
    with pytest.raises(InvalidRequest, match=says) as caught:
        from_tensor(message, "points", **{"dtype": np.float32, "shape": (None, 3), **wanted})  # type: ignore[arg-type]
    assert caught.value.field == "points"


def test_a_tensor_makes_a_round_trip() -> None:
    np.testing.assert_array_equal(from_tensor(to_tensor(POINTS), "points", dtype=np.float32, shape=(None, 3), limit=5.0), POINTS)


def test_a_shape_whose_size_wraps_round_in_64_bits_is_refused() -> None:
    refused(pb.Tensor(data_type=pb.DATA_TYPE_FLOAT32, shape=[1 << 62, 3]), "needs 55340232221128654848 bytes")
    rows = (1 << 64) // 4 // 4
    refused(pb.Tensor(data_type=pb.DATA_TYPE_FLOAT32, shape=[rows, 4]), "needs", shape=(None, 4))


@pytest.mark.parametrize("shape", [[0, 3], [0, 1 << 40], [1 << 62, 0]])
def test_no_elements_at_all_are_an_array_or_a_named_error(shape: list[int]) -> None:
    message = pb.Tensor(data_type=pb.DATA_TYPE_FLOAT32, shape=shape)
    if shape == [0, 3]:
        assert from_tensor(message, "points", dtype=np.float32, shape=(None, None)).shape == (0, 3)
    else:
        refused(message, "points: shape", shape=(None, None))


@pytest.mark.parametrize(
    ("value", "says"),
    [(np.nan, r"\[1, 2\] is not a finite number \(nan\)"), (np.inf, "inf"), (-7.5, r"is -7.5; numbers from -6 to 6")],
)
def test_a_number_out_of_range_is_named_with_its_place(value: float, says: str) -> None:
    points = POINTS.copy()
    points[1, 2] = value
    refused(to_tensor(points), says, limit=6.0)


def test_a_bool_that_is_neither_0_nor_1_is_refused() -> None:
    message = pb.Tensor(data_type=pb.DATA_TYPE_BOOL, shape=[3], data=b"\0\1\2")
    refused(message, "a byte 0 or 1", dtype=np.bool_, shape=(3,))


@pytest.mark.parametrize("encoding", [0, 2, 77])
def test_an_unknown_encoding_is_named(encoding: int) -> None:
    image = to_gray_image(np.zeros((4, 4), np.uint8))
    image.encoding = encoding  # type: ignore[assignment]
    with pytest.raises(InvalidRequest, match=r"expected IMAGE_ENCODING_GRAY8, got \w+") as caught:
        from_image(image, "mask", channels=1)
    assert caught.value.field == "mask"
