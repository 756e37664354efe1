"""The RPC surface: mutated requests of every method, and how an answer is judged."""

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import Any

import grpc
from google.longrunning import operations_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from dubstage.gateway.v1 import batch_pb2, gateway_pb2, media_pb2
from tests.hostile.bases import Rpc
from tests.hostile.case import ANSWERED, DEFAULT_LIMIT_S, Case, Fault, Outcome
from tests.hostile.machine import MACHINE
from tests.hostile.mutate import mutate, not_finite
from tests.hostile.world import World

_ASKED_AGAIN = 15
TIMEOUT_S = DEFAULT_LIMIT_S - 15.0
"""Deadline of a call on a free machine. A stage that bounds its work by what it checked ends long before."""
COSTLY = {
    "face.FitIdentity": 0.25,
    "motion.Personalize": 0.2,
    "render.Personalize": 0.15,
    "motion.EstimateLag": 0.5,
    "gateway.Live": 0.5,
}
"""Methods whose valid requests take long come less often; the others have weight 1."""
UNCALLED = frozenset({"Health.Watch"})
"""Streams without an end, by their contract."""
GRPCS_OWN = frozenset({"CANCELLED", "UNIMPLEMENTED"})
"""Codes that gRPC itself answers with, without details."""
OUR_BUGS = frozenset({"UNEXPECTED", "CONTRACT_BROKEN"})
"""Reasons that no hostile caller may bring about."""
GRPCS_SERVICES = ("/grpc.health.", "/grpc.reflection.")
"""Their servicers come with gRPC and know no ErrorInfo."""
CANCEL_BATCH = "/dubstage.gateway.v1.BatchService/CancelBatch"
PLACES = (str(__file__).rpartition("/tests/")[0] + "/", "/site-packages/")
"""Text of the server's own files: in no answer."""
_numbers = itertools.count()
Changed = Callable[[list[Message]], None]


def send(
    world: World,
    rpc: Rpc,
    data: Sequence[bytes],
    *,
    channel: grpc.Channel | None = None,
    timeout_s: float = TIMEOUT_S,
    metadata: Sequence[tuple[str, str]] = (),
) -> Outcome:
    """Call a method with requests as bytes; the outcome has faults of the answer itself."""
    method = rpc.callable(channel or world.channel(rpc.server))
    sent: Any = iter(data) if rpc.requests_stream else (data[0] if data else b"")
    answers: list[Message] = []
    try:
        answer = method(sent, timeout=MACHINE.bound(timeout_s), metadata=tuple(metadata))
        answers = [answer] if not rpc.responses_stream else answers_of(answer)
    except grpc.RpcError as error:
        return judged(world, error, b"".join(data), rpc)
    finally:
        _settle(world, answers)
    faults = tuple(Fault("not finite", found) for found in {not_finite(answer) for answer in answers} if found)
    return Outcome("OK", f"{len(answers)} answers", faults)


def answers_of(answer: Iterator[Message]) -> list[Message]:
    """All answers of a stream; of more than a thousand, the first and the last."""
    kept: list[Message] = []
    for count, message in enumerate(answer):
        if count < 1000:
            kept.append(message)
        else:
            kept[-1] = message
    return kept


def judged(world: World, error: grpc.RpcError, sent: bytes = b"", rpc: Rpc | None = None) -> Outcome:
    """The outcome of a call that failed: its code, and what is wrong with how it failed."""
    code, said = error.code().name, error.details() or ""
    faults = [
        Fault("path", f"{place} in: {said[:300]}") for place in own_places(world) if place in said and place.encode() not in sent
    ]
    if code == "DEADLINE_EXCEEDED":
        return Outcome(code, said, (Fault("hang", said[:200]), *faults))
    if code == "UNAVAILABLE" and not world.servers.alive:
        return Outcome(code, said, (Fault("crash", f"the servers ended with {world.servers.exit_code}"),))
    reason, field = reason_of(error)
    tells = reason or code in GRPCS_OWN or (code == "RESOURCE_EXHAUSTED" and "larger than max" in said)
    if not tells and not (rpc is not None and rpc.name.startswith(GRPCS_SERVICES) and code in ("NOT_FOUND", "INVALID_ARGUMENT")):
        faults.append(Fault("unnamed", f"{code} without an ErrorInfo: {said[:300]}"))
    if reason in OUR_BUGS:
        faults.append(Fault("unnamed", f"{reason}: {said[:300]}"))
    return Outcome(code, f"{reason} {field} {said}", tuple(faults))


