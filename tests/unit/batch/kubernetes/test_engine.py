"""Files that pods could not open are told before a batch is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.batch.kubernetes.engine import check_database, check_reach
from gateway.batch.kubernetes.settings import JobSettings
from gateway.batch.store import BatchStore
from gateway.batch.types import ShotSpec
from services.common.errors import InvalidRequestError
from tests.batches import open_store
from tests.unit.batch.rows import shot_of_row

DATABASE = {"name": "DUBSTAGE_DATABASE_URL", "value": "postgresql://db"}


def settings(**changed: Any) -> JobSettings:
    return JobSettings.model_validate({"image": "i", "service_account": "s", "profiles": {"cpu": {}, "gpu": {}}, **changed})


def shot(**changed: Any) -> ShotSpec:
    return shot_of_row(**{"id": "sh010", "footage": "s3://plates/a.mov", "output": "s3://out/a.mov", **changed})


def test_urls_can_be_opened_anywhere() -> None:
    check_reach([shot(speech="https://example.com/de.wav")], settings())


def test_local_file_named_by_row() -> None:
    """A file of this machine is reported by row and field."""
    with pytest.raises(
        InvalidRequestError, match=r"row 2 \(sh010\): speech: /home/me/de.wav is a file that pods cannot open.*\(1 more"
    ):
        check_reach([shot(), shot(speech="/home/me/de.wav", output="/home/me/a.mov")], settings())


def test_pod_volume_file_accepted() -> None:
    """A file on a volume of the pods is good."""
    mounted = settings(volume_mounts=[{"name": "plates", "mountPath": "/plates"}])
    check_reach([shot(footage="/plates/sc010/a.mov")], mounted)
    with pytest.raises(InvalidRequestError, match=r"or a file below /plates$"):
        check_reach([shot(footage="/plates2/a.mov")], mounted)


def test_pods_need_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch in a SQLite file, and workers without the URL of a database, are refused."""
    store = open_store(tmp_path)
    with pytest.raises(InvalidRequestError, match=r"pods cannot reach the batch in sqlite:.*set DUBSTAGE_DATABASE_URL here"):
        check_database(store, settings(env=[DATABASE]), "cpu")
    monkeypatch.setattr(BatchStore, "is_shared", True)
    with pytest.raises(InvalidRequestError, match=r"have no database: set gateway\.database"):
        check_database(store, settings(), "cpu")
    check_database(store, settings(env=[DATABASE]), "cpu")
    check_database(store, settings(profiles={"cpu": {"env": [DATABASE]}}), "cpu")
