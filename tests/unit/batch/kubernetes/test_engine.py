"""Files that pods could not open are told before a batch is sent."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.batch.kubernetes.engine import check_reach
from gateway.batch.kubernetes.settings import JobSettings
from gateway.batch.types import ShotSpec
from services.common.errors import InvalidRequestError
from tests.unit.batch.rows import shot_of_row

STORE = "s3://videos/batches"


def settings(**changed: Any) -> JobSettings:
    return JobSettings.model_validate(
        {"image": "i", "service_account": "s", "batches_url": STORE, "profiles": {"cpu": {}, "gpu": {}}, **changed}
    )


def shot(**changed: Any) -> ShotSpec:
    return shot_of_row(**{"id": "sh010", "footage": "s3://plates/a.mov", "output": "s3://out/a.mov", **changed})


def test_urls_can_be_opened_anywhere() -> None:
    check_reach([shot(speech="https://example.com/de.wav")], settings(), "cpu", STORE + "/")


def test_local_file_named_by_row() -> None:
    """A file of this machine is reported by row and field."""
    with pytest.raises(
        InvalidRequestError, match=r"row 2 \(sh010\): speech: /home/me/de.wav is a file that pods cannot open.*\(1 more"
    ):
        check_reach([shot(), shot(speech="/home/me/de.wav", output="/home/me/a.mov")], settings(), "cpu", STORE)


def test_pod_volume_file_accepted() -> None:
    """A file on a volume of the pods is good."""
    mounted = settings(volume_mounts=[{"name": "plates", "mountPath": "/plates"}])
    check_reach([shot(footage="/plates/sc010/a.mov")], mounted, "cpu", STORE)
    with pytest.raises(InvalidRequestError, match="or a file below /plates"):
        check_reach([shot(footage="/plates2/a.mov")], mounted, "cpu", STORE)


def test_actors_need_the_database() -> None:
    database = {"name": "DUBSTAGE_DATABASE_URL", "value": "postgresql://db"}
    with pytest.raises(InvalidRequestError, match="the workers have no database of actors"):
        check_reach([shot(actor="ana")], settings(), "cpu", STORE)
    check_reach([shot(actor="ana")], settings(env=[database]), "cpu", STORE)
    check_reach([shot(actor="ana")], settings(profiles={"cpu": {"env": [database]}}), "cpu", STORE)


def test_folder_with_and_without_protocol() -> None:
    """A folder is the same with and without its protocol."""
    check_reach([shot()], settings(batches_url="/data/batches"), "cpu", "file:///data/batches")
