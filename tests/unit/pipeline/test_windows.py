"""How an actor's windows are rendered, and which frames need a picture of the texture stage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dubstage.common.v1alpha1 import common_pb2
from dubstage.texture.v1alpha1 import texture_pb2
from gateway.methods import method_named
from gateway.pipeline.enrol import EnrolledActor
from gateway.pipeline.windows import WindowConfig, _pictured, window_config
from services.common.actor_geometry import ActorGeometry

WARP = texture_pb2.WARP_MODE_TEMPORAL_WARP_NETWORK


@pytest.fixture
def actor() -> EnrolledActor:
    mouth, points = np.zeros((59, 3), np.float32), np.zeros((19, 3), np.float32)
    geometry = ActorGeometry(mouth, mouth, points, points[:15])
    ref = common_pb2.ArtefactRef(uri="file:///a", sha256="a" * 64, size_bytes=1)
    return EnrolledActor(ref, ref, ref, geometry, 200, np.zeros(6), identity=ref)


def config_of(renderer: str) -> WindowConfig:
    ref = common_pb2.ArtefactRef(uri="file:///a", sha256="a" * 64, size_bytes=1)
    return WindowConfig(bank=ref, renderer=ref, model=renderer, mode=WARP)


@pytest.mark.parametrize("method", ["ugc", "everybody", "headpose+ugc"])
def test_renderers_that_draw_nothing_get_the_warp_that_was_asked_for(method: str, actor: EnrolledActor) -> None:
    config = window_config(method_named(method), actor, WARP)
    assert (config.mode, config.identity) == (WARP, None)


def test_the_drawn_face_has_the_low_frequency_albedo_once_the_renderer_knows_the_person(actor: EnrolledActor) -> None:
    modes = [
        window_config(method_named("headpose"), replace(actor, renderer_trained=trained), WARP).mode for trained in (True, False)
    ]
    assert modes == [texture_pb2.WARP_MODE_LOW_FREQUENCY_ALBEDO, texture_pb2.WARP_MODE_DETAILED_ALBEDO]


@pytest.mark.parametrize(("renderer", "before"), [("ugc", 0), ("everybody", 0), ("headpose", 2), ("", 0)])
def test_context_frames_are_drawn_where_the_renderer_looks_at_them(renderer: str, before: int) -> None:
    wanted = np.array([False] * 6 + [True] * 4)
    pictured = _pictured(config_of(renderer), wanted)
    assert pictured.tolist() == [False] * (6 - before) + [True] * (4 + before)


def test_at_the_beginning_of_a_film_there_is_nothing_before() -> None:
    assert _pictured(config_of("headpose"), np.ones(3, np.bool_)).all()
    assert not _pictured(config_of("headpose"), np.zeros(3, np.bool_)).any()
