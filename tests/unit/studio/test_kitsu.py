"""Comments for Kitsu, and mistakes of `dubstage batch kitsu`. tests/contract/kitsu posts to Kitsu's own server."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from gateway.batch.reviews import Decision, ReviewState, Verdict, decision_of
from gateway.batch.types import ShotRecord
from gateway.cli.app import run
from gateway.studio.kitsu import STATUSES, BatchShot, keys_of, notes_of
from tests.unit.batch.rows import changed_shot, shot_of_row
from tests.unit.cli.batch.records import done, failed

SPEC = shot_of_row(id="s1", footage="plate.mp4", output="out.mp4")


def decided(record: ShotRecord, state: ReviewState, note: str = "") -> Decision:
    return decision_of(record, Verdict(state=state, note=note), now="2026-11-21T21:00:00.000Z")


def test_comments_in_order_of_time() -> None:
    """Decisions about an earlier video come before the present video, so that the last comment has the present status."""
    old, new = (done(1, output_sha256=digest * 64) for digest in "ab")
    decisions = [decided(old, ReviewState.REJECTED, "late"), decided(new, ReviewState.APPROVED)]
    notes = notes_of("night", BatchShot(SPEC, new, decisions), STATUSES)
    assert [one.text for one in notes] == ["rejected: late", "90 of 100 frames dubbed", "approved"]


def test_marks_belong_to_videos() -> None:
    """A mark is the same in every run, and another for another video, shot or batch."""
    video = done(1, output_sha256="a" * 64)
    same = [("night", video), ("night", video.model_copy(update={"attempts": 2}))]
    others = [("night", done(1, output_sha256="b" * 64)), ("night", done(2, output_sha256="a" * 64)), ("day", video)]
    marks = [notes_of(name, BatchShot(SPEC, record, ()), STATUSES)[0].mark for name, record in same + others]
    assert marks[0] == marks[1]
    assert len(set(marks)) == 4


def test_states_without_status_are_silent() -> None:
    for record in (ShotRecord(id="s1"), failed(1), done(1, state="running")):
        assert notes_of("night", BatchShot(SPEC, record, ()), STATUSES) == []


@pytest.mark.parametrize(
    ("row", "keys"),
    [
        ("SC010_SH020", ["sc010-sh020"]),
        ("0012_sc010-sh020_pt-BR", ["0012-sc010-sh020-pt-br", "sc010-sh020-pt-br", "0012-sc010-sh020", "sc010-sh020"]),
    ],
)
def test_names_of_a_row(row: str, keys: list[str]) -> None:
    assert keys_of(changed_shot(SPEC, id=row, language="pt-BR")) == keys


def test_mistakes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each mistake is one sentence. A server that is down may answer later."""
    monkeypatch.setenv("DUBSTAGE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("DUBSTAGE_ARTEFACTS_URL", str(tmp_path / "artefacts"))
    (tmp_path / "plate.mp4").write_bytes(b"no video")
    (tmp_path / "night.jsonl").write_text(json.dumps({"id": "s1", "footage": "plate.mp4", "output": "out.mp4"}))
    assert run(["batch", "submit", str(tmp_path / "night.jsonl"), "--engine", "farm"]) == 0
    capsys.readouterr()

    def post(url: str, *options: str) -> tuple[int, str]:
        code = run(["batch", "kitsu", "night", "--url", url, "--project", "Night", *options])
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1, shown
        return code, shown

    for token in ("", "two words"):
        monkeypatch.setenv("DUBSTAGE_KITSU_TOKEN", token)
        assert post("http://127.0.0.1:9") == (10, "error: DUBSTAGE_KITSU_TOKEN must hold an access token of Kitsu\n")
    monkeypatch.setenv("DUBSTAGE_KITSU_TOKEN", "a.b.c")
    code, shown = post("http://127.0.0.1:9")
    assert code == 20
    assert "Kitsu at http://127.0.0.1:9 does not answer" in shown
    for url in ("kitsu.example.com", "ftp://kitsu.example.com/api", "http://[/api"):
        code, shown = post(url)
        assert code == 10
        assert f"--url {url} does not answer as Kitsu's API" in shown
    for wrong in ("seen=wfa", "done", "done="):
        code, shown = post("http://127.0.0.1:9", "--status", wrong)
        assert code == 10
        assert f"--status {wrong!r}: give STATE=SHORT-NAME" in shown
    monkeypatch.setitem(sys.modules, "gazu", None)
    assert "pip install 'dubstage-suite[kitsu]'" in post("http://127.0.0.1:9")[1]
