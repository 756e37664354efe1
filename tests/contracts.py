"""The contracts whose services the servers of this installation answer."""

from __future__ import annotations

from typing import Final

from google.longrunning import operations_pb2

from dubstage.audio.v1 import audio_pb2
from dubstage.face.v1 import face_pb2
from dubstage.gateway.v1 import batch_pb2, gateway_pb2, media_pb2, webhook_pb2
from dubstage.motion.v1 import motion_pb2
from dubstage.render.v1 import render_pb2
from dubstage.texture.v1 import texture_pb2

GATEWAY: Final = (gateway_pb2, batch_pb2, media_pb2, webhook_pb2, operations_pb2)
"""Files of the gateway's contract."""
CONTRACTS: Final = (audio_pb2, face_pb2, motion_pb2, texture_pb2, render_pb2, *GATEWAY)
"""Files of all contracts."""
