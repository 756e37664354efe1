"""RPCs of the gateway: actors, dubs and live streams."""

from __future__ import annotations

from typing import Final

from google.longrunning import operations_pb2

from dubstage.client.rpcs.kinds import Stream, Unary
from dubstage.gateway.v1alpha1 import gateway_pb2 as pb

_ACTORS: Final = "dubstage.gateway.v1alpha1.ActorService"
_DUBS: Final = "dubstage.gateway.v1alpha1.DubService"

CREATE_ACTOR: Final = Unary(_ACTORS, "CreateActor", pb.CreateActorRequest, operations_pb2.Operation)
GET_ACTOR: Final = Unary(_ACTORS, "GetActor", pb.GetActorRequest, pb.GetActorResponse)
LIST_ACTORS: Final = Unary(_ACTORS, "ListActors", pb.ListActorsRequest, pb.ListActorsResponse)
ERASE_ACTOR: Final = Unary(_ACTORS, "EraseActor", pb.EraseActorRequest, pb.EraseActorResponse)
CREATE_DUB: Final = Unary(_DUBS, "CreateDub", pb.CreateDubRequest, operations_pb2.Operation)
LIVE: Final = Stream(_DUBS, "Live", pb.LiveRequest, pb.LiveResponse)
