"""The model `headpose` behind a real server, with the weights that come with it."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from dubstage.render.v1 import render_pb2 as pb
from services.common.face.crops import HeadPose
from services.common.face.mouth_bank import FORMAT, MouthBank, bank_arrays, make_bank
from services.common.wire.convert import ref_to_proto
from services.render.backends.model_files import WEIGHTS_FOLDER
from services.render.renderer import PersonalizeJob
from services.render.renderers.headpose.personalize import personalize_headpose
from services.render.streams import open_stream
from services.render.types import RenderFrame
from tests.contract.render.conftest import models_of_stage, personalised, rendered
from tests.contract.render.requests import frame_to_proto
from tests.refusals import rpc_refused
from tests.unit.render.drawn_person import drawing, person

CONFIG = pb.RenderRequest(config=pb.RenderConfig(model="headpose"))


@pytest.fixture(scope="module")
def clip(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> list[RenderFrame]:
    """Six frames in a row with drawn faces."""
    face, pose = drawing(), HeadPose(1.0, np.eye(3), np.zeros(3))
    return [
        RenderFrame(row, bank.boxes[row], face.draw(bank.mouth[row + 5], pose, detailed=True), mask, bank.box_landmarks[row + 5])
        for row in range(6)
    ]


async def test_personalised_still_wire_bytes(stub, store, bank, clip) -> None:
    """A still picture is personalised and the wire gives the bytes of the function."""
    one = make_bank(bank.boxes[:1], bank.mouth[:1], bank.rotation[:1], bank.frame_index[:1], bank.geometry)
    identity = store.put_arrays(person().arrays(), person().metadata())
    *_, report = await personalised(stub, store, one, "headpose", identity=ref_to_proto(identity))
    assert (report.step, report.num_steps, report.HasField("actor")) == (0, 0, True)
    actor = pb.RenderRequest(config=pb.RenderConfig(model="headpose", actor=report.actor))
    answers = await rendered(stub, [actor, *map(frame_to_proto, clip)])
    models = models_of_stage()
    state = list(personalize_headpose(PersonalizeJob(bank=one, drawing=drawing(), weights=WEIGHTS_FOLDER)))[-1].state
    expected = open_stream(models.backend, models.files["headpose"], state).render(clip)
    assert [answer.frame_index for answer in answers] == list(range(6))
    for got, want in zip(answers, expected, strict=True):
        assert np.array_equal(got.box, want.box)
    nobody = await rendered(stub, [CONFIG, frame_to_proto(clip[0])])
    assert not np.array_equal(nobody[0].box, answers[0].box)
    past = [replace(frame, context_only=True) for frame in clip[2:4]]
    rest = await rendered(stub, [actor, *map(frame_to_proto, [*past, *clip[4:]])])
    for got, want in zip(rest, answers[4:], strict=True):
        assert np.array_equal(got.box, want.box)


async def test_an_actor_is_personalised_in_steps(stub, store, bank, clip) -> None:
    """Personalisation reports its steps, and says what it lacks; another model refuses the actor."""
    identity = store.put_arrays(person().arrays(), person().metadata())
    reports = await personalised(stub, store, bank, "headpose", identity=ref_to_proto(identity), num_steps=1)
    assert [report.HasField("actor") for report in reports] == [False, True]
    other = pb.RenderRequest(config=pb.RenderConfig(model="everybody", actor=reports[-1].actor))
    with rpc_refused():
        await rendered(stub, [other, frame_to_proto(clip[0])])
    stored = ref_to_proto(store.put_arrays(bank_arrays(bank), {"format": FORMAT}))
    with rpc_refused("identity is missing"):
        _ = [report async for report in stub.Personalize(pb.PersonalizeRequest(model="headpose", bank=stored))]
    with rpc_refused("mouth bank", field="bank"):
        _ = [
            report
            async for report in stub.Personalize(
                pb.PersonalizeRequest(model="headpose", bank=ref_to_proto(identity), identity=ref_to_proto(identity))
            )
        ]
    with rpc_refused("no face identity", field="identity"):
        _ = [report async for report in stub.Personalize(pb.PersonalizeRequest(model="headpose", bank=stored, identity=stored))]
    with rpc_refused("texture is missing"):
        await rendered(stub, [CONFIG, frame_to_proto(replace(clip[0], texture=None))])
