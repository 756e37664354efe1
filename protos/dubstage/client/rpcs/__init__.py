"""The table of RPCs: one constant for each RPC of the five stages and the gateway, a module for each server.

`rpcs.motion.ENCODE_STYLE` says what a caller, a server and a clock need to know of MotionService.EncodeStyle. The client and the
gateway make all calls from these constants.
"""

from __future__ import annotations

from typing import Any, Final

from dubstage.client.rpcs import audio, face, gateway, motion, operations, render, texture
from dubstage.client.rpcs.kinds import Download, Rpc, Stream, Unary, Upload

__all__ = [
    "ALL",
    "Download",
    "Rpc",
    "Stream",
    "Unary",
    "Upload",
    "audio",
    "face",
    "gateway",
    "motion",
    "operations",
    "render",
    "texture",
]

ALL: Final[tuple[Rpc[Any, Any], ...]] = tuple(
    value
    for module in (audio, face, motion, texture, render, gateway, operations)
    for value in vars(module).values()
    if isinstance(value, Rpc)
)
"""Every RPC of the table."""
