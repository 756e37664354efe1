"""Live streams that break, that are read slowly, and that ask for what a gateway cannot promise."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.duration_pb2 import Duration

from dubstage.client import Connection, DubstageCallError
from dubstage.client import gateway as client
from dubstage.gateway.v1 import gateway_pb2 as pb
from tests.integration.client_calls import until
from tests.integration.servers import RunningGateway
from tests.integration.test_live import Samples, failure, pieces


def all_frames(connection: Connection, speech: npt.NDArray[np.float32], **options: Any) -> list[client.LiveFrame]:
    """All frames of a stream. A gateway that is busy is asked again, as callers do."""
    found: list[client.LiveFrame] = []

    def taken() -> bool:
        try:
            found[:] = client.live(connection, pieces(speech, options["sample_rate_hz"]), **options)
        except DubstageCallError as error:
            if error.code != "RESOURCE_EXHAUSTED" or not error.retry_after_s:
                raise
            return False
        return True

    until(taken)
    return found


def test_broken_stream_resumes(gateway: RunningGateway, actor: str, samples: Samples) -> None:
    speech, rate = samples
    speech = np.resize(speech, 2 * rate)
    whole = []
    with gateway.connect() as connection:
        whole += all_frames(connection, speech, actor_id=actor, sample_rate_hz=rate)
        broken = client.live(connection, pieces(speech, rate), actor_id=actor, sample_rate_hz=rate)
        came = [next(broken).frame_index for _ in range(35)]
        broken.close()
        rest = speech[client.live_first_sample(came[-1] + 1, rate) :]
        later = all_frames(connection, rest, actor_id=actor, sample_rate_hz=rate, first_frame=came[-1] + 1)
    assert [*came, *(frame.frame_index for frame in later)] == list(range(50))
    pictures = np.stack([frame.picture for frame in whole]).astype(np.int16)
    for frame in later:
        apart = np.abs(pictures - frame.picture).mean(axis=(1, 2, 3))
        # The same footage, and a mouth that has heard a second of the speech before: hardly a pixel differs.
        assert apart[frame.frame_index] < 0.5
        # The footage is played forwards and backwards, so that two pictures of shut lips can be of one frame of the footage.
        assert frame.silent or apart.argmin() == frame.frame_index
    assert not all(frame.silent for frame in later)


def test_slow_reader_misses_own_frames(gateway: RunningGateway, actor: str, samples: Samples) -> None:
    """Frames that a slow reader misses are left out for that reader alone."""
    speech, rate = samples
    long = np.resize(speech, 6 * rate)
    said = threading.Event()

    def speaking() -> Iterator[npt.NDArray[np.float32]]:
        yield from pieces(long, rate)
        said.set()

    with gateway.connect() as slow, gateway.connect() as other:
        frames = client.live(slow, speaking(), actor_id=actor, sample_rate_hz=rate, max_late_ms=300)
        indices = [next(frames).frame_index]
        quick = all_frames(other, speech[:rate], actor_id=actor, sample_rate_hz=rate)
        # All is said long before the next frame is taken: the frames in between are late.
        assert said.wait(60)
        indices += [frame.frame_index for frame in frames]
    assert len(quick) == 25
    assert indices == sorted(set(indices))
    assert len(indices) < 100
    # The picture never stands still for longer than a second.
    assert max(np.diff(indices)) <= 25


def test_a_lateness_that_cannot_be_promised_is_refused(gateway: RunningGateway, actor: str) -> None:
    with gateway.connect() as connection:
        hasty = pb.LiveRequest(
            config=pb.LiveConfig(
                actor=f"actors/{actor}", sample_rate_hz=16000, channels=1, max_lateness=Duration(nanos=100_000_000)
            )
        )
        assert failure(connection, [hasty]).field == "config.max_lateness"
