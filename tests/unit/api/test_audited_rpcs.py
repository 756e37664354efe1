"""Every RPC of the gateway is classified: what it leaves in the audit log, or that it only reads."""

from __future__ import annotations

from google.longrunning import operations_pb2

from dubstage.gateway.v1alpha1 import batch_pb2, gateway_pb2
from gateway.audit.entry import Event

READS = {
    "ActorService.GetActor",
    "ActorService.ListActors",
    "BatchService.GetBatch",
    "BatchService.ListBatches",
    "BatchService.ListShots",
    "BatchService.WatchBatch",
    "BatchService.GetReport",
    "Operations.ListOperations",
    "Operations.GetOperation",
    "Operations.WaitOperation",
}
LEAVES = {
    "ActorService.CreateActor": {
        Event.ENROLMENT_BEGUN,
        Event.ACTOR_CREATED,
        Event.ENROLMENT_FAILED,
        Event.ENROLMENT_CANCELLED,
    },
    "ActorService.EraseActor": {Event.ACTOR_ERASED},
    "ActorService.RevokeConsent": {Event.CONSENT_WITHDRAWN},
    "DubService.CreateDub": {Event.DUB_BEGUN, Event.DUB_ENDED, Event.DUB_FAILED, Event.DUB_CANCELLED},
    "DubService.Live": {Event.LIVE_BEGUN, Event.LIVE_ENDED, Event.LIVE_FAILED, Event.LIVE_CANCELLED},
    "BatchService.SubmitBatch": {Event.BATCH_SUBMITTED},
    "BatchService.CancelBatch": {Event.BATCH_CANCELLED},
    "BatchService.RetryBatch": {Event.BATCH_RETRIED},
    "BatchService.DeleteBatch": {Event.BATCH_REMOVED},
    "Operations.CancelOperation": {Event.OPERATION_CANCELLED},
    "Operations.DeleteOperation": {Event.OPERATION_REMOVED},
}
"""`tests/integration/test_audit.py` calls each of these RPCs, and looks for the first entry that each leaves."""
OF_COMMANDS = {Event.BACKUP_WRITTEN, Event.BACKUP_RESTORED, Event.SETTINGS}


def test_every_rpc_of_the_contracts_is_classified() -> None:
    services = [
        *gateway_pb2.DESCRIPTOR.services_by_name.values(),
        *batch_pb2.DESCRIPTOR.services_by_name.values(),
        *operations_pb2.DESCRIPTOR.services_by_name.values(),
    ]
    rpcs = {f"{service.name}.{method.name}" for service in services for method in service.methods}
    assert rpcs == READS | LEAVES.keys()
    assert not READS & LEAVES.keys()


def test_every_event_has_its_rpc_or_command() -> None:
    assert set(Event) == OF_COMMANDS.union(*LEAVES.values())