def reason_of(error: grpc.RpcError) -> tuple[str, str]:
    """The ErrorInfo's reason of dubstage's errors and the field that is named; empty where there is none."""
    try:
        status = rpc_status.from_call(error)
    except ValueError:
        return "", ""
    return told_by(status.details) if status is not None else ("", "")


def told_by(details: Iterable[Any]) -> tuple[str, str]:
    """Reason and field of a google.rpc.Status."""
    info, wrong = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    reason = field = ""
    for detail in details:
        if detail.Unpack(info):
            reason = str(info.reason)
        elif detail.Unpack(wrong):
            field = ", ".join(violation.field for violation in wrong.field_violations)
    return reason, field


def own_places(world: World) -> tuple[str, ...]:
    """Texts of the server's own files, which no answer holds."""
    return (*PLACES, str(world.folder))


def _settle(world: World, answers: Sequence[Message]) -> None:
    """Cancel what a case began, so that the next one finds a gateway with nothing to do."""
    for answer in answers:
        if isinstance(answer, operations_pb2.Operation) and answer.name and not answer.done:
            world.settle(answer.name)
        batch = answer.batch if isinstance(answer, batch_pb2.SubmitBatchResponse) else answer
        if isinstance(batch, batch_pb2.Batch) and batch.name:
            world.call("gateway", CANCEL_BATCH, [batch_pb2.CancelBatchRequest(name=batch.name)])


def rpc_case(rng: Random, rpcs: Sequence[str]) -> Case:
    """A mutated request of one of the methods."""
    names = [name for name in rpcs if name not in UNCALLED]
    name = rng.choices(names, [COSTLY.get(name, 1.0) for name in names])[0]
    seed = rng.getrandbits(64)

    def act(world: World) -> Outcome:
        own = Random(seed)
        return send(world, world.rpcs[name], mutate(own.choice(world.bases[name]), own, before=own_names).data)

    return Case("rpc", f"{name} seed {seed}", act, allowed=allowed_of(name))


def allowed_of(name: str) -> frozenset[str]:
    """Codes with which a mutated request may end."""
    return ANSWERED | {"UNIMPLEMENTED"} if name == "ServerReflection.ServerReflectionInfo" else ANSWERED


def own_names(messages: Sequence[Message]) -> None:
    """Give what a request would make a name of its own: cases that run at once make different things."""
    for message in messages:
        if isinstance(message, gateway_pb2.CreateDubRequest):
            message.dub.output_uri = f"case-dub-{next(_numbers)}.mp4"
        elif isinstance(message, gateway_pb2.CreateActorRequest):
            message.actor_id = f"new-{next(_numbers)}"
        elif isinstance(message, batch_pb2.SubmitBatchRequest):
            message.batch_id = f"batch-{next(_numbers)}"
        elif isinstance(message, media_pb2.UploadFileRequest) and message.name:
            message.name = f"uploads/case-{next(_numbers)}.bin"


def changed(world: World, name: str, change: Changed, base: int = 0) -> list[bytes]:
    """The bytes of a valid stream after a change to copies of its messages."""
    messages = [type(message).FromString(message.SerializeToString()) for message in world.bases[name][base]]
    own_names(messages)
    change(messages)
    return [message.SerializeToString() for message in messages]


def changed_case(
    name: str, what: str, change: Changed, allowed: frozenset[str], *, base: int = 0, says: tuple[str, ...] = ()
) -> Case:
    """A named case: a valid stream with one change. Cases run side by side: a busy server is asked again, as it says."""

    def act(world: World) -> Outcome:
        for _ in range(_ASKED_AGAIN):
            outcome = send(world, world.rpcs[name], changed(world, name, change, base))
            if outcome.code in allowed or not outcome.said.startswith("OVERLOADED"):
                break
            time.sleep(1.0)
        return outcome

    return Case("rpc", f"{name}: {what}", act, allowed=allowed, says=says)


def at_once(world: World, name: str, streams: Sequence[Sequence[bytes]], channels: Sequence[grpc.Channel]) -> list[Outcome]:
    """Several calls at once, each on a channel of its own."""
    outcomes: list[Outcome] = []

    def one(data: Sequence[bytes], channel: grpc.Channel) -> None:
        outcomes.append(send(world, world.rpcs[name], data, channel=channel))

    threads = [threading.Thread(target=one, args=pair) for pair in zip(streams, channels, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes
