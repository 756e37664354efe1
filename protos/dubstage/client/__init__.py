"""A typed client of dubstage's servers: `connect`, then the calls in `audio`, `face`, `motion`, `texture`, `render` and `gateway`.

    from dubstage.client import connect, gateway

    with connect("localhost:50050") as connection:
        gateway.dub(connection, footage="shot.mp4", speech="speech.wav", output="dubbed.mp4").wait()

For asyncio, `connect_aio` makes the connection and every call has a counterpart: `await gateway.dub.aio(connection, ...)`.
`gateway.dub.request(...)` makes the request alone; `face.track.requests(...)` makes the requests of an RPC that streams.

A call that fails raises DubstageCallError.
"""

from dubstage.client.aio import AsyncConnection, connect_aio
from dubstage.client.arrays import explicit_timeline, from_image, from_tensor, head_pose, to_image, to_tensor
from dubstage.client.connection import Connection, TlsFiles, connect
from dubstage.client.errors import DubstageCallError

__all__ = [
    "AsyncConnection",
    "Connection",
    "DubstageCallError",
    "TlsFiles",
    "connect",
    "connect_aio",
    "explicit_timeline",
    "from_image",
    "from_tensor",
    "head_pose",
    "to_image",
    "to_tensor",
]
