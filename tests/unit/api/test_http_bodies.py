"""Limits of bodies, from the contracts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format

from dubstage.gateway.v1 import batch_pb2, dub_pb2, gateway_pb2, webhook_pb2
from gateway.api.http_bodies import MOST_BYTES, MOST_VALUES, check_items, check_values, json_object, limits_of
from gateway.api.rest import ROUTES
from services.common.errors import InvalidRequestError


def test_every_route_has_limits() -> None:
    """No request has more than a parser takes without holding others."""
    for route in ROUTES:
        limits = limits_of(route.method.input_type)
        assert 4096 < limits.num_bytes <= MOST_BYTES
        assert 20_000 < limits.num_values <= MOST_VALUES


def test_limits_follow_the_contract() -> None:
    webhook = limits_of(webhook_pb2.CreateWebhookRequest.DESCRIPTOR)
    assert webhook.num_bytes < 32_000
    assert limits_of(gateway_pb2.CreateActorRequest.DESCRIPTOR).num_bytes < 2_000_000
    assert limits_of(batch_pb2.SubmitBatchRequest.DESCRIPTOR).num_bytes == MOST_BYTES


def test_largest_requests_fit() -> None:
    """Bodies that a contract allows are let in, also with each letter escaped and each value on a line of its own."""
    url = "https://" + "\x01," * 996
    request = webhook_pb2.CreateWebhookRequest(
        url=url, events=[webhook_pb2.WEBHOOK_EVENT_OPERATION_FAILED] * 16, request_id="a" * 36
    )
    boxes = [dub_pb2.FrameBox(frame_index=number, box={"left": 0.25, "top": 0.5, "width": 0.125}) for number in range(10_000)]
    for message in (request, gateway_pb2.CreateDubRequest(dub={"boxes": boxes})):
        body = json.dumps(json_format.MessageToDict(message), indent=4).encode()
        limits = limits_of(message.DESCRIPTOR)
        assert len(body) <= limits.num_bytes
        check_values(body, limits)


@pytest.mark.parametrize("item", [b"{},", b"[],", b"1,", b"[", b'{"a":'])
def test_many_values_are_refused(item: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="200000"):
        check_values(item * (MOST_VALUES + 1), limits_of(batch_pb2.SubmitBatchRequest.DESCRIPTOR))


def test_long_list_is_named() -> None:
    """A list that is too long is refused by its path, before messages are made of its items."""
    given: dict[str, Any] = {"dub": {"lines": [{}, {"boxes": [{}] * 10_001}]}}
    with pytest.raises(InvalidRequestError, match="10001 items, and there may be 10000") as caught:
        check_items(given, gateway_pb2.EstimateDubRequest.DESCRIPTOR)
    assert caught.value.field == "dub.lines.boxes"
    check_items({"dub": {"lines": "wrong", "boxes": {}}}, gateway_pb2.EstimateDubRequest.DESCRIPTOR)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"[" * 1500 + b"]" * 1500, "levels of brackets"),
        (b'{"a":' * 1500 + b"1" + b"}" * 1500, "levels of brackets"),
        (b"\xff", "not JSON"),
        (b"", "not JSON"),
        (b'{"a": 1} x', "not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[1]", "not a JSON object"),
    ],
    ids=["brackets", "objects", "bytes", "empty", "more", "digits", "list"],
)
def test_text_without_object_is_refused(text: bytes, problem: str) -> None:
    with pytest.raises(InvalidRequestError, match=problem) as caught:
        json_object(text, "body")
    assert caught.value.field == "body"
