"""`dubstage batch kitsu` against Kitsu's own API server."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gazu
import pytest
from PIL import Image

from gateway.actors.store import ActorStore
from gateway.batch.store import BatchStore
from gateway.cli.app import run
from gateway.settings import GatewaySettings
from services.common.server.settings import load_settings
from tests.batches import open_store
from tests.contract.kitsu.server import KitsuServer, running_kitsu
from tests.unit.cli.batch.records import done, failed

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def kitsu() -> Iterator[KitsuServer]:
    """The server of these tests."""
    with running_kitsu() as server:
        yield server


@pytest.fixture(scope="module")
def bot(kitsu: KitsuServer) -> dict[str, Any]:
    """A bot with the role of a manager."""
    return dict(gazu.person.new_bot("dubstage", "bot@example.com", role="manager", client=kitsu.admin))


@dataclass(frozen=True)
class Project:
    """A project with the shots SH010 and SH020 of the sequence SC010, and the batch `night`."""

    server: KitsuServer
    data: dict[str, Any]
    shots: dict[str, Any]
    store: BatchStore

    def comments(self, shot: str, task_type: str = "Dubbing") -> list[dict[str, Any]]:
        tasks = gazu.task.all_tasks_for_shot(self.shots[shot], client=self.server.admin)
        of_type = [task for task in tasks if task["task_type_name"] == task_type]
        return [one for task in of_type for one in reversed(gazu.task.all_comments_for_task(task, client=self.server.admin))]

    def said(self, shot: str, task_type: str = "Dubbing") -> list[tuple[str, str]]:
        """Return status and first line of the comments of a shot, the first one first."""
        return [(one["task_status"]["short_name"], one["text"].splitlines()[0]) for one in self.comments(shot, task_type)]

    def status(self, shot: str) -> str:
        (task,) = gazu.task.all_tasks_for_shot(self.shots[shot], client=self.server.admin)
        return str(gazu.task.get_task(task["id"], client=self.server.admin)["task_status"]["short_name"])

    def post(self, *options: str) -> int:
        return run(["batch", "kitsu", "night", "--url", self.server.url, "--project", self.data["name"], *options])

    def dubbed(self, shot: str, digest: str, **more: Any) -> None:
        self.store.put("night", done(0, id=shot, output_sha256=digest * 64, frame_rate="25", **more))
        file = io.BytesIO()
        Image.new("RGB", (64, 36), "grey").save(file, "JPEG")
        self.store.put_thumbnail("night", shot, file.getvalue())


@pytest.fixture
def project(kitsu, bot, tmp_path, monkeypatch, request) -> Project:
    """The project of a test, and a batch whose rows are two shots of the project and one other."""
    monkeypatch.setenv("DUBSTAGE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("DUBSTAGE_ARTEFACTS_URL", str(tmp_path / "artefacts"))
    monkeypatch.setenv("DUBSTAGE_KITSU_TOKEN", bot["access_token"])
    admin = kitsu.admin
    made = gazu.project.new_project(request.node.name, client=admin)
    for name in ("Dubbing", "Dubbing de"):
        found = gazu.task.get_task_type_by_name(name, client=admin)
        found = found or gazu.task.new_task_type(name, for_entity="Shot", client=admin)
        gazu.project.add_task_type(made, found, 1, client=admin)
    gazu.project.add_person_to_team(made, bot, client=admin)
    sequence = gazu.shot.new_sequence(made, "SC010", client=admin)
    shots = {one: gazu.shot.new_shot(made, sequence, one, client=admin) for one in ("SH010", "SH020")}
    (tmp_path / "plate.mp4").write_bytes(b"no video")
    ids = ("sc010_sh010", "0002_SC010-SH020_de", "sc099_sh010")
    rows = [{"id": one, "footage": "plate.mp4", "output": f"{one}.mp4", "language": "de"} for one in ids]
    (tmp_path / "night.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert run(["batch", "submit", str(tmp_path / "night.jsonl"), "--engine", "farm"]) == 0
    return Project(kitsu, made, shots, open_store(tmp_path / "data"))


def review(*options: str) -> None:
    assert run(["batch", "review", "night", *options]) == 0


def test_states_and_notes_are_posted_once(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """A second run posts nothing, and later runs post what is new. The picture is a preview of the first comment."""
    project.dubbed("sc010_sh010", "a", look=("the mouth is late",))
    project.dubbed("0002_SC010-SH020_de", "b")
    project.dubbed("sc099_sh010", "c")
    assert project.post() == 0
    shown = capsys.readouterr().err
    assert "sc099_sh010: Kitsu has no shot of this name" in shown
    assert "batch night: 2 new comments in Kitsu, for 2 of 3 shots" in shown
    assert project.said("SH010") == project.said("SH020") == [("wfa", "90 of 100 frames dubbed")]
    (comment,) = project.comments("SH010")
    assert comment["text"].splitlines()[1] == "look: the mouth is late"
    assert [(one["extension"], one["width"]) for one in comment["previews"]] == [("png", 64)]

    review("sc010_sh010", "--reject", "--by", "Ada", "--note", "the chin slips", "--frame", "33")
    review("0002_SC010-SH020_de", "--assign", "Bob")
    assert project.post() == project.post() == 0
    assert "batch night: 0 new comments in Kitsu, for 0 of 3 shots" in capsys.readouterr().err
    assert project.said("SH010")[1:] == [("retake", "rejected by Ada: the chin slips, frame 33")]
    assert project.said("SH020")[1:] == [("wfa", "assigned to Bob")]
    assert (project.status("SH010"), project.status("SH020")) == ("retake", "wfa")

    project.dubbed("sc010_sh010", "d")
    review("sc010_sh010", "--approve")
    assert project.post() == 0
    assert project.said("SH010")[2:] == [("wfa", "90 of 100 frames dubbed"), ("done", "approved")]
    assert [len(one["previews"]) for one in project.comments("SH010")] == [1, 0, 1, 0]
    with ActorStore(load_settings(GatewaySettings)) as actors:
        posted = [entry["details"]["shots"] for entry in actors.audit.newest(20) if entry["event"] == "batch.posted"]
    assert posted == [2, 2, 1]

    wip = gazu.task.get_task_status_by_short_name("wip", client=project.server.admin)
    gazu.task.add_comment(project.comments("SH010")[0]["object_id"], wip, "I look at this", client=project.server.admin)
    assert project.post() == 0
    assert project.status("SH010") == "wip", "the status that a person set stays"


def test_other_statuses_and_task_types(project: Project) -> None:
    """Statuses and task types are those that the options name. Failed shots are posted only then."""
    project.dubbed("0002_SC010-SH020_de", "b")
    project.store.put("night", failed(0).model_copy(update={"id": "sc010_sh010", "error": "no face"}))
    review("0002_SC010-SH020_de", "--approve")
    assert project.post("--task-type", "dubbing {language}", "--status", "approved=Approved") == 0
    assert project.said("SH010") == project.said("SH020") == []
    assert [status for status, _ in project.said("SH020", "Dubbing de")] == ["wfa", "approved"]
    assert project.post("--status", "failed=retake") == 0
    assert project.said("SH010") == [("retake", "failed: no face")]


def test_refused_shot_holds_back_none(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """A project may limit the retakes. Kitsu's refusal names the shot, and other shots are posted."""
    gazu.project.update_project({"id": project.data["id"], "max_retakes": 1}, client=project.server.admin)
    for digest in "ab":
        project.dubbed("sc010_sh010", digest)
        review("sc010_sh010", "--reject")
    project.dubbed("0002_SC010-SH020_de", "c")
    assert project.post() == 0
    assert "sc010_sh010: Kitsu refuses: No more retakes allowed on this task" in capsys.readouterr().err
    assert [status for status, _ in project.said("SH020")] == ["wfa"]


def test_mistakes_are_named(project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each mistake is one sentence, and nothing is posted."""
    project.dubbed("sc010_sh010", "a")
    options = {
        ("--project", "Day"): "--project: Kitsu has no open project 'Day'; there are: ",
        ("--task-type", "Paint"): "Kitsu has no task type of shots 'Paint'; there are: Dubbing, Dubbing de",
        ("--status", "approved=ok"): "Kitsu has no status 'ok'; there are: approved, done",
        ("--url", f"{project.server.url}/api"): "does not answer as Kitsu's API",
    }
    for given, message in options.items():
        assert project.post(*given) == 10
        assert message in capsys.readouterr().err
    monkeypatch.setenv("DUBSTAGE_KITSU_TOKEN", "wrong")
    assert project.post() == 10
    assert "does not accept the token" in capsys.readouterr().err
    assert project.said("SH010") == []
