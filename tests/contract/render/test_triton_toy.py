"""A network with further inputs on a real tritonserver gives the bytes of this process."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from services.render.triton.repository import RepositorySpec, write_repository
from tests.contract.render.conftest import models_here
from tests.unit.render.rendering import render
from tests.unit.render.toy import NAME, Toy


@pytest.mark.parametrize("shared_memory", [False, True])
def test_streams_of_several_actors(start_triton, connect, monkeypatch, tmp_path, shared_memory) -> None:
    """Streams of several actors, whose frames share batches, keep their bytes."""
    toy = Toy(before=1, after=1, inputs=("speech_features", "reference"), state_size=3, max_batch_size=16)
    toy.register(monkeypatch)
    toy.write(tmp_path / "weights")
    write_repository(tmp_path / "repository", tmp_path / "weights", RepositorySpec())
    server = start_triton(tmp_path / "repository")
    there = connect(server, weights=tmp_path / "weights", shared_memory=shared_memory)
    here = models_here(tmp_path / "weights")
    frames = toy.frames(list(range(9)))
    actors = [(np.full(3, level, np.float32), np.full((160, 160, 3), level, np.uint8)) for level in (1, 20, 40, 60)]

    def boxes(models: object, actor: int) -> list[bytes]:
        state, reference = actors[actor]
        made = render(models.backend, models.files[NAME], frames, state, reference)  # type: ignore[attr-defined]
        return [one.box.tobytes() for one in made]

    expected = [boxes(here, actor) for actor in range(4)]
    with ThreadPoolExecutor(4) as streams:
        assert list(streams.map(lambda actor: boxes(there, actor), range(4))) == expected
    assert len({each[0] for each in expected}) == 4
