"""The model `everybody` behind a real server, with the weights that come with it."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from dubstage.render.v1 import render_pb2 as pb
from services.common.face.mouth_bank import MouthBank
from services.render.streams import default_state, open_stream
from services.render.types import RenderFrame
from tests.contract.render.conftest import models_of_stage, personalised, rendered
from tests.contract.render.requests import frame_to_proto
from tests.refusals import rpc_refused

CONFIG = pb.RenderRequest(config=pb.RenderConfig(model="everybody"))


@pytest.fixture(scope="module")
def clip(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> list[RenderFrame]:
    """Ten frames in a row, without textures."""
    return [RenderFrame(row, bank.boxes[row], None, mask, bank.box_landmarks[row + 5]) for row in range(10)]


async def test_it_is_listed(stub) -> None:
    models = {model.name: model for model in (await stub.ListModels(pb.ListModelsRequest())).models}
    assert len(models["everybody"].sha256) == 64
    assert models["everybody"].sha256 != models["ugc"].sha256


async def test_the_wire_gives_the_bytes_of_the_function(stub, clip: list[RenderFrame]) -> None:
    answers = await rendered(stub, [CONFIG, *map(frame_to_proto, clip)])
    models = models_of_stage()
    file = models.files["everybody"]
    expected = open_stream(models.backend, file, default_state(file)).render(clip)
    assert [answer.frame_index for answer in answers] == list(range(10))
    for got, want in zip(answers, expected, strict=True):
        assert np.array_equal(got.box, want.box)


async def test_personalised_actor_and_cut_stream(stub, store, bank, clip) -> None:
    reports = await personalised(stub, store, bank, "everybody", num_steps=1)
    assert [report.HasField("actor") for report in reports] == [False, True]
    actor = pb.RenderRequest(config=pb.RenderConfig(model="everybody", actor=reports[-1].actor))
    whole = await rendered(stub, [actor, *map(frame_to_proto, clip)])
    past = [replace(frame, context_only=True) for frame in clip[1:7]]
    rest = await rendered(stub, [actor, *map(frame_to_proto, [*past, *clip[7:]])])
    assert [answer.frame_index for answer in rest] == [7, 8, 9]
    for got, want in zip(rest, whole[7:], strict=True):
        assert np.array_equal(got.box, want.box)
    assert not np.array_equal((await rendered(stub, [CONFIG, frame_to_proto(clip[0])]))[0].box, whole[0].box)


async def test_parts_of_other_models_refused(stub, store, bank, clip) -> None:
    """An actor of one model is refused by the other, and a frame without the texture that the other needs."""
    reports = await personalised(stub, store, bank, "ugc", num_steps=1)
    actor = pb.RenderRequest(config=pb.RenderConfig(model="everybody", actor=reports[-1].actor))
    with rpc_refused():
        await rendered(stub, [actor, frame_to_proto(clip[0])])
    other = pb.RenderRequest(config=pb.RenderConfig(model="ugc"))
    with rpc_refused("texture is missing"):
        await rendered(stub, [other, frame_to_proto(clip[0])])
