"""Requests of the render stage at the ends of what it takes, and beyond."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dubstage.client import to_tensor
from dubstage.common.v1 import common_pb2
from dubstage.render.v1 import render_pb2 as pb
from services.common.face.crops import MAX_BOX_PX, MAX_HEAD_PX
from services.common.face.mouth_bank import FORMAT, MouthBank, bank_arrays
from services.common.store.artefacts import ArtefactStore
from services.common.wire.convert import ref_from_proto, ref_to_proto
from services.render.types import RenderFrame
from tests.contract.finite import finite_or_refused
from tests.contract.render.requests import frame_to_proto
from tests.refusals import rpc_refused

MODELS = ("ugc", "everybody", "headpose", "hetero")
POINTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "zeros": lambda points: points * 0,
    "one place": lambda points: points * 0 + 80,
    "one line": lambda points: points * np.array([1, 0], np.float32),
    "denormals": lambda points: points * np.float32(1e-44),
    "the largest that are taken": lambda points: np.where(points > 80, MAX_BOX_PX, -MAX_BOX_PX),
    "one far out": lambda points: np.concatenate([points[:1] * 0 - np.float32(MAX_BOX_PX), points[1:]]),
    "beyond": lambda points: points * 0 + np.float32(1e30),
    "the largest float": lambda points: points * 0 - np.float32(3.4028235e38),
    "no numbers": lambda points: points * np.float32(np.nan),
}
REFUSED = {"beyond", "the largest float", "no numbers"}
ANY_BANK: list[tuple[str, Callable[[np.ndarray], np.ndarray], bool]] = [
    ("mouth", lambda array: array * 0, True),
    ("mouth", lambda array: np.where(array > 0, MAX_HEAD_PX, -MAX_HEAD_PX).astype(np.float32), True),
    ("anchors", lambda array: array * 0 + np.float32(MAX_HEAD_PX), True),
    ("boxes", lambda array: array * 0, True),
    ("frame_index", lambda array: array * 2**50, True),
    ("rotation", lambda array: array @ np.diag([-1.0, 1.0, -1.0]), True),
    ("mouth", lambda array: array + np.float32(np.nan), False),
    ("rotation", lambda array: array * 3e38, False),
]


async def answers(stub, messages: list[pb.RenderRequest]) -> list[pb.RenderResponse]:
    return [response async for response in stub.Render(messages, timeout=60)]


async def personalized(stub, request: pb.PersonalizeRequest) -> list[pb.PersonalizeResponse]:
    return [response async for response in stub.Personalize(request, timeout=120)]


@pytest.mark.parametrize("model", MODELS)
async def test_extreme_mouth_landmarks(stub, store, bank, frames, model) -> None:
    """A mouth of any landmarks is drawn or refused."""
    config = pb.RenderConfig(model=model)
    if model == "everybody":  # its actor has key pictures, which are moved to the landmarks
        ref = ref_to_proto(store.put_arrays(bank_arrays(bank), {"format": FORMAT}))
        *_, last = await personalized(stub, pb.PersonalizeRequest(model=model, bank=ref, skip_training=True))
        config.actor.CopyFrom(last.actor)
    for name, change in POINTS.items():
        points = change(frames[0].box_landmarks).astype(np.float32)
        wanted = [frame_to_proto(replace(frame, box_landmarks=points)) for frame in frames[:2]]
        assert await finite_or_refused(answers(stub, [pb.RenderRequest(config=config), *wanted])) == (name not in REFUSED), name


@pytest.mark.parametrize("model", MODELS)
async def test_empty_and_full_masks(stub, frames: list[RenderFrame], model: str) -> None:
    """Pictures without a mask or all mask are drawn."""
    for level in (0, 1, 255):
        for picture in (np.zeros((160, 160, 3), np.uint8), np.full((160, 160, 3), 255, np.uint8)):
            frame = replace(frames[0], mask=np.full((160, 160), level, np.uint8), background=picture, texture=255 - picture)
            config = pb.RenderRequest(config=pb.RenderConfig(model=model))
            assert await finite_or_refused(answers(stub, [config, frame_to_proto(frame)]))


async def test_extreme_frame_indices(stub, frames: list[RenderFrame]) -> None:
    """Indices at the ends of the range are drawn or refused."""
    for index in (0, 2**31, 2**53, 2**63 - 1, -1, -(2**63)):
        for model in MODELS:
            config = pb.RenderRequest(config=pb.RenderConfig(model=model))
            await finite_or_refused(answers(stub, [config, frame_to_proto(replace(frames[0], frame_index=index))]))


@pytest.mark.parametrize("num_steps", [100_001, 4294967295])
async def test_more_steps_than_a_day_holds_are_refused(stub, store, bank, num_steps) -> None:
    ref = ref_to_proto(store.put_arrays(bank_arrays(bank), {"format": FORMAT}))
    with rpc_refused(match="num_steps"):
        await personalized(stub, pb.PersonalizeRequest(model="ugc", bank=ref, num_steps=num_steps))


async def test_an_actor_of_any_bank_is_finite(stub, store: ArtefactStore, bank: MouthBank) -> None:
    arrays = bank_arrays(bank)
    for place, (name, change, taken) in enumerate(ANY_BANK):
        ref = ref_to_proto(store.put_arrays({**arrays, name: change(arrays[name])}, {"format": FORMAT}))
        # One of them is learned from, which takes seconds.
        learned = place == 1
        model = "ugc" if learned else "everybody"
        request = pb.PersonalizeRequest(model=model, bank=ref, num_steps=1, seed=2**64 - 1, skip_training=not learned)
        if not taken:
            assert not await finite_or_refused(personalized(stub, request)), name
            continue
        *_, last = await personalized(stub, request)
        state = store.get_arrays(ref_from_proto(last.actor, "actor"))["actor_state"]
        assert np.isfinite(state).all(), name


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state + np.float32(np.nan),
        lambda state: state + np.float32(1e30),
        lambda state: state[:-1],
        lambda state: state.astype(np.float64),
    ],
)
async def test_a_damaged_actor_is_refused(stub, store, bank, frames, change) -> None:
    ref = ref_to_proto(store.put_arrays(bank_arrays(bank), {"format": FORMAT}))
    *_, last = await personalized(stub, pb.PersonalizeRequest(model="ugc", bank=ref, skip_training=True))
    kept = store.get_arrays(ref_from_proto(last.actor, "actor"))
    damaged = ref_to_proto(store.put_arrays({"actor_state": change(kept["actor_state"])}, kept.metadata))
    config = pb.RenderRequest(config=pb.RenderConfig(model="ugc", actor=damaged))
    with rpc_refused(match=r"config\.actor"):
        await answers(stub, [config, frame_to_proto(frames[0])])


async def test_unneeded_and_mistyped_inputs(stub, store: ArtefactStore, bank: MouthBank, frames: list[RenderFrame]) -> None:
    """An identity that no model needs changes nothing, and landmarks of another type are refused."""
    ref = ref_to_proto(store.put_arrays(bank_arrays(bank), {"format": FORMAT}))
    nothing = common_pb2.ArtefactRef()
    request = pb.PersonalizeRequest(model="ugc", bank=ref, identity=nothing, skip_training=True)
    assert await finite_or_refused(personalized(stub, request))
    request.model = "headpose"
    assert not await finite_or_refused(personalized(stub, request))
    message = frame_to_proto(frames[0])
    message.frame.box_landmarks.CopyFrom(to_tensor(np.full((59, 2), 1e300)))
    config = pb.RenderRequest(config=pb.RenderConfig(model="ugc"))
    assert not await finite_or_refused(answers(stub, [config, message]))
