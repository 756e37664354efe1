"""A network with an input of the actor on a real tritonserver: no dynamic batches, and the bytes of this process."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from services.render.triton.repository import RepositorySpec, write_repository
from tests.contract.render.conftest import models_here
from tests.unit.render.rendering import render
from tests.unit.render.toy import NAME, Toy


@pytest.mark.parametrize("shared_memory", [False, True])
def test_actor_input_once_per_request(start_triton, connect, monkeypatch, tmp_path, shared_memory) -> None:
    """An actor's input goes once a request and streams of several actors keep their bytes."""
    # The state is shorter than a batch: it must not be taken for the batch axis.
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


def test_its_configuration_has_no_dynamic_batches(tmp_path: Path) -> None:
    toy = Toy(inputs=("reference",), state_size=7)
    toy.write(tmp_path / "weights")
    write_repository(tmp_path / "repository", tmp_path / "weights", RepositorySpec())
    text = (tmp_path / "repository" / NAME / "config.pbtxt").read_text(encoding="utf-8")
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    inputs = {"actor_state": [7], "window": [-1, 160, 160, 1], "reference": [160, 160, 3]}
    assert {one.name: list(one.dims) for one in config.input} == inputs
    assert {one.name: list(one.dims) for one in config.output} == {"picture": [-1, 160, 160, 3], "brightest": [-1]}
    (warm_up,) = config.model_warmup
    shapes = {name: list(one.dims) for name, one in warm_up.inputs.items()}
    assert shapes == inputs | {"window": [1, 160, 160, 1]}
