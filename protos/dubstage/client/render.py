"""The render stage: what it can render with."""

from __future__ import annotations

from dubstage.client.connection import Connection
from dubstage.render.v1alpha1 import render_pb2, render_pb2_grpc


def list_models(connection: Connection) -> list[render_pb2.Model]:
    """The renderers that are loaded, with their backend and digest.

    Raises:
        DubstageCallError: the call failed.
    """
    stub = render_pb2_grpc.RenderServiceStub(connection.channel)
    reply: render_pb2.ListModelsResponse = connection.unary(stub.ListModels, render_pb2.ListModelsRequest())
    return list(reply.models)
