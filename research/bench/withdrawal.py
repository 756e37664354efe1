"""`python -m research.bench.withdrawal VIDEO`: time from the withdrawal of a consent to the end of the person's live stream.

The gateway and the stages run in this process, and are called over a port. The speech never ends.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from dubstage.client import Connection, DubstageCallError, connect
from dubstage.client import gateway as client
from gateway.api.server import GatewayServer
from gateway.settings import GatewaySettings

RATE_HZ: Final = 16_000
PIECE_S: Final = 0.02


@contextmanager
def serving(settings: GatewaySettings) -> Iterator[str]:
    """Serve a gateway in a thread, and give its address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def begin() -> GatewayServer:
        server = GatewayServer(settings)
        await server.start()
        await server.warm_up()
        return server

    server = asyncio.run_coroutine_threadsafe(begin(), loop).result()
    try:
        yield server.address
    finally:
        asyncio.run_coroutine_threadsafe(server.drain(grace_s=0), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def time_of_end(connection: Connection, footage: str, number: int) -> float:
    """Enrol a person, stream the person, withdraw the consent, and return the seconds until the stream has ended."""
    actor_id = f"person-{number}"
    consent = {"subject": "A", "granted_by": "A", "scope": "bench", "date": "2026-01-31", "reference": f"{number}"}
    client.enrol(connection, actor_id=actor_id, footage=footage, consent=consent, skip_personalization=True).wait()
    ended = threading.Event()

    def silence() -> Iterator[npt.NDArray[np.float32]]:
        while not ended.wait(PIECE_S):
            yield np.zeros(round(PIECE_S * RATE_HZ), np.float32)

    stream = client.live(connection, silence(), actor_id=actor_id, sample_rate_hz=RATE_HZ)
    next(stream)
    began = time.perf_counter()
    client.revoke_consent(connection, actor_id=actor_id)
    try:
        list(stream)
    except DubstageCallError as error:
        if error.reason != "CONSENT_WITHDRAWN":
            raise
    finally:
        ended.set()
    return time.perf_counter() - began


def main() -> None:
    """Measure, and print the seconds of every turn, their median and the longest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", type=Path, help="Footage with one face.")
    parser.add_argument("--times", type=int, default=20, help="Number of streams. Default: %(default)s.")
    given = parser.parse_args()
    video: Path = given.video.resolve()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        settings = GatewaySettings(
            port=0, data_dir=work / "data", artefacts_url=str(work / "artefacts"), media_dir=video.parent, log_level="warning"
        )
        with serving(settings) as address, connect(address, timeout_s=600) as connection:
            taken = [time_of_end(connection, video.name, number) for number in range(given.times)]
    print(" ".join(f"{seconds:.2f}" for seconds in taken))
    print(f"median {np.median(taken):.2f} s, longest {max(taken):.2f} s of {len(taken)}")


if __name__ == "__main__":
    main()
