"""Decisions about shots on a real gateway: filters, order, history, retry, audit entries, events, two people at once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dubstage.client import DubstageCallError, batch, files, webhook
from dubstage.client.names import resource_id
from dubstage.gateway.v1 import batch_pb2 as pb
from dubstage.gateway.v1 import dub_pb2
from gateway.actors.store import ActorStore
from gateway.dub.request.dub_request import sha256_of
from tests.batches import open_store
from tests.integration.client_calls import batch_ended, until
from tests.integration.servers import RunningGateway
from tests.integration.test_webhooks import Receiver, receiving
from tests.integration.videos import write_short_clip

VIDEO = "reviewed.mp4"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture(scope="module")
def running(module_gateway, media, carphone, receiver) -> RunningGateway:
    """A gateway with a batch of two shots that are done and one that failed."""
    write_short_clip(carphone, media.root / VIDEO, 26, end=100)
    (media.root / "no_video.mp4").write_bytes(b"no video")
    found = module_gateway(max_batch_shots=2, webhook_networks="127.0.0.0/8")
    with found.connect() as connection:
        hook = webhook.create(connection, receiver.url(), events=["shot_reviewed"])
        receiver.secrets["/hook"] = hook.secret
        files = {"a": VIDEO, "bad": "no_video.mp4", "b": VIDEO}
        rows = [
            batch.row(name, footage=file, speech="speech.wav", output=f"reviewed_{name}.mp4", personalize=False)
            for name, file in files.items()
        ]
        ended = batch_ended(connection, "reviewed", rows)
        assert (ended.progress.num_done, ended.progress.num_failed) == (2, 1)
    return found


def listed(connection: Any, **how: Any) -> list[str]:
    return [resource_id(shot.name) for shot in batch.list_shots(connection, "reviewed", **how)]


@pytest.mark.long
def test_decisions_are_listed_kept_and_retried(running: RunningGateway, receiver: Receiver, tmp_path: Path) -> None:
    """One pass of a review: assign, approve, reject with a pinned note, list, retry the rejected shot, which is undecided then."""
    with running.connect() as connection:
        assert listed(connection, order_by="risk")[0] == "bad", "a failed shot has the highest risk"
        assert listed(connection, order_by="name") == ["a", "b", "bad"]
        assert listed(connection, order_by="risk", page_size=1) == listed(connection, order_by="risk")
        shot = batch.review(connection, "reviewed", "a", state="assigned", assignee="Ben", reviewer="Ada")
        assert (shot.review.state, shot.review.assignee, shot.review.number) == (pb.REVIEW_STATE_ASSIGNED, "Ben", 1)
        assert listed(connection, assignee="Ben") == ["a"]
        note = {"note": "<b>chin</b>", "frame": 3, "region": (0.25, 0.5, 0.5, 0.25), "output_sha256": shot.output_sha256}
        shot = batch.review(connection, "reviewed", "a", state="rejected", reviewer="Ben", **note)
        assert [one.state for one in shot.reviews] == [pb.REVIEW_STATE_ASSIGNED, pb.REVIEW_STATE_REJECTED]
        assert (shot.review.frame, shot.review.region.y, shot.review.note) == (3, 0.5, "<b>chin</b>")
        batch.review(connection, "reviewed", "b", state="approved")
        assert listed(connection, review_states=["rejected"]) == ["a"]
        assert listed(connection, review_states=["undecided"]) == ["bad"]
        progress = batch.get(connection, "reviewed").progress
        assert (progress.num_approved, progress.num_rejected, progress.num_assigned) == (1, 1, 0)
        with pytest.raises(DubstageCallError, match="another video"):
            batch.review(connection, "reviewed", "b", state="approved", output_sha256="0" * 64)
        until(lambda: sum(receiver.arrived.values()) == 3)
        (event,) = [body for body in receiver.bodies.values() if body["data"]["name"].endswith("/b")]
        assert (event["type"], event["data"]["review"]["state"]) == ("shot.reviewed", "REVIEW_STATE_APPROVED")
        before = shot.output_sha256
        batch.retry(connection, "reviewed", rejected=True)
        ended = batch_ended(connection, "reviewed")
        assert (ended.progress.num_rejected, ended.progress.num_failed) == (0, 1), "the failed shot was not named"
        again = batch.get_shot(connection, "reviewed", "a")
        assert again.output_sha256 not in ("", before)
        assert (again.HasField("review"), len(again.reviews)) == (False, 2)
        batch.retry(connection, "reviewed", rejected=True)
        assert batch.get(connection, "reviewed").progress.num_waiting == 0, "without a rejected shot nothing begins"
    with ActorStore(running.settings, claim_artefacts=False) as actors:
        entries = [entry for entry in actors.audit.newest(100) if entry["event"] == "shot.reviewed"]
        assert actors.audit.verify()
    assert [entry["details"]["state"] for entry in entries] == ["assigned", "rejected", "approved"]
    assert all("Ben" not in str(entry) and "chin" not in str(entry) for entry in entries)
    two_people_at_once_lose_nothing(running)
    one_shot_is_dubbed_with_other_options(running, tmp_path)


def one_shot_is_dubbed_with_other_options(running: RunningGateway, folder: Path) -> None:
    """A shot is dubbed again with other options: another video, undecided, and the options are told, logged, and stay."""
    with running.connect() as connection:
        before = batch.review(connection, "reviewed", "b", state="rejected")
        assert (before.options.expressiveness, before.options.fit, before.options.skip_personalization) == (
            1.0,
            dub_pb2.FIT_CUT,
            True,
        )
        with pytest.raises(DubstageCallError, match="expression") as caught:
            batch.retry(connection, "reviewed", shot_ids=["b"], options=batch.shot_options(fit="loop", expression="keep", seed=5))
        assert [field for field, _ in caught.value.violations] == ["options.expression"]
        with pytest.raises(DubstageCallError, match="name the one shot that takes them, not 2"):
            batch.retry(connection, "reviewed", shot_ids=["a", "b"], options=batch.shot_options(seed=5))
        assert batch.get_shot(connection, "reviewed", "b") == before, "a refused retry changes nothing"
        batch.retry(connection, "reviewed", shot_ids=["b"], options=batch.shot_options(expressiveness=0.5, face="0"))
        assert batch_ended(connection, "reviewed").progress.num_done == 2
        shot = batch.get_shot(connection, "reviewed", "b")
        assert (shot.options.expressiveness, shot.options.face_id, shot.options.skip_personalization) == (0.5, 0, True)
        assert shot.output_sha256 not in ("", before.output_sha256)
        assert (shot.HasField("review"), shot.reviews[-1]) == (False, before.review)
        assert shot.output_uri == before.output_uri
        assert (shot.earlier.output_sha256, shot.earlier.options) == (before.output_sha256, before.options)
        earlier = files.download(connection, shot.earlier.output_uri, folder / "earlier.mp4")
        assert sha256_of(earlier) == before.output_sha256
        batch.retry(connection, "reviewed", shot_ids=["b"])
        batch_ended(connection, "reviewed")
        again = batch.get_shot(connection, "reviewed", "b")
        assert (again.options, again.num_dubbed) == (shot.options, shot.num_dubbed), "options stay with the shot"
    assert open_store(running.settings.data_dir).record("reviewed", "b").options == {"expressiveness": 0.5, "face_id": 0}
    with ActorStore(running.settings, claim_artefacts=False) as actors:
        retried = [entry["details"] for entry in actors.audit.newest(100) if entry["event"] == "batch.retried"]
        assert {"shots": 1, "shot": "b", "expressiveness": "0.5", "face": "0"} in retried


def two_people_at_once_lose_nothing(running: RunningGateway) -> None:
    with running.connect() as connection, ThreadPoolExecutor(4) as threads:
        people = [f"p{number}" for number in range(12)]
        before = len(batch.get_shot(connection, "reviewed", "b").reviews)
        list(threads.map(lambda who: batch.review(connection, "reviewed", "b", state="approved", reviewer=who), people))
        shot = batch.get_shot(connection, "reviewed", "b")
        assert sorted(one.reviewer for one in shot.reviews[before:]) == sorted(people)
        assert shot.review == shot.reviews[-1]
    assert open_store(running.settings.data_dir).decisions("reviewed", "b")[-1].reviewer == shot.review.reviewer
