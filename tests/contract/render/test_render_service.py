"""The render stage behind a real server, with the models that come with it."""

from pathlib import Path

import grpc.aio
import numpy as np
import pytest

from dubstage.common.v1 import common_pb2
from dubstage.render.v1 import render_pb2 as pb
from services.common.face.mouth_bank import FORMAT, MouthBank, bank_arrays
from services.common.face.neural_texture import ACTOR_FORMAT
from services.common.store.artefacts import ArtefactRef, ArtefactStore
from services.common.wire.convert import ref_to_proto
from services.render.backends.model_files import WEIGHTS_FOLDER
from services.render.streams import default_state
from services.render.types import RenderFrame
from tests.contract.personalising import personalised_at_once
from tests.contract.render.conftest import models_of_stage, personalised, rendered
from tests.contract.render.requests import frame_to_proto
from tests.refusals import rpc_refused
from tests.unit.render.rendering import render

CONFIG = pb.RenderRequest(config=pb.RenderConfig(model="ugc"))


async def test_the_wire_gives_the_bytes_of_the_function(stub, frames: list[RenderFrame]) -> None:
    answers = await rendered(stub, [CONFIG, *map(frame_to_proto, frames)])
    models = models_of_stage()
    file = models.files["ugc"]
    expected = [render(models.backend, file, [frame], default_state(file))[0] for frame in frames]
    assert [answer.frame_index for answer in answers] == [frame.frame_index for frame in frames]
    for got, want in zip(answers, expected, strict=True):
        assert np.array_equal(got.box, want.box)


async def test_first_picture_before_half_close(stub, frames: list[RenderFrame]) -> None:
    """The first picture comes before the stream is half closed."""
    call = stub.Render()
    await call.write(CONFIG)
    await call.write(frame_to_proto(frames[0]))
    reply = await call.read()
    assert isinstance(reply, pb.RenderResponse)
    assert reply.frame_index == frames[0].frame_index
    await call.done_writing()
    assert await call.read() == grpc.aio.EOF


async def test_personalised_actor_can_be_rendered(stub, store, bank, frames) -> None:
    reports = await personalised(stub, store, bank, "ugc", num_steps=2)
    assert [report.step for report in reports] == [2, 2]
    assert [report.HasField("actor") for report in reports] == [False, True]
    actor = pb.RenderRequest(config=pb.RenderConfig(model="ugc", actor=reports[-1].actor))
    with_actor = await rendered(stub, [actor, frame_to_proto(frames[0])])
    without = await rendered(stub, [CONFIG, frame_to_proto(frames[0])])
    assert not np.array_equal(with_actor[0].box, without[0].box)


async def test_personalisations_follow_each_other(stub, store: ArtefactStore, bank: MouthBank) -> None:
    """Personalisations do not take turns. Those above the queue are refused before their first report, the others end."""
    ref = ref_to_proto(store.put_arrays(bank_arrays(bank), {"format": FORMAT}))
    request = pb.PersonalizeRequest(model="ugc", bank=ref, skip_training=True)
    codes, reports = await personalised_at_once(6, stub.Personalize, request, 120)
    # Eight calls run at once. One personalisation runs and three wait: half of the calls stay free.
    assert sorted(codes) == ["OK"] * 4 + ["RESOURCE_EXHAUSTED"] * 2
    ended = list(dict.fromkeys(reports))
    assert len(ended) == 4
    assert reports == [number for number in ended for _ in range(2)]


@pytest.mark.parametrize("model", ["ugc", "everybody", "hetero"])
async def test_untrained_state_equals_bank(model: str, stub, store: ArtefactStore, bank: MouthBank) -> None:
    """Without training, the state is what the bank gives at once."""
    *_, last = await personalised(stub, store, bank, model, num_steps=2, skip_training=True)
    assert (last.step, last.num_steps) == (0, 0)
    state = store.get_arrays(ArtefactRef(last.actor.uri, last.actor.sha256, last.actor.size_bytes))["actor_state"]
    assert state.any() == (model != "ugc"), "pictures of the person are in the state, and ugc has none"


async def test_models_are_listed_with_digest_and_arithmetic(stub) -> None:
    models = (await stub.ListModels(pb.ListModelsRequest())).models
    assert [model.name for model in models] == ["everybody", "everyone", "headpose", "hetero", "ugc"]
    for model in models:
        assert len(model.sha256) == 64
        assert model.precision in {"float32", "bfloat16", "int8"}
        assert model.num_threads == 1


async def test_what_is_wrong_with_a_stream_is_said(stub, store, frames) -> None:
    first, second = (frame_to_proto(frame) for frame in frames[:2])
    small = pb.RenderRequest()
    small.CopyFrom(first)
    small.frame.mask.width = 80
    nameless = pb.RenderRequest(config=pb.RenderConfig(model="nobody"))
    foreign = store.put_arrays({"actor_state": np.zeros(3, np.float32)}, {"format": ACTOR_FORMAT, "prior_sha256": "0"})
    other_prior = pb.RenderRequest(config=pb.RenderConfig(model="ugc", actor=ref_to_proto(foreign)))
    gone = common_pb2.ArtefactRef(uri=f"{store.url}/ab/{'ab' * 32}", sha256="ab" * 32)
    missing = pb.RenderRequest(config=pb.RenderConfig(model="ugc", actor=gone))
    cases: list[tuple[list[pb.RenderRequest], grpc.StatusCode, str]] = [
        ([], grpc.StatusCode.INVALID_ARGUMENT, "before its config"),
        ([first], grpc.StatusCode.INVALID_ARGUMENT, "must be the config"),
        ([CONFIG, CONFIG], grpc.StatusCode.INVALID_ARGUMENT, "frames only"),
        ([CONFIG, second, first], grpc.StatusCode.INVALID_ARGUMENT, "does not come after"),
        ([CONFIG, small], grpc.StatusCode.INVALID_ARGUMENT, "frame.mask"),
        ([nameless], grpc.StatusCode.NOT_FOUND, "no model 'nobody'"),
        ([other_prior], grpc.StatusCode.INVALID_ARGUMENT, "personalise it again"),
        ([missing], grpc.StatusCode.NOT_FOUND, "no artefact"),
    ]
    for messages, code, text in cases:
        with rpc_refused(text, code=code.name):
            await rendered(stub, messages)


def test_committed_files_are_those_that_were_exported() -> None:
    assert sum(path.stat().st_size for path in Path(WEIGHTS_FOLDER).iterdir()) < 36 << 20
    assert all(path.stat().st_size < 8 << 20 for path in WEIGHTS_FOLDER.iterdir())
