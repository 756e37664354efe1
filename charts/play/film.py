"""One film by the client package, through a gateway."""

from __future__ import annotations

import time
from pathlib import Path

from charts.play.log import Log
from dubstage.client import connect
from dubstage.client import gateway as dubbing
from dubstage.gateway.v1alpha1 import gateway_pb2 as pb
from gateway.provenance.binding import media_sha256


def dub_by_api(address: str, media: Path, footage: str, speech: str, method: str, *, personalize: bool, log: Log) -> Path:
    """Dub a clip of the media folder, and return the film.

    Args:
        address: HOST:PORT of the gateway.
        media: the media folder, as this machine sees it.
        footage: file of the media folder.
        speech: file of the media folder.
        personalize: whether the networks are adapted to the person.
        log: gets the steps, and the digest.

    Raises:
        DubstageCallError: the dub failed.
    """
    begun, seen = time.monotonic(), set[str]()

    def progress(state: pb.DubProgress) -> None:
        if state.stage and state.stage not in seen:
            seen.add(state.stage)
            log(f"dub: {state.stage}")

    with connect(address) as gateway:
        dub = dubbing.dub(
            gateway, footage=footage, speech=speech, output="dub.mp4", method=method, skip_personalization=not personalize
        )
        result = dub.wait(timeout_s=1800, on_progress=progress)
    film = media / "dub.mp4"
    seconds = time.monotonic() - begun
    log(f"dub: {result.num_dubbed} of {result.num_frames} frames in {seconds:.1f} s, media sha256 {media_sha256(film)}")
    return film
