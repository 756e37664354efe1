"""Long-running operations of the gateway: begin, wait, cancel, list; blocking and for asyncio."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import update_wrapper
from typing import Final, Generic, ParamSpec, TypeVar

from google.longrunning import operations_pb2
from google.protobuf.message import Message

from dubstage.client import rpcs
from dubstage.client.aio import AsyncConnection
from dubstage.client.calls import Call, paged_call, unary_call
from dubstage.client.connection import Connection
from dubstage.client.errors import DubstageCallError, from_status
from dubstage.client.names import identified
from dubstage.client.operation_steps import OUTAGE_SECONDS, Kind, Patience, begin_steps, run, run_aio, wait_request, wait_steps
from dubstage.client.rpcs import Unary
from dubstage.gateway.v1 import gateway_pb2 as pb

P = ParamSpec("P")
Q = TypeVar("Q", bound=Message)
M = TypeVar("M", bound=Message)
G = TypeVar("G", bound=Message)


@dataclass(frozen=True, slots=True)
class OperationState:
    """An operation at one moment.

    Attributes:
        name: for `get_operation`, `cancel_operation` and `delete_operation`.
        done: whether the operation has ended.
        progress: how far the operation is.
        error: why the operation failed; None if it has not failed.
    """

    name: str
    done: bool
    progress: pb.OperationProgress
    error: DubstageCallError | None


DUB: Final = Kind(pb.DubResult, pb.OperationProgress)
FACES: Final = Kind(pb.DetectFacesResponse, pb.OperationProgress)
ENROLMENT: Final = Kind(pb.Actor, pb.OperationProgress)


class Operation(Generic[M, G]):
    """An operation of a gateway. A process that knows the name of an operation makes one by `Operation(connection, name, kind)`."""

    def __init__(self, connection: Connection, name: str, kind: Kind[M, G]) -> None:
        self.name = name
        self._connection = connection
        self._kind = kind

    def wait(
        self,
        *,
        timeout_s: float | None = None,
        on_progress: Callable[[G], None] | None = None,
        outage_s: float = OUTAGE_SECONDS,
    ) -> M:
        """Wait for the end of the operation and return its result.

        A gateway that restarts in the meantime goes on with the operation, and `wait` asks again. `wait` also asks again if the
        gateway has too many calls at once.

        Args:
            timeout_s: longest wait, seconds; None: no limit.
            on_progress: called with the progress about twice a second.
            outage_s: how long the gateway may be away or have too many calls, seconds.

        Raises:
            DubstageCallError: the operation failed or was cancelled, has not ended in the time (DEADLINE_EXCEEDED; the operation
                goes on), or the gateway was away, or had too many calls, for too long.
        """
        return run(self._connection, wait_steps(self.name, self._kind, Patience(outage_s, timeout_s), on_progress))

    def state(self) -> OperationState:
        """Return the state of the operation."""
        return get_operation(self._connection, self.name)

    def cancel(self) -> None:
        """Ask the operation to stop; `wait` then raises CANCELLED. Cancelling an ended operation changes nothing."""
        cancel_operation(self._connection, self.name)

    def delete(self) -> None:
        """Make the gateway forget the operation, which must have ended. What the operation made stays."""
        delete_operation(self._connection, self.name)


class AsyncOperation(Generic[M, G]):
    """An operation of a gateway, for asyncio: the counterpart of `Operation`."""

    def __init__(self, connection: AsyncConnection, name: str, kind: Kind[M, G]) -> None:
        self.name = name
        self._connection = connection
        self._kind = kind

    async def wait(
        self,
        *,
        timeout_s: float | None = None,
        on_progress: Callable[[G], None] | None = None,
        outage_s: float = OUTAGE_SECONDS,
    ) -> M:
        """Wait for the end of the operation and return its result; see `Operation.wait`."""
        return await run_aio(self._connection, wait_steps(self.name, self._kind, Patience(outage_s, timeout_s), on_progress))

    async def state(self) -> OperationState:
        """Return the state of the operation."""
        return await get_operation.aio(self._connection, self.name)

    async def cancel(self) -> None:
        """Ask the operation to stop; see `Operation.cancel`."""
        await cancel_operation.aio(self._connection, self.name)

    async def delete(self) -> None:
        """Make the gateway forget the operation; see `Operation.delete`."""
        await delete_operation.aio(self._connection, self.name)


class OperationCall(Call, Generic[P, Q, M, G]):
    """A call that begins an operation."""

    def __init__(self, rpc: Unary[Q, operations_pb2.Operation], build: Callable[P, Q], kind: Kind[M, G]) -> None:
        update_wrapper(self, build)
        self.rpc: Unary[Q, operations_pb2.Operation] = rpc
        self.request = build
        self._kind = kind

    def __call__(self, connection: Connection, *args: P.args, **kwargs: P.kwargs) -> Operation[M, G]:
        """Begin the operation and return it. Waits up to OUTAGE_SECONDS for a gateway that is away."""
        return self.begin(connection, self.request(*args, **kwargs))

    async def aio(self, connection: AsyncConnection, *args: P.args, **kwargs: P.kwargs) -> AsyncOperation[M, G]:
        """Begin the operation and return it. Waits up to OUTAGE_SECONDS for a gateway that is away."""
        steps = begin_steps(self.rpc, identified(self.request(*args, **kwargs)), Patience(OUTAGE_SECONDS))
        return AsyncOperation(connection, await run_aio(connection, steps), self._kind)

    def begin(self, connection: Connection, request: Q, *, outage_s: float = OUTAGE_SECONDS) -> Operation[M, G]:
        """Begin the operation of a ready-made request and return it.

        Args:
            request: such as `request(...)` makes. Without a `request_id`, the request gets one.
            outage_s: how long the gateway may be away, seconds.

        Raises:
            DubstageCallError: the request cannot be used, or the gateway is full or was away for too long.
        """
        return Operation(connection, run(connection, begin_steps(self.rpc, identified(request), Patience(outage_s))), self._kind)


def operation_call(
    rpc: Unary[Q, operations_pb2.Operation], kind: Kind[M, G]
) -> Callable[[Callable[P, Q]], OperationCall[P, Q, M, G]]:
    """Make the call that begins an operation from the function that builds its request."""
    return lambda build: OperationCall(rpc, build, kind)


def _state(operation: operations_pb2.Operation) -> OperationState:
    error = from_status(operation.error) if operation.HasField("error") else None
    return OperationState(operation.name, operation.done, _progress(operation), error)


def _states(page: operations_pb2.ListOperationsResponse) -> Iterator[OperationState]:
    return map(_state, page.operations)


def _dubs(page: pb.ListDubsResponse) -> Iterator[OperationState]:
    return map(_state, page.dubs)


def _progress(operation: operations_pb2.Operation) -> pb.OperationProgress:
    progress = pb.OperationProgress()
    operation.metadata.Unpack(progress)
    return progress


@paged_call(rpcs.operations.LIST_OPERATIONS, _states)
def list_operations(*, done: bool | None = None) -> operations_pb2.ListOperationsRequest:
    """Yield the OperationStates of all operations in the order of their submission.

    Args:
        done: only operations that have ended (True) or have not ended (False); None: all.
    """
    return operations_pb2.ListOperationsRequest(filter="" if done is None else f"done={str(done).lower()}")


@paged_call(rpcs.gateway.LIST_DUBS, _dubs)
def list_dubs(*, done: bool | None = None, newest: bool = False) -> pb.ListDubsRequest:
    """Yield the OperationStates of dubs; `progress.dub` is the dub that was asked for.

    Args:
        done: only dubs that have ended (True) or have not ended (False); None: all.
        newest: begin with the dub that was submitted last. False: begin with the first.
    """
    return pb.ListDubsRequest(done=done, order_by=pb.DUB_ORDER_NEWEST if newest else pb.DUB_ORDER_OLDEST)


@unary_call(rpcs.operations.GET_OPERATION, _state)
def get_operation(name: str) -> operations_pb2.GetOperationRequest:
    """Return the OperationState of an operation."""
    return operations_pb2.GetOperationRequest(name=name)


@unary_call(rpcs.operations.CANCEL_OPERATION, lambda reply: None)
def cancel_operation(name: str) -> operations_pb2.CancelOperationRequest:
    """Ask an operation to stop; waiting for the operation then raises CANCELLED."""
    return operations_pb2.CancelOperationRequest(name=name)


@unary_call(rpcs.operations.DELETE_OPERATION, lambda reply: None)
def delete_operation(name: str) -> operations_pb2.DeleteOperationRequest:
    """Make the gateway forget an operation that has ended. What the operation made stays."""
    return operations_pb2.DeleteOperationRequest(name=name)


@unary_call(rpcs.operations.WAIT_OPERATION, _state)
def wait_operation(name: str, longest_s: float) -> operations_pb2.WaitOperationRequest:
    """Return the OperationState of an operation when it has ended, at the latest after `longest_s` seconds.

    A gateway at which too many calls wait already returns the state at once: pause before the next call.
    """
    return wait_request(name, longest_s)
