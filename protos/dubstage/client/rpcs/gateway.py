"""RPCs of the gateway: actors, dubs, live streams and batches."""

from __future__ import annotations

from typing import Final

from google.longrunning import operations_pb2

from dubstage.client.rpcs.kinds import Download, Stream, Unary
from dubstage.gateway.v1alpha1 import batch_pb2 as batches
from dubstage.gateway.v1alpha1 import gateway_pb2 as pb

_ACTORS: Final = "dubstage.gateway.v1alpha1.ActorService"
_DUBS: Final = "dubstage.gateway.v1alpha1.DubService"
_BATCHES: Final = "dubstage.gateway.v1alpha1.BatchService"

CREATE_ACTOR: Final = Unary(_ACTORS, "CreateActor", pb.CreateActorRequest, operations_pb2.Operation)
GET_ACTOR: Final = Unary(_ACTORS, "GetActor", pb.GetActorRequest, pb.GetActorResponse)
LIST_ACTORS: Final = Unary(_ACTORS, "ListActors", pb.ListActorsRequest, pb.ListActorsResponse)
ERASE_ACTOR: Final = Unary(_ACTORS, "EraseActor", pb.EraseActorRequest, pb.EraseActorResponse)
REVOKE_CONSENT: Final = Unary(_ACTORS, "RevokeConsent", pb.RevokeConsentRequest, pb.RevokeConsentResponse)
CREATE_DUB: Final = Unary(_DUBS, "CreateDub", pb.CreateDubRequest, operations_pb2.Operation)
LIVE: Final = Stream(_DUBS, "Live", pb.LiveRequest, pb.LiveResponse)
SUBMIT_BATCH: Final = Unary(_BATCHES, "SubmitBatch", batches.SubmitBatchRequest, batches.SubmitBatchResponse)
GET_BATCH: Final = Unary(_BATCHES, "GetBatch", batches.GetBatchRequest, batches.GetBatchResponse)
LIST_BATCHES: Final = Unary(_BATCHES, "ListBatches", batches.ListBatchesRequest, batches.ListBatchesResponse)
LIST_SHOTS: Final = Unary(_BATCHES, "ListShots", batches.ListShotsRequest, batches.ListShotsResponse)
WATCH_BATCH: Final = Download(_BATCHES, "WatchBatch", batches.WatchBatchRequest, batches.WatchBatchResponse)
CANCEL_BATCH: Final = Unary(_BATCHES, "CancelBatch", batches.CancelBatchRequest, batches.CancelBatchResponse)
RETRY_BATCH: Final = Unary(_BATCHES, "RetryBatch", batches.RetryBatchRequest, batches.RetryBatchResponse)
DELETE_BATCH: Final = Unary(_BATCHES, "DeleteBatch", batches.DeleteBatchRequest, batches.DeleteBatchResponse)
GET_REPORT: Final = Download(_BATCHES, "GetReport", batches.GetReportRequest, batches.GetReportResponse)
