"""Comments for Kitsu, and mistakes of `dubstage batch kitsu`. tests/contract/kitsu posts to Kitsu's own server."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from gateway.batch.kitsu import STATUSES, BatchShot, keys_of, notes_of, read_token
from gateway.batch.reviews import Decision, ReviewState, Verdict, decision_of
from gateway.batch.types import ShotRecord, ShotSpec
from gateway.cli.app import run
from services.common.errors import InvalidRequestError
from tests.unit.cli.batch.records import done, failed

SPEC = ShotSpec(id="s1", footage="plate.mp4", output="out.mp4")


def decided(record: ShotRecord, state: ReviewState, number: int, note: str = "") -> Decision:
    made = decision_of(record, Verdict(state=state, note=note), now="2026-11-21T21:00:00.000Z")
    return made.model_copy(update={"number": number, "token": f"{number:08x}"})


def test_comments_in_order_of_time() -> None:
    """Decisions about an earlier video come before the present video, so that the last comment has the present status."""
    old, new = (done(1, output_sha256=digest * 64) for digest in "ab")
    decisions = [decided(old, ReviewState.REJECTED, 1, "late"), decided(new, ReviewState.APPROVED, 2)]
    notes = notes_of("night", BatchShot(SPEC, new, decisions), STATUSES)
    assert [(one.state, one.text) for one in notes] == [
        ("rejected", "rejected: late"),
        ("done", "90 of 100 frames dubbed"),
        ("approved", "approved"),
    ]


def test_marks_belong_to_videos() -> None:
    """A mark is the same in every run, and another for another video, shot or batch."""
    first = notes_of("night", BatchShot(SPEC, done(1, output_sha256="a" * 64), ()), STATUSES)
    assert first == notes_of("night", BatchShot(SPEC, done(1, output_sha256="a" * 64, attempts=2), ()), STATUSES)
    others = [("night", done(1, output_sha256="b" * 64)), ("night", done(2, output_sha256="a" * 64)), ("day", done(1))]
    marks = {one.mark for name, record in others for one in notes_of(name, BatchShot(SPEC, record, ()), STATUSES)}
    assert len({*marks, first[0].mark}) == 4
    assert first[0].mark.startswith("dubstage night/s1 ")


def test_states_without_status_are_silent() -> None:
    for record in (ShotRecord(id="s1"), failed(1), done(1, state="running")):
        assert notes_of("night", BatchShot(SPEC, record, ()), STATUSES) == []
    assert [one.state for one in notes_of("night", BatchShot(SPEC, failed(1), ()), {"failed": "retake"})] == ["failed"]


@pytest.mark.parametrize(
    ("row", "language", "keys"),
    [
        ("SC010_SH020", None, ["sc010-sh020"]),
        ("0012_sc010-sh020_de", "de", ["0012-sc010-sh020-de", "sc010-sh020-de", "0012-sc010-sh020", "sc010-sh020"]),
        ("sc010.sh020_pt-BR", "pt-BR", ["sc010-sh020-pt-br", "sc010-sh020"]),
    ],
)
def test_names_of_a_row(row: str, language: str | None, keys: list[str]) -> None:
    assert keys_of(SPEC.model_copy(update={"id": row, "language": language})) == keys


def test_token_from_file_or_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text("from.the.file\n")
    monkeypatch.setenv("DUBSTAGE_KITSU_TOKEN", "from.the.environment")
    assert (read_token(file), read_token(None)) == ("from.the.file", "from.the.environment")
    for content in (b"\n", b"two words", b"\xff"):
        file.write_bytes(content)
        with pytest.raises(InvalidRequestError, match="token"):
            read_token(file)
    with pytest.raises(InvalidRequestError, match=r"--token-file .*/missing cannot be read: No such file"):
        read_token(tmp_path / "missing")
    monkeypatch.delenv("DUBSTAGE_KITSU_TOKEN")
    with pytest.raises(InvalidRequestError, match="set DUBSTAGE_KITSU_TOKEN, or give --token-file FILE"):
        read_token(None)


@contextmanager
def answering(status: int, content: bytes) -> Iterator[str]:
    """A server that is not Kitsu's, with one answer for all."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()
        thread.join()


@pytest.fixture
def posted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> object:
    """Runs the command for a batch of one shot, and gives the exit code and the message."""
    monkeypatch.setenv("DUBSTAGE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("DUBSTAGE_ARTEFACTS_URL", str(tmp_path / "artefacts"))
    monkeypatch.setenv("DUBSTAGE_KITSU_TOKEN", "a.b.c")
    (tmp_path / "plate.mp4").write_bytes(b"no film")
    manifest = tmp_path / "night.jsonl"
    manifest.write_text(json.dumps({"id": "s1", "footage": "plate.mp4", "output": "out.mp4"}))
    assert run(["batch", "submit", str(manifest), "--engine", "farm"]) == 0

    def command(url: str, *options: str) -> tuple[int, str]:
        capsys.readouterr()
        code = run(["batch", "kitsu", "night", "--url", url, "--project", "Night", *options])
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1, shown
        return code, shown

    return command


def test_wrong_options_are_refused(posted, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("kitsu.example.com", "ftp://kitsu.example.com/api", "https://me:secret@kitsu.example.com/api", "http://[/api"):
        code, shown = posted(url)
        assert code == 10
        assert "give the address of Kitsu's API" in shown
        assert "secret" not in shown
    for wrong in ("seen=wfa", "done", "done= "):
        code, shown = posted("https://kitsu.example.com/api", "--status", wrong)
        assert code == 10
        assert f"--status {wrong!r}: give STATE=SHORT-NAME" in shown
    monkeypatch.setitem(sys.modules, "gazu", None)
    code, shown = posted("https://kitsu.example.com/api")
    assert code == 10
    assert "needs the package gazu, which is not installed here: pip install 'dubstage-suite[kitsu]'" in shown


def test_servers_that_are_no_kitsu(posted) -> None:
    """A page in place of the API is a wrong URL; a server that is down or busy may answer later."""
    with answering(200, b"<html>Kitsu</html>") as url:
        assert posted(url) == (
            10,
            f"error: --url {url} does not answer as Kitsu's API: give an address such as https://kitsu.example.com/api\n",
        )
    for status in (500, 503):
        with answering(status, b"{}") as url:
            code, shown = posted(url)
            assert code == 20
            assert f"Kitsu at {url} does not answer" in shown
    assert posted(url)[0] == 20
