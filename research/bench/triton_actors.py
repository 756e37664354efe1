"""Streams of many actors at one loaded model of a Triton, against streams of one actor: `python -m research.bench.triton_actors`.

Sixteen streams send frame after frame, each frame a request of its own, as render stages do. Triton joins requests to batches. The
figures are Triton's own: its statistics count the requests, the batches, and the time that the model computed. Once all streams
show one actor, and once each stream shows another.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tritonclient.grpc as tritongrpc

from research.bench.actors import ACTORS, Inputs, batch_of, frames_of
from services.render.backends.base import Backend, TritonOptions
from services.render.backends.model_files import WEIGHTS_FOLDER, ModelFile
from services.render.backends.triton import TritonBackend
from services.render.streams import load_models, make_backend
from services.render.triton.launch import TritonProcess
from services.render.triton.repository import RepositorySpec, write_repository

_FRAMES: Final = 4
"""Frames that each stream sends in a round."""
_ROUNDS: Final = 3
_NANOSECONDS: Final = 1e9
_COUNTED_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class ServedTimes:
    """Numbers of some rounds from Triton's statistics.

    Attributes:
        frames: frames computed.
        batches: batches that Triton made of them.
        seconds: time that the model computed, seconds.
    """

    frames: int
    batches: int
    seconds: float

    @property
    def fps(self) -> float:
        """Frames for each second that the model computed."""
        return self.frames / self.seconds if self.seconds > 0.0 else 0.0

    @property
    def per_batch(self) -> float:
        """Mean frames of a batch."""
        return self.frames / self.batches if self.batches else 0.0


@dataclass(frozen=True, slots=True)
class TritonActors:
    """One row.

    Attributes:
        model: name of the model.
        streams: number of streams.
        one: all streams show one actor.
        many: each stream shows another actor.
    """

    model: str
    streams: int
    one: ServedTimes
    many: ServedTimes

    @property
    def share(self) -> float:
        """Throughput with many actors, divided by that with one."""
        return self.many.fps / self.one.fps if self.one.fps > 0.0 else 0.0


def measure_triton_actors(streams: int = ACTORS, rounds: int = _ROUNDS) -> tuple[TritonActors, ...]:
    """Measure every installed model that can batch actors, at a server of this machine that the call starts and ends.

    Args:
        streams: streams that send at once.
        rounds: rounds of each kind, in turns.

    Raises:
        BackendUnavailableError: there is no installation of Triton (`make setup-dev`), or it does not start.
    """
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "repository"
        repository.mkdir()
        write_repository(repository, WEIGHTS_FOLDER, RepositorySpec())
        with TritonProcess(repository, Path(folder) / "triton.log", start_timeout_s=60.0) as server:
            options = TritonOptions(
                url=server.url, timeout_s=60.0, start_timeout_s=60.0, heal_attempts=1, heal_wait_s=1.0, max_in_flight=streams
            )
            backend = make_backend(device="cpu", backend="triton", precision=None, num_threads=1, triton=options)
            assert isinstance(backend, TritonBackend)
            try:
                models = load_models(WEIGHTS_FOLDER, backend)
                client = tritongrpc.InferenceServerClient(server.url)
                batched = [model for _, model in sorted(models.files.items()) if all(form.batched for form in model.inputs)]
                return tuple(measure_model(backend, client, model, streams, rounds) for model in batched)
            finally:
                backend.close()


def lines_of_triton_actors(rows: Sequence[TritonActors]) -> list[str]:
    """Return one line per model for the terminal."""
    return [
        f"Triton {row.model}, {row.streams} streams: {row.one.fps:.1f} frames a second of one actor (batches of "
        f"{row.one.per_batch:.1f}), {row.many.fps:.1f} of {row.streams} actors (batches of {row.many.per_batch:.1f}; "
        f"{100.0 * row.share:.0f} %)"
        for row in rows
    ]


def measure_model(backend: Backend, client: Any, model: ModelFile, streams: int, rounds: int) -> TritonActors:
    """Measure one model that is loaded.

    Args:
        backend: connection of the render stage to the server.
        client: client of the same server, for its statistics.
        model: a model all of whose inputs have a batch axis.
        streams: streams that send at once.
        rounds: rounds of each kind, in turns.
    """
    one = [frames_of(model, seed=0, count=_FRAMES)] * streams
    many = [frames_of(model, seed, count=_FRAMES) for seed in range(streams)]
    sent = streams * _FRAMES
    before = _statistics(client, model.name)
    _send(backend, model, many)
    before = _counted(client, model.name, before.frames + sent)
    counted = {"one": [ServedTimes(0, 0, 0.0)], "many": [ServedTimes(0, 0, 0.0)]}
    # In turns, so that a change of the machine's load meets both.
    for _ in range(rounds):
        for kind, frames in (("one", one), ("many", many)):
            _send(backend, model, frames)
            after = _counted(client, model.name, before.frames + sent)
            counted[kind].append(
                ServedTimes(after.frames - before.frames, after.batches - before.batches, after.seconds - before.seconds)
            )
            before = after
    return TritonActors(model.name, streams, _sum(counted["one"]), _sum(counted["many"]))


def _send(backend: Backend, model: ModelFile, streams: Sequence[Sequence[Inputs]]) -> None:
    def play(frames: Sequence[Inputs]) -> None:
        for frame in frames:
            backend.infer(model.name, batch_of(model, [frame]))

    with ThreadPoolExecutor(len(streams)) as threads:
        list(threads.map(play, streams))


def _counted(client: Any, name: str, frames: int) -> ServedTimes:
    """Return the sums as soon as they hold so many frames: Triton counts a batch after it has answered."""
    deadline = time.monotonic() + _COUNTED_S
    while (found := _statistics(client, name)).frames < frames and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def _statistics(client: Any, name: str) -> ServedTimes:
    """Return the sums since the model was loaded."""
    stats: Mapping[str, Any] = client.get_inference_statistics(name, as_json=True)["model_stats"][0]
    # A batch's time stands once at its size.
    seconds = sum(int(batch["compute_infer"]["ns"]) for batch in stats["batch_stats"]) / _NANOSECONDS
    return ServedTimes(int(stats["inference_count"]), int(stats["execution_count"]), seconds)


def _sum(parts: Sequence[ServedTimes]) -> ServedTimes:
    return ServedTimes(sum(part.frames for part in parts), sum(part.batches for part in parts), sum(part.seconds for part in parts))


if __name__ == "__main__":
    print("\n".join(lines_of_triton_actors(measure_triton_actors())))
