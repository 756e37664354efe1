"""Tests of a new renderer over the wire: a renderer and a network of a few lines behind a real server."""

from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest

from dubstage.client import to_image, to_tensor
from dubstage.common.v1 import common_pb2
from dubstage.render.v1 import render_pb2 as pb
from dubstage.render.v1.render_pb2_grpc import RenderServiceStub
from services.common.array_types import Array
from services.common.errors import ModelNotFoundError
from services.common.face.mouth_bank import MouthBank
from services.common.server.process import server_of
from services.common.store.artefacts import ArtefactStore
from services.render.__main__ import compose
from services.render.settings import RenderSettings
from services.render.types import Precision
from tests.contract.render.conftest import personalised, rendered
from tests.contract.render.requests import frame_to_proto
from tests.refusals import rpc_refused
from tests.unit.render.toy import NAME, SPEECH, Toy

CONFIG = pb.RenderRequest(config=pb.RenderConfig(model=NAME))
INPUTS = ("texture", "speech_features", "reference")


@asynccontextmanager
async def serving(toy: Toy, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """A real server with the toy, and with no other model."""
    toy.register(monkeypatch)
    toy.write(folder / "weights")
    settings = RenderSettings(
        port=0,
        artefacts_url=str(folder / "artefacts"),
        render_weights=folder / "weights",
        batch_size=3,
        # The toy's sums are exact in float32 only, not in bfloat16.
        backend="onnxruntime",
        precision=Precision.FLOAT32,
    )
    async with server_of("render", settings, compose(settings)) as server, grpc.aio.insecure_channel(server.address) as channel:
        yield RenderServiceStub(channel)


async def next_index(call: Any) -> int:
    reply = await call.read()
    assert isinstance(reply, pb.RenderResponse)
    return reply.frame_index


async def test_look_ahead_delays_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame is answered when its frames after have come and the rest at the end."""
    toy = Toy(before=1, after=2)
    frames = toy.frames(list(range(5)))
    async with serving(toy, tmp_path, monkeypatch) as stub:
        call = stub.Render()
        await call.write(CONFIG)
        for frame in frames[:3]:
            await call.write(frame_to_proto(frame))
        assert await next_index(call) == 0
        for frame in frames[3:]:
            await call.write(frame_to_proto(frame))
        assert [await next_index(call) for _ in range(2)] == [1, 2]
        await call.done_writing()
        assert [await next_index(call) for _ in range(2)] == [3, 4]
        assert await call.read() == grpc.aio.EOF


async def test_context_frames_same_as_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours on both sides make a part of a stream equal to the whole."""
    toy = Toy(before=2, after=1)
    frames = toy.frames(list(range(8)))
    async with serving(toy, tmp_path, monkeypatch) as stub:
        whole = await rendered(stub, [CONFIG, *map(frame_to_proto, frames)])
        part = [replace(frame, context_only=frame.frame_index not in (3, 4)) for frame in frames[1:6]]
        cut = await rendered(stub, [CONFIG, *map(frame_to_proto, part)])
    assert [made.frame_index for made in whole] == list(range(8))
    assert [made.frame_index for made in cut] == [3, 4]
    for got, want in zip(cut, whole[3:5], strict=True):
        assert np.array_equal(got.box, want.box)


async def test_every_input_an_actor_and_a_larger_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bank: MouthBank) -> None:
    toy = Toy(before=1, after=2, inputs=INPUTS, state_size=64, multiple=2)
    frames = toy.frames(list(range(4)))
    reference = np.random.default_rng(1).integers(0, 40, (320, 320, 3), np.uint8)
    async with serving(toy, tmp_path, monkeypatch) as stub:
        (model,) = (await stub.ListModels(pb.ListModelsRequest())).models
        store = ArtefactStore(tmp_path / "artefacts")
        reports = await personalised(stub, store, bank, NAME)
        config = pb.RenderConfig(model=NAME, actor=reports[-1].actor, reference=to_image(reference))
        made = await rendered(stub, [pb.RenderRequest(config=config), *map(frame_to_proto, frames)])
    assert (model.frames_before, model.frames_after, model.box_multiple) == (1, 2, 2)
    assert list(model.inputs) == list(INPUTS)
    assert (model.texture, model.needs_actor, model.needs_identity) == (pb.TEXTURE_INPUT_WARPED, True, False)
    assert [(report.step, report.HasField("actor")) for report in reports] == [(1, False), (2, False), (2, True)]
    state = np.full(64, bank.num_frames, np.float32)
    windows = [(0, 0, 1, 2), (0, 1, 2, 3), (1, 2, 3, 3), (2, 3, 3, 3)]
    assert [one.frame_index for one in made] == [0, 1, 2, 3]
    for one, frame, window in zip(made, frames, windows, strict=True):
        assert np.array_equal(one.box, toy.expected([frames[place] for place in window], frame, state, reference))


