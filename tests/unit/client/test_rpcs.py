"""The table of RPCs against the contracts' descriptors, and the typed calls against the table."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from dubstage.client import audio, batch, face, files, gateway, motion, operations, render, rpcs, texture, webhook
from dubstage.client.calls import Call, DownloadCall, PagedCall, StreamCall, UnaryCall, UploadCall
from dubstage.client.operations import OperationCall
from dubstage.client.rpcs import Download, Rpc, Stream, Unary, Upload
from tests.contracts import CONTRACTS

MODULES = (audio, face, motion, texture, render, gateway, batch, files, webhook, operations)
KINDS: dict[tuple[bool, bool], type[Rpc[Any, Any]]] = {
    (False, False): Unary,
    (True, False): Upload,
    (False, True): Download,
    (True, True): Stream,
}
"""By whether the client streams, and whether the server streams."""
CALLS: dict[type[Rpc[Any, Any]], tuple[type[Call], ...]] = {
    Unary: (UnaryCall, PagedCall, OperationCall),
    Upload: (UploadCall,),
    Download: (DownloadCall,),
    Stream: (StreamCall,),
}


def declared(contract: ModuleType) -> list[tuple[str, ...]]:
    services = contract.DESCRIPTOR.services_by_name.values()
    return [
        (
            KINDS[method.client_streaming, method.server_streaming].__name__,
            service.full_name,
            method.name,
            method.input_type.full_name,
            method.output_type.full_name,
        )
        for service in services
        for method in service.methods
    ]


def test_the_table_is_what_the_contracts_declare() -> None:
    table = [
        (type(rpc).__name__, rpc.service, rpc.method, rpc.request.DESCRIPTOR.full_name, rpc.response.DESCRIPTOR.full_name)
        for rpc in rpcs.ALL
    ]
    assert sorted(table) == sorted(row for contract in CONTRACTS for row in declared(contract))


def test_constants_are_named_like_their_methods() -> None:
    for module in (rpcs.audio, rpcs.face, rpcs.motion, rpcs.texture, rpcs.render, rpcs.gateway, rpcs.operations):
        for name, rpc in vars(module).items():
            if isinstance(rpc, Rpc):
                assert name.replace("_", "").lower() == rpc.method.lower()


def test_every_rpc_has_typed_call() -> None:
    """Every RPC has a typed call of its kind."""
    calls = {id(call): call for module in MODULES for call in vars(module).values() if isinstance(call, Call)}.values()
    assert {call.rpc for call in calls} == set(rpcs.ALL), "an RPC without a typed call"
    assert len({call.rpc for call in calls}) == len(calls), "two typed calls of one RPC"
    for call in calls:
        assert isinstance(call, CALLS[type(call.rpc)])


def test_every_typed_call_has_a_docstring() -> None:
    for module in MODULES:
        for name, call in vars(module).items():
            if isinstance(call, Call):
                assert (call.__doc__ or "").split(" ")[0] in {"Return", "Yield", "Begin", "Ask", "Make", "Erase"}, name


def test_a_path_is_the_one_that_grpc_sends() -> None:
    assert rpcs.motion.ENCODE_STYLE.path == "/dubstage.motion.v1.MotionService/EncodeStyle"


def test_an_rpc_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        rpcs.motion.ENCODE_STYLE.method = "Other"  # type: ignore[misc]
