"""Comments for Kitsu, and mistakes of `dubstage batch kitsu`. tests/contract/kitsu posts to Kitsu's own server."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gazu
import pytest

from gateway.batch.reviews import Decision, ReviewState, Verdict, decision_of
from gateway.batch.types import ShotRecord
from gateway.cli.app import run
from gateway.studio.kitsu import STATUSES, BatchShot, KitsuTarget, keys_of, notes_of, post_batch
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
        assert f"url: {url} does not answer as Kitsu's API" in shown
    for wrong in ("seen=wfa", "done", "done="):
        code, shown = post("http://127.0.0.1:9", "--status", wrong)
        assert code == 10
        assert f"--status {wrong!r}: give STATE=SHORT-NAME" in shown
    monkeypatch.setitem(sys.modules, "gazu", None)
    assert "pip install 'dubstage-suite[kitsu]'" in post("http://127.0.0.1:9")[1]


class Kitsu:
    """A project with the shots SH010 of two sequences, SH020, and a canceled one, in place of gazu's calls of a server.

    The project has statuses of its own, and no task types.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.comments: dict[str, list[dict[str, Any]]] = {}
        self.tasks: list[dict[str, Any]] = []
        sequences = [{"id": "q1", "name": "SC010", "parent_id": "e1"}, {"id": "q2", "name": "SC020", "parent_id": "e1"}]
        shots = [("h1", "SH010", "q1"), ("h2", "SH010", "q2"), ("h3", "SH020", "q1"), ("h4", "SH030", "q1")]
        answers: dict[Any, dict[str, Any]] = {
            gazu.project: {"all_open_projects": [{"id": "p", "name": "Night"}]},
            gazu.shot: {
                "all_episodes_for_project": [{"id": "e1", "name": "E01", "parent_id": None}],
                "all_sequences_for_project": sequences,
                "all_shots_for_project": [
                    {"id": one, "name": name, "parent_id": parent, "canceled": one == "h4"} for one, name, parent in shots
                ],
            },
            gazu.task: {
                "all_task_statuses_for_project": [{"id": f"id of {short}", "short_name": short} for short in STATUSES.values()],
                "all_task_types_for_project": [],
                "all_task_types": [
                    {"id": "t0", "name": "Dubbing", "for_entity": "Asset"},
                    {"id": "t1", "name": "Dubbing", "for_entity": "Shot"},
                ],
            },
        }
        for module, functions in answers.items():
            for name, answer in functions.items():
                monkeypatch.setattr(module, name, lambda *_, answer=answer, client: answer)
        for name in ("all_tasks_for_task_type", "new_task", "all_comments_for_task", "add_comment", "add_preview"):
            monkeypatch.setattr(gazu.task, name, getattr(self, name))

    def all_tasks_for_task_type(self, project: Any, task_type: Any, *, client: Any) -> list[dict[str, Any]]:
        assert task_type["id"] == "t1"
        return self.tasks

    def new_task(self, shot: Any, task_type: Any, *, client: Any) -> dict[str, Any]:
        made = {"id": shot["id"], "entity_id": shot["id"], "task_status_id": "id of todo"}
        self.tasks.append(made)
        return made

    def all_comments_for_task(self, task: Any, *, client: Any) -> list[dict[str, Any]]:
        return self.comments.setdefault(task["id"], [])

    def add_comment(self, task: Any, status: dict[str, str], text: str, *, client: Any) -> dict[str, Any]:
        made: dict[str, Any] = {"text": text, "status": status["id"], "previews": []}
        self.comments[task["id"]].append(made)
        return made

    def add_preview(self, task: Any, comment: dict[str, Any], path: str, *, client: Any) -> None:
        comment["previews"].append(Path(path).read_bytes())

    def said(self) -> dict[str, list[tuple[str, str, list[bytes]]]]:
        """Status, first line and pictures of the comments of each shot."""
        return {
            shot: [(one["status"].removeprefix("id of "), one["text"].splitlines()[0], one["previews"]) for one in comments]
            for shot, comments in self.comments.items()
        }


@pytest.fixture
def kitsu(monkeypatch: pytest.MonkeyPatch) -> Kitsu:
    return Kitsu(monkeypatch)


def posted(*shots: BatchShot) -> tuple[dict[str, str], list[str]]:
    """Shots that were left out, and the shots of the new comments."""
    new: list[str] = []
    target = KitsuTarget(url="http://127.0.0.1:9/api", token="a.b.c", project="night", task_type="dubbing", statuses=STATUSES)
    left_out = post_batch(target, "night", shots, lambda row: None if row == "sc010_sh020" else row.encode(), new.append)
    return left_out, new


def shot(row: str, *decisions: Decision, **facts: Any) -> BatchShot:
    return BatchShot(replace(SPEC, id=row), done(1, id=row, **facts), decisions)


def test_comment_and_picture_once(kitsu: Kitsu) -> None:
    """A shot has the comment of its state and one picture, also if the first run ended before the picture."""
    first, second = shot("sc010_sh010", output_sha256="a" * 64), shot("sc010_sh020", output_sha256="b" * 64)
    assert posted(first, second) == ({}, ["sc010_sh010", "sc010_sh020"])
    text = "90 of 100 frames dubbed"
    assert kitsu.said() == {"h1": [("wfa", text, [b"sc010_sh010"])], "h3": [("wfa", text, [])]}
    kitsu.comments["h1"][0]["previews"].clear()
    for _ in range(2):
        assert posted(first, second) == ({}, [])
        assert kitsu.said() == {"h1": [("wfa", text, [b"sc010_sh010"])], "h3": [("wfa", text, [])]}
    assert len(kitsu.tasks) == 2


def test_decision_has_no_picture(kitsu: Kitsu) -> None:
    """A decision comes with its status and without a picture. A state without a status keeps the task's."""
    video = shot("sc010_sh010", output_sha256="a" * 64)
    rejected = decided(video.record, ReviewState.REJECTED, "late")
    assigned = decision_of(video.record, Verdict(state=ReviewState.ASSIGNED, assignee="Bob"), now="2026-11-21T22:00:00.000Z")
    assert posted(BatchShot(video.spec, video.record, [rejected, assigned])) == ({}, ["sc010_sh010"] * 3)
    assert [(status, len(previews)) for status, _, previews in kitsu.said()["h1"]] == [("wfa", 1), ("retake", 0), ("retake", 0)]


def test_names_need_one_shot(kitsu: Kitsu) -> None:
    """A name of no shot, of a canceled one or of two shots is left out, and the sequence tells two shots apart."""
    rows = ["sc099_sh010", "sc010_sh030", "sh010", "e01_sc020_sh010"]
    left_out, new = posted(*(shot(row, output_sha256="a" * 64) for row in rows))
    assert left_out == {
        "sc099_sh010": "Kitsu has no shot of this name",
        "sc010_sh030": "Kitsu has no shot of this name",
        "sh010": "Kitsu has 2 shots of this name",
    }
    assert new == ["e01_sc020_sh010"]
    assert kitsu.said().keys() == {"h2"}
