"""RPCs of google.longrunning.Operations, which the gateway serves."""

from __future__ import annotations

from typing import Final

from google.longrunning import operations_pb2 as pb
from google.protobuf.empty_pb2 import Empty

from dubstage.client.rpcs.kinds import Unary

_SERVICE: Final = "google.longrunning.Operations"

LIST_OPERATIONS: Final = Unary(_SERVICE, "ListOperations", pb.ListOperationsRequest, pb.ListOperationsResponse)
GET_OPERATION: Final = Unary(_SERVICE, "GetOperation", pb.GetOperationRequest, pb.Operation)
DELETE_OPERATION: Final = Unary(_SERVICE, "DeleteOperation", pb.DeleteOperationRequest, Empty)
CANCEL_OPERATION: Final = Unary(_SERVICE, "CancelOperation", pb.CancelOperationRequest, Empty)
WAIT_OPERATION: Final = Unary(_SERVICE, "WaitOperation", pb.WaitOperationRequest, pb.Operation)
