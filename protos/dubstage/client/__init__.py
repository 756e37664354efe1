"""A thin typed client of dubstage's services: `connect`, then the functions of `audio`, `face`, `render` and `gateway`.

    from dubstage.client import audio, connect

    with connect("localhost:50051") as stage:
        features = audio.extract_features(stage, samples, sample_rate_hz=16000)

Everything raises DubstageCallError where a call fails.
"""

from dubstage.client.arrays import from_image, from_tensor, to_image, to_tensor
from dubstage.client.connection import Connection, TlsFiles, connect
from dubstage.client.errors import DubstageCallError

__all__ = [
    "Connection",
    "DubstageCallError",
    "TlsFiles",
    "connect",
    "from_image",
    "from_tensor",
    "to_image",
    "to_tensor",
]
