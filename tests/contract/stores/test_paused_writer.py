"""A process that pauses inside a transaction keeps the other processes from the rows no longer than a while."""

import time
from pathlib import Path

import pytest
from sqlalchemy import update

from gateway.database import session as database_session
from gateway.database.session import Database
from gateway.operations.leases import OperationQueue
from gateway.operations.store import LeaseRow, OperationStore
from services.common.errors import BackendUnavailableError


def test_paused_gateways_lease_is_taken(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_session, "PAUSED_S", 1)
    paused, other = Database(postgres_url, tmp_path), Database(postgres_url, tmp_path)
    try:
        OperationStore(paused)
        first, second = OperationQueue(paused, lease_s=0.1), OperationQueue(other, lease_s=600.0)
        new = first.submit("work", b"", actor_id="", output="", busy=(), free=1, most_waiting=1)
        taken: list[int] = []

        def pause_while_renewing() -> None:
            with paused.writing() as session:
                database_session.wait_in_transaction(session.connection(), database_session.QUEUE)
                session.execute(update(LeaseRow).values(begun=True))
                deadline = time.monotonic() + 60
                while not taken:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                    taken.extend(one.record.number for one in second.take(1, busy=())[0])

        with pytest.raises(BackendUnavailableError):
            pause_while_renewing()
        assert taken == [new.record.number]
        # The lock of submissions is free too, and the paused process finds that the operation is another's.
        second.submit("work", b"", actor_id="", output="", busy={new.record.number}, free=0, most_waiting=1)
        assert first.renew({new.record.number}, {}) == {}
    finally:
        paused.close()
        other.close()
