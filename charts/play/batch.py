"""A batch over two gateways: submitted to one, watched at the other, and one of them is killed while it dubs."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from charts.play.pods import Document, Log, Podman, Server, wait_for_probes
from charts.play.videos import MANIFEST
from dubstage.client import Connection, DubstageCallError, batch, connect
from dubstage.client.names import resource_id
from dubstage.gateway.v1 import batch_pb2 as pb
from gateway.provenance.binding import media_sha256

NAME: Final = "play"
PATIENCE_S: Final = 600.0
_POLL_S: Final = 0.1


class BatchPlay:
    """The batch.

    Args:
        podman: has the containers.
        gateways: two of them.
        documents: what is played.
        media: folder of the media, with the shots and their manifest.
        log: gets what happens.
    """

    def __init__(self, podman: Podman, gateways: Sequence[Server], documents: Sequence[Document], media: Path, log: Log) -> None:
        self._podman, self._documents, self._media, self._log = podman, documents, media, log
        self._asked, self._other = gateways
        self._begun = time.monotonic()
        # The containers are looked up before the batch: podman takes seconds to answer on a busy machine.
        self._containers = {server.deployment: podman.container(server.deployment, server.container) for server in gateways}

    def run(self, videos: Sequence[str]) -> dict[str, str]:
        """Dub the shots, kill the gateway that dubs them, and return the digests of the videos.

        Raises:
            RuntimeError: no gateway took the batch over, a shot failed, or a video is not the one of its record.
            DubstageCallError: a gateway refused.
        """
        with connect(self._asked.address) as asked, connect(self._other.address) as other:
            self._begun = time.monotonic()
            batch.submit(asked, NAME, manifest=(self._media / MANIFEST).read_bytes())
            self._log(f"batch: {len(videos)} shots submitted to {self._asked.deployment}")
            self._until(lambda: _in_the_middle(other) or _ended(other), "the second shot has begun")
            # Any gateway with a free slot may have been the first to see the batch.
            taken = _has_begun(self._other, other)
            dubs, waits, at_waiting = (self._other, self._asked, asked) if taken else (self._asked, self._other, other)
            with _Watching(at_waiting, waits.deployment, self._log):
                self._kill(dubs, waits, at_waiting)
                self._until(lambda: _ended(at_waiting), "all shots have ended")
            self._log(f"batch: ended after {time.monotonic() - self._begun:.1f} s")
            shots = list(batch.list_shots(at_waiting, NAME))
        digests = self._videos(shots)
        self._start_again(dubs, len(videos))
        return digests

    def _kill(self, dubs: Server, waits: Server, at_waiting: Connection) -> None:
        container = self._containers[dubs.deployment]
        killed = time.monotonic()
        self._podman.kill(container)
        self._until(lambda: not self._podman.facts(container).running, f"{container} has ended")
        if _ended(at_waiting) or _has_begun(waits, at_waiting):
            raise RuntimeError(
                f"the batch was not in the hands of {dubs.deployment} when it was killed: give more shots, or longer ones"
            )
        self._log(f"batch: {container} killed while it dubbed; shots done before: {_progress(at_waiting).num_done}")
        self._until(lambda: _has_begun(waits, at_waiting), f"{waits.deployment} has taken the batch over")
        self._log(f"batch: {waits.deployment} took the batch over, {time.monotonic() - killed:.1f} s after the kill")

    def _videos(self, shots: Sequence[pb.Shot]) -> dict[str, str]:
        digests = {}
        for shot in shots:
            state = pb.ShotState.Name(shot.state).removeprefix("SHOT_STATE_").lower()
            seconds = shot.try_duration.ToTimedelta().total_seconds()
            self._log(
                f"batch: {resource_id(shot.name)} {state}, {shot.num_dubbed} of {shot.num_frames} frames, {seconds:.1f} s, "
                f"tries: {shot.attempts}, the last by {shot.worker}"
            )
            if shot.state != pb.SHOT_STATE_DONE:
                raise RuntimeError(f"{resource_id(shot.name)} is {state}: {shot.error}")
            video = self._media / shot.output_uri
            if hashlib.sha256(video.read_bytes()).hexdigest() != shot.output_sha256:
                raise RuntimeError(f"{video} is not the video that the record of {resource_id(shot.name)} names")
            digests[shot.output_uri] = media_sha256(video)
        left = sorted(path.name for path in self._media.rglob(".dubstage-*"))
        if left:
            raise RuntimeError(f"unfinished files are left in {self._media}: {', '.join(left)}")
        return digests

    def _start_again(self, server: Server, count: int) -> None:
        """Start the killed gateway, and see that it knows the end of the batch."""
        self._podman.start(self._containers[server.deployment])
        own = [one for one in self._documents if one["metadata"]["name"] == server.deployment]
        wait_for_probes(self._podman, own, self._log)
        with connect(server.address) as connection:
            done = _progress(connection).num_done
        if done != count:
            raise RuntimeError(f"{server.deployment} was started again and says that {done} of {count} shots are done")
        self._log(f"batch: {server.deployment} is back and says that {done} shots are done")

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{PATIENCE_S:g} s have passed, and it does not hold that {what}")
            time.sleep(_POLL_S)


class _Watching:
    """WatchBatch at a gateway, in a thread, while the block runs; the end of the block waits for the end of the watch."""

    def __init__(self, connection: Connection, where: str, log: Log) -> None:
        self._connection, self._where, self._log = connection, where, log
        self._problem: DubstageCallError | None = None
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        self._thread.join(PATIENCE_S)
        if self._problem is not None or self._thread.is_alive():
            raise RuntimeError(f"WatchBatch at {self._where} did not come to an end: {self._problem or 'no further answer'}")

    def _watch(self) -> None:
        try:
            for state in batch.watch(self._connection, NAME):
                progress = state.progress
                self._log(
                    f"watch at {self._where}: {progress.num_done} done, {progress.num_running} running, "
                    f"{progress.num_waiting} waiting, {progress.num_failed} failed"
                )
        except DubstageCallError as problem:
            self._problem = problem


def _progress(connection: Connection) -> pb.BatchProgress:
    return batch.get(connection, NAME).progress


def _in_the_middle(connection: Connection) -> bool:
    progress = _progress(connection)
    return progress.num_done > 0 and progress.num_running > 0


def _ended(connection: Connection) -> bool:
    progress = _progress(connection)
    return not (progress.num_waiting or progress.num_running)


def _has_begun(server: Server, connection: Connection) -> bool:
    """Return whether a gateway was the last to begin a shot. Its worker is called POD:PID."""
    return any(shot.worker.startswith(f"{server.deployment}-pod") for shot in batch.list_shots(connection, NAME))