@pytest.mark.parametrize("name", ["texture", "speech_features", "neural_features"])
async def test_a_missing_input_is_refused_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    toy = Toy(inputs=(name,))
    (frame,) = toy.frames([0])
    async with serving(toy, tmp_path, monkeypatch) as stub:
        with rpc_refused(f"frame.{name} is missing"):
            await rendered(stub, [CONFIG, frame_to_proto(replace(frame, **{name: None}))])


async def test_inputs_of_another_form_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = Toy(inputs=("speech_features", "neural_features", "reference"), multiple=2)
    (frame,) = toy.frames([0])
    reference = to_image(np.zeros((320, 320, 3), np.uint8))

    def requests(picture: common_pb2.Image | None, **changes: Array) -> list[pb.RenderRequest]:
        message = frame_to_proto(frame)
        for name, values in changes.items():
            getattr(message.frame, name).CopyFrom(to_tensor(values))
        return [pb.RenderRequest(config=pb.RenderConfig(model=NAME, reference=picture)), message]

    small = frame_to_proto(Toy().frames([0])[0])
    cases = [
        (requests(to_image(np.zeros((160, 160, 3), np.uint8))), "config.reference: expected 320 x 320 pixels"),
        (requests(reference, speech_features=np.zeros((4, 7), np.float32)), r"frame.speech_features: expected shape [4, 6]"),
        (requests(reference, speech_features=np.zeros(SPEECH)), "frame.speech_features: expected float32, got float64"),
        (requests(reference, speech_features=np.full(SPEECH, np.nan, np.float32)), "is not a finite number"),
        (requests(reference, neural_features=np.zeros((160, 160, 5), np.float32)), "frame.neural_features: expected shape"),
        (requests(reference, neural_features=np.full((320, 320, 5), 1e5, np.float32)), "numbers from -10000 to 10000"),
        ([requests(reference)[0], small], "frame.background: expected 320 x 320 pixels, got 160 x 160"),
    ]
    async with serving(toy, tmp_path, monkeypatch) as stub:
        assert len(await rendered(stub, requests(reference))) == len(await rendered(stub, requests(None))) == 1
        for messages, text in cases:
            with rpc_refused(text):
                await rendered(stub, messages)


async def test_unlisted_inputs_are_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs that a model does not list are ignored."""
    toy = Toy()
    (frame,) = toy.frames([0])
    more = frame_to_proto(frame)
    more.frame.speech_features.CopyFrom(to_tensor(np.zeros((1, 1), np.float32)))
    more.frame.texture.CopyFrom(to_image(np.zeros((8, 8, 3), np.uint8)))
    async with serving(toy, tmp_path, monkeypatch) as stub:
        (one,), (other,) = [await rendered(stub, [CONFIG, message]) for message in (frame_to_proto(frame), more)]
    assert np.array_equal(one.box, other.box)


async def test_unknown_model_lists_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bank: MouthBank) -> None:
    """A name that is not there is refused with the names that are."""
    async with serving(Toy(), tmp_path, monkeypatch) as stub:
        with rpc_refused("no model 'ugc': there are toy", code="NOT_FOUND"):
            await rendered(stub, [pb.RenderRequest(config=pb.RenderConfig(model="ugc"))])
        with rpc_refused("no model 'ugc': there are toy", code="NOT_FOUND"):
            _ = [report async for report in stub.Personalize(pb.PersonalizeRequest(model="ugc"))]


async def test_model_without_renderer_stops_start(tmp_path: Path) -> None:
    Toy().write(tmp_path / "weights")
    settings = RenderSettings(port=0, artefacts_url=str(tmp_path / "artefacts"), render_weights=tmp_path / "weights")
    with pytest.raises(ModelNotFoundError, match="no renderer 'toy': there are everybody, everyone, headpose, hetero, ugc"):
        async with server_of("render", settings, compose(settings)):
            pass
