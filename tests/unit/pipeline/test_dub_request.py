from __future__ import annotations

from pathlib import Path

import pytest

from dubstage.gateway.v1alpha1 import batch_pb2, gateway_pb2
from dubstage.motion.v1alpha1 import motion_pb2
from gateway.methods import method_named
from gateway.pipeline.dub_request import (
    LEAST_EXPRESSIVENESS,
    MOST_EXPRESSIVENESS,
    DubRequest,
    Expression,
    expression_named,
    wants_own_timeline,
)
from services.common.chassis.bounds import declared
from services.common.errors import InvalidRequest


@pytest.mark.parametrize(
    ("method", "retime", "expression", "kept"),
    [
        ("ugc", False, None, True),
        ("hetero", False, "keep", True),
        ("ugc", False, "neutral", False),
        ("ugc", True, None, False),
        ("headpose", False, None, False),
        ("headpose+ugc", False, None, False),
    ],
)
def test_films_with_the_frames_of_the_footage_keep_its_expression(
    method: str, retime: bool, expression: Expression | None, kept: bool
) -> None:
    film = Path("film.mp4")
    request = DubRequest(footage=film, speech=None, output=film, method=method, retime=retime, expression=expression)
    assert request.keeps_expression is kept


@pytest.mark.parametrize(("method", "retime"), [("headpose", False), ("ugc", True)])
def test_a_film_with_its_own_timeline_cannot_keep_the_expression(method: str, retime: bool) -> None:
    assert wants_own_timeline(method_named(method), retime=retime, keep_audio=False, expression="neutral")
    with pytest.raises(InvalidRequest, match="timeline") as caught:
        wants_own_timeline(method_named(method), retime=retime, keep_audio=False, expression="keep")
    assert caught.value.field == "expression"


def test_an_unknown_expression_is_refused_with_those_there_are() -> None:
    assert [expression_named(name) for name in ("", "keep", "neutral")] == [None, "keep", "neutral"]
    with pytest.raises(InvalidRequest, match="keep, neutral") as caught:
        expression_named("smile")
    assert caught.value.field == "expression"


def test_the_contracts_declare_the_same_range_of_the_expressiveness() -> None:
    for message in (
        gateway_pb2.CreateDubRequest,
        gateway_pb2.LiveConfig,
        batch_pb2.BatchRow,
        motion_pb2.PredictMotionConfig,
    ):
        bounds = declared(message.DESCRIPTOR.fields_by_name["expressiveness"])
        assert bounds is not None
        assert (bounds.min, bounds.max, bounds.zero_ok) == (LEAST_EXPRESSIVENESS, MOST_EXPRESSIVENESS, False)
