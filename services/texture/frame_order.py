"""The order of a stream's target frames."""

from __future__ import annotations

from services.common.errors import InvalidRequest


def check_order(frame_index: int, last: int | None, field: str = "frame") -> None:
    """Check that a frame comes after the last one.

    Args:
        frame_index: place of the frame in the stream.
        last: place of the frame before; None: there was none.
        field: name of the frame in the request.

    Raises:
        InvalidRequest: the index does not increase.
    """
    if last is not None and frame_index <= last:
        raise InvalidRequest(f"frame_index must increase: {frame_index} came after {last}", field=f"{field}.frame_index")
