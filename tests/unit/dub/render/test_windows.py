"""How an actor's windows are rendered: which frames each stage sees, and what the messages hold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dubstage.client import rpcs, to_image, to_tensor
from dubstage.common.v1 import common_pb2
from dubstage.render.v1 import render_pb2
from dubstage.texture.v1 import texture_pb2
from gateway.dub.learn.enrol import EnrolledActor
from gateway.dub.render.windows import WARP, FrameSpan, WindowConfig, render_window, textured_frames, window_config, with_context
from gateway.dub.state.records import FACE_RECORD, pose_of
from services.common.errors import ContractBrokenError
from services.common.face.actor_geometry import ActorGeometry
from services.common.face.crops import head_to_box
from services.common.methods import METHODS, Finish, RendererSpec, TextureInput, method_named
from services.common.wire.convert import from_image, from_tensor

REF = common_pb2.ArtefactRef(uri="file:///a", sha256="a" * 64, size_bytes=1)
IDENTITY = common_pb2.ArtefactRef(uri="file:///b", sha256="b" * 64, size_bytes=1)
NEURAL = METHODS["everyone"].renderer


@pytest.fixture
def geometry() -> ActorGeometry:
    mouth, points = np.zeros((59, 3), np.float32), np.zeros((19, 3), np.float32)
    return ActorGeometry(mouth, mouth, points, points[:15])


@pytest.fixture
def actor(geometry: ActorGeometry) -> EnrolledActor:
    return EnrolledActor(REF, REF, REF, geometry, 200, np.zeros(6), identity=REF)


def config_of(renderer: RendererSpec, geometry: ActorGeometry) -> WindowConfig:
    return WindowConfig(bank=REF, geometry=geometry, renderer=renderer, state=REF, mode=WARP)


class RecordingStages:
    """Texture and render stage that answer grey pictures and features, and keep what they were sent."""

    def __init__(self) -> None:
        self.warped: list[texture_pb2.TargetFrame] = []
        self.sampled: list[texture_pb2.TargetFrame] = []
        self.rendered: list[render_pb2.RenderFrame] = []
        self.configs: list[Any] = []
        self.lost: int | None = None

    async def stream(self, rpc: Any, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        grey = to_image(np.full((160, 160, 3), 90, np.uint8))
        async for request in requests:
            if request.HasField("config"):
                self.configs.append(request.config)
                continue
            if rpc is rpcs.texture.SAMPLE_NEURAL_TEXTURE:
                self.sampled.append(request.target)
                level = np.full((160, 160, 2), request.target.frame_index, np.float32)
                if request.target.frame_index != self.lost:
                    yield texture_pb2.SampleNeuralTextureResponse(frame_index=request.target.frame_index, features=to_tensor(level))
                continue
            frame = request.frame
            (self.warped if rpc is rpcs.texture.RETRIEVE_WARP else self.rendered).append(frame)
            if frame.context_only or frame.frame_index == self.lost:
                continue
            if rpc is rpcs.texture.RETRIEVE_WARP:
                landmarks = to_tensor(np.zeros((59, 2), np.float32))
                yield texture_pb2.RetrieveWarpResponse(frame_index=frame.frame_index, warped=grey, box_landmarks=landmarks)
            else:
                yield render_pb2.RenderResponse(frame_index=frame.frame_index, box=grey)


def face_records(frames: range) -> np.ndarray:
    made = np.zeros(len(frames), FACE_RECORD)
    made["frame"] = frames
    made["scale"] = 1.0
    made["rotation"] = np.eye(3)
    made["translation"] = [100.0, 100.0, 0.0]
    return made


def stretch_of(frames: range, wanted: np.ndarray) -> FrameSpan:
    mouths = np.random.default_rng(0).uniform(-20, 20, (len(frames), 59, 3)).astype(np.float32)
    return FrameSpan(face_records(frames), mouths, wanted, movable=np.ones((len(frames), 160, 160), np.bool_))


@pytest.mark.parametrize("method", ["dubstage", "everybody", "portrait+dubstage"])
def test_non_drawing_renderer_gets_warp(method: str, actor: EnrolledActor) -> None:
    """Renderers that draw nothing get the warp that was asked for."""
    config = window_config(method_named(method), actor)
    assert (config.mode, config.identity) == (WARP, None)


def test_drawn_face_uses_known_albedo(actor: EnrolledActor) -> None:
    """The drawn face has the low frequency albedo once the renderer knows the person."""
    modes = [window_config(method_named("portrait"), replace(actor, renderer_trained=trained)).mode for trained in (True, False)]
    assert modes == [texture_pb2.WARP_MODE_LOW_FREQUENCY_ALBEDO, texture_pb2.WARP_MODE_DETAILED_ALBEDO]


@pytest.mark.parametrize(
    ("method", "finish", "shown"),
    [
        ("dubstage", None, (True, False, False, 2)),
        ("dubstage", Finish.RENDERER, (True, False, False, 0)),
        ("ugc", None, (True, False, False, 0)),
        ("portrait", None, (True, True, False, 2)),
        ("everybody", None, (False, False, False, 0)),
        ("everybody", Finish.BANK, (True, True, True, 2)),
        ("dubstage+everybody", None, (True, True, True, 2)),
        ("headpose", None, (False, False, False, 0)),
        ("headpose", Finish.BANK, (True, True, False, 2)),
        ("everyone", None, (False, False, False, 0)),
    ],
)
def test_finish_decides_whose_pixels(
    method: str, finish: Finish | None, shown: tuple[bool, bool, bool, int], actor: EnrolledActor
) -> None:
    """The finish of the renderer takes no colours, inside or detail of the bank. A renderer keeps what it draws from."""
    config = window_config(method_named(method), actor, detail_scale=2, finish=finish)
    assert (config.shows_bank, config.gives_colours, config.gives_inside, config.detail_scale) == shown


@pytest.mark.parametrize(("method", "before"), [("dubstage", 0), ("portrait", 2)])
def test_context_frames_are_drawn(method: str, before: int, geometry: ActorGeometry) -> None:
    """Context frames are drawn where the renderer looks at them."""
    wanted = np.array([False] * 6 + [True] * 4)
    config = config_of(METHODS[method].renderer, geometry)
    assert textured_frames(config, wanted).tolist() == [False] * (6 - before) + [True] * (4 + before)


def test_no_context_before_start(geometry: ActorGeometry) -> None:
    """At the beginning of a video, there is no context before."""
    config = config_of(METHODS["portrait"].renderer, geometry)
    assert textured_frames(config, np.ones(3, np.bool_)).all()
    assert not textured_frames(config, np.zeros(3, np.bool_)).any()


@pytest.mark.parametrize(
    ("before", "after", "seen"),
    [(0, 0, range(5, 12)), (6, 0, range(4, 12)), (2, 1, range(5, 13)), (0, 9, range(5, 14))],
    ids=["five for the texture stage", "to the last gap", "after too", "to the next gap"],
)
def test_context_stops_at_unrendered_frame(before: int, after: int, seen: range, geometry: ActorGeometry) -> None:
    """Context reaches to the next frame that cannot be rendered."""
    usable = np.array([False] * 4 + [True] * 10 + [False] * 2)
    renderer = RendererSpec(name="toy", frames_before=before, frames_after=after, texture=TextureInput.WARPED)
    assert with_context(range(10, 12), usable, config_of(renderer, geometry), ()) == seen


@pytest.mark.parametrize("texture", [TextureInput.NONE, TextureInput.NEURAL])
def test_without_retrieval_the_context_is_the_renderers_alone(texture: TextureInput, geometry: ActorGeometry) -> None:
    renderer = RendererSpec(name="toy", frames_before=2, frames_after=1, texture=texture, needs_actor=True, needs_identity=True)
    assert with_context(range(10, 12), np.ones(20, np.bool_), config_of(renderer, geometry), ()) == range(8, 13)


def test_a_video_ends_the_context(geometry: ActorGeometry) -> None:
    config = config_of(RendererSpec(name="toy", frames_before=6, frames_after=6), geometry)
    assert with_context(range(2, 4), np.ones(5, np.bool_), config, ()) == range(5)


@pytest.mark.parametrize(
    ("cuts", "seen"),
    [([8], range(8, 15)), ([10, 12], range(10, 12)), ([13], range(4, 13)), ([3, 16], range(4, 15))],
    ids=["before", "at both ends", "after", "farther away"],
)
def test_context_stops_at_cuts(cuts: list[int], seen: range, geometry: ActorGeometry) -> None:
    """No context shows another shot."""
    config = config_of(RendererSpec(name="toy", frames_before=6, frames_after=3), geometry)
    assert with_context(range(10, 12), np.ones(20, np.bool_), config, cuts) == seen


async def test_frames_after_sent_as_context(geometry: ActorGeometry) -> None:
    """Frames after the requested frames are sent as context."""
    renderer = RendererSpec(name="toy", frames_before=2, frames_after=1, texture=TextureInput.WARPED)
    stages: Any = RecordingStages()
    wanted = np.array([False] * 5 + [True] * 3 + [False])
    window = await render_window(stages, config_of(renderer, geometry), stretch_of(range(20, 29), wanted))
    assert window.frame.tolist() == [25, 26, 27]
    assert [frame.frame_index for frame in stages.warped if not frame.context_only] == list(range(23, 29))
    assert [(frame.frame_index, frame.context_only) for frame in stages.rendered] == [
        (23, True),
        (24, True),
        (25, False),
        (26, False),
        (27, False),
        (28, True),
    ]
    assert all(frame.HasField("texture") for frame in stages.rendered)


async def test_landmark_renderer_skips_texture(geometry: ActorGeometry) -> None:
    """A renderer without texture is shown landmarks without asking the texture stage."""
    stages: Any = RecordingStages()
    wanted = np.array([False] * 2 + [True] * 2 + [False] * 2)
    config = config_of(RendererSpec(name="toy", frames_before=1, frames_after=2), geometry)
    stretch = stretch_of(range(6), wanted)
    window = await render_window(stages, config, stretch)
    assert stages.warped == stages.sampled == []
    assert [frame.frame_index for frame in stages.rendered] == [1, 2, 3, 4, 5]
    assert not any(frame.HasField("texture") for frame in stages.rendered)
    sent = [from_tensor(frame.box_landmarks, "", dtype=np.float32, shape=(59, 2)) for frame in stages.rendered]
    poses = [pose_of(record) for record in stretch.records]
    for place, landmarks in enumerate(sent, 1):
        np.testing.assert_array_equal(landmarks, head_to_box(stretch.mouths[place], poses[place]))
    np.testing.assert_array_equal(window.landmarks, sent[1:3])
    assert window.fitting_error.tolist() == window.bending_energy.tolist() == [0.0, 0.0]


async def test_neural_renderer_gets_features(geometry: ActorGeometry) -> None:
    """A renderer with a neural texture gets its features of all frames it sees."""
    stages: Any = RecordingStages()
    wanted = np.array([False] + [True] * 3 + [False])
    heard = np.arange(5, dtype=np.float32)[:, None, None] * np.ones((5, 20, 40), np.float32)
    stretch = replace(stretch_of(range(30, 35), wanted), speech=heard)
    window = await render_window(stages, replace(config_of(NEURAL, geometry), identity=IDENTITY), stretch)
    assert stages.warped == []
    assert [(frame.frame_index, frame.context_only) for frame in stages.sampled] == [(frame, False) for frame in range(30, 35)]
    sampling, rendering = stages.configs
    assert (sampling.texture, sampling.identity, rendering.actor) == (REF, IDENTITY, REF)
    assert [frame.context_only for frame in stages.rendered] == [True, False, False, False, True]
    for number, frame in enumerate(stages.rendered):
        assert not frame.HasField("texture")
        features = from_tensor(frame.neural_features, "", dtype=np.float32, shape=(160, 160, 2))
        assert np.unique(features).tolist() == [30 + number]
        assert np.unique(from_tensor(frame.speech_features, "", dtype=np.float32, shape=(20, 40))).tolist() == [number]
    assert window.frame.tolist() == [31, 32, 33]
    assert window.fitting_error.tolist() == window.bending_energy.tolist() == [0.0] * 3


async def test_a_frame_without_features_breaks_the_contract(geometry: ActorGeometry) -> None:
    stages: Any = RecordingStages()
    stages.lost = 2
    with pytest.raises(ContractBrokenError, match=r"the texture stage answered frames \[0, 1\], not \[0, 1, 2\]"):
        await render_window(stages, config_of(NEURAL, geometry), stretch_of(range(3), np.ones(3, np.bool_)))


async def test_reference_sent_once(geometry: ActorGeometry) -> None:
    """The reference is sent once for the whole stream."""
    stages: Any = RecordingStages()
    reference = np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)
    config = replace(config_of(RendererSpec(name="toy", reference=True), geometry), reference=reference)
    await render_window(stages, config, stretch_of(range(3), np.ones(3, np.bool_)))
    (rendering,) = stages.configs
    np.testing.assert_array_equal(from_image(rendering.reference, "reference", channels=3, size=(160, 160)), reference)


async def test_missing_frame_breaks_contract(geometry: ActorGeometry) -> None:
    """A stage that leaves a frame out breaks its contract."""
    stages: Any = RecordingStages()
    stages.lost = 1
    config = config_of(METHODS["dubstage"].renderer, geometry)
    with pytest.raises(ContractBrokenError, match=r"the texture stage answered frames \[0, 2\], not \[0, 1, 2\]"):
        await render_window(stages, config, stretch_of(range(3), np.ones(3, np.bool_)))
