"""Options of a retry, and the audit events of changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from dubstage.gateway.v1.dub_pb2 import ShotOptions
from gateway.audit.entries import EventKind
from gateway.batch.changes import batch_event, begin_anew, check_options
from gateway.batch.store import BatchStore
from gateway.batch.types import ShotRecord, ShotState, manifest_of
from gateway.dub.request.spec_text import options_from
from services.common.errors import BatchNotFoundError, InvalidRequestError
from tests.batches import open_store
from tests.unit.batch.rows import shot_of_row

REFUSED = [
    ([], {"seed": 1}, "options", "name the one shot that takes them, not all"),
    (["done", "waits"], {"seed": 1}, "options", "not 2"),
    (["done"], {"method": "unheard"}, "options.method", "unheard"),
    (["done"], {"fit": "loop", "expression": "keep"}, "options.expression", "expression"),
    (["scene"], {"face": "1"}, "options.face", "face"),
    (["waits"], {"seed": 1}, "id", "shot waits is waiting: wait until it has ended"),
]


@pytest.fixture
def night(tmp_path: Path) -> BatchStore:
    """A batch of a shot that is done, a shot that waits, and a scene that is done."""
    store = open_store(tmp_path)
    lines = [{"start": 0, "speech": "/a.wav", "face": 0}]
    scene = shot_of_row(id="scene", footage="/plate.mp4", output="/scene.mp4", lines=lines)
    plain = [shot_of_row(id=name, footage="/plate.mp4", output=f"/{name}.mp4", expressiveness=0.8) for name in ("done", "waits")]
    store.create(manifest_of("night", [*plain, scene]), "gateway")
    for name in ("done", "scene"):
        store.put("night", ShotRecord(id=name, state=ShotState.DONE))
    return store


@pytest.mark.parametrize(("ids", "options", "field", "said"), REFUSED)
def test_wrong_options_are_refused(night: BatchStore, ids: list[str], options: dict[str, object], field: str, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said) as caught:
        check_options(night, "night", ids, options_from(options), lambda shot, _: shot.dub.method or "dubstage")
    assert caught.value.field == field
    assert night.options("night", "done") == {}


@pytest.mark.parametrize(
    ("row", "field", "said"),
    [
        ({"output": "/x.mp4"}, "output", "cannot be changed in a batch; these options can: method, face"),
        ({"sparkle": 1}, "sparkle", "cannot be changed"),
        ({"expressiveness": 9, "sparkle": 1}, "sparkle", "cannot be changed"),
        ({"expressiveness": 9}, "expressiveness", "takes less than or equal to 1.5, not 9"),
        ({"expressiveness": "1"}, "expressiveness", 'takes a valid number, not "1"'),
        ({"face": "left"}, "face", "left"),
    ],
)
def test_words_of_other_options_are_refused(row: dict[str, object], field: str, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said) as caught:
        options_from(row)
    assert caught.value.field == f"options.{field}"


def test_options_of_a_redo(night: BatchStore, tmp_path: Path) -> None:
    """A shot, and a scene, begin anew with other options, which the audit log names."""
    for name, options in {"done": {"expressiveness": 1.2, "expression": None}, "scene": {"seed": 4}}.items():
        changed = options_from(options)
        check_options(night, "night", [name], changed, lambda shot, _: shot.dub.method or "dubstage")
        assert begin_anew(night, "night", [name], changed) == [name]
        assert night.record("night", name) == ShotRecord(id=name)
    assert (night.shot("night", 0).dub.expressiveness, night.shot("night", 2).dub.seed) == (1.2, 4)
    event = batch_event(EventKind.BATCH_RETRIED, "night", ["done"], options=ShotOptions(expressiveness=1.2, seed=4))
    assert event.details == {"shots": 1, "shot": "done", "expressiveness": "1.2", "seed": "4"}
    with pytest.raises(BatchNotFoundError, match="no shot 'none'"):
        check_options(night, "night", ["none"], ShotOptions(seed=4), lambda shot, _: shot.dub.method or "dubstage")
