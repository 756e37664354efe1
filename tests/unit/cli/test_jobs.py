"""`dubstage jobs`: lists and removes the files of failed and interrupted jobs."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.cli.app import run
from gateway.cli.values import parse_age, parse_size, shown_age, shown_size
from gateway.dub.state.journal import Journal
from gateway.dub.state.workspace import Workspace
from services.common.errors import InvalidRequestError
from services.common.store.artefacts import ArtefactStore


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    """Folder with two jobs: `aa...` is ten days old, `bb...` is new and larger."""
    folder = tmp_path / "data" / "jobs"
    blobs = ArtefactStore(tmp_path / "artefacts")
    for number, name, size, days in ((1, "a" * 32, 0, 10), (2, "b" * 32, 200_000, 0)):
        with Workspace(folder / name) as workspace:
            workspace.describe({"kind": "dub", "footage": f"[red]{number}\x1b.mp4", "actor": "ada"})
            Journal(folder / name / "journal", blobs).record("window", {"box": np.full(100, number, np.uint8)})
        (folder / name / "faces.bin").write_bytes(bytes(size))
        then = time.time() - days * 86400
        for part in (folder / name / "journal", folder / name / "job.json", folder / name):
            os.utime(part, (then, then))
    return folder


def names(jobs: Path) -> list[str]:
    return sorted(path.name[:2] for path in jobs.iterdir())


def test_jobs_are_listed_with_footage_and_age(jobs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["jobs", "list"]) == 0
    printed = capsys.readouterr().out
    assert "[red]1\\x1b.mp4" in printed
    assert " 10 d " in printed
    assert "aaaaaaaaaaaa" in printed
    assert printed.index("aaaa") < printed.index("bbbb")


def test_one_job_is_shown_as_json(jobs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["jobs", "show", "bb"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["key"], shown["actor"], shown["running"], shown["finishedSteps"]) == ("b" * 32, "ada", False, 1)
    assert shown["folderBytes"] > 200_000
    assert run(["jobs", "show", "cc"]) == 10


def test_without_jobs_the_list_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["jobs", "list"]) == 0
    assert "no jobs on disk" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (["--older-than", "7d"], ["bb"]),
        (["--larger-than", "100K"], ["aa"]),
        (["--older-than", "7d", "--larger-than", "100K"], ["aa", "bb"]),
        (["--all"], []),
        (["aa"], ["bb"]),
        (["bbb", "bb"], ["aa"]),
        (["aa", "--older-than", "30d"], ["aa", "bb"]),
    ],
    ids=" ".join,
)
def test_chosen_jobs_are_removed_with_their_blobs(arguments: list[str], left: list[str], jobs: Path, tmp_path: Path) -> None:
    assert run(["jobs", "clean", *arguments, "--dry-run"]) == 0
    assert names(jobs) == ["aa", "bb"]
    assert run(["jobs", "clean", *arguments, "--yes"]) == 0
    assert names(jobs) == left
    assert len(list(ArtefactStore(tmp_path / "artefacts").stored())) == len(left)


def test_dry_run_as_json_lists_jobs(jobs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flag, left in (("--dry-run", ["aa", "bb"]), ("--yes", ["bb"])):
        assert run(["jobs", "clean", "aa", flag, "--json"]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert [job["key"] for job in printed["jobs"]] == ["a" * 32]
        assert names(jobs) == left


def test_a_running_job_is_never_removed(jobs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Workspace(jobs / ("b" * 32)):
        assert run(["jobs", "clean", "--all", "--yes"]) == 0
        assert run(["jobs", "clean", "bb", "--yes"]) == 0
    assert names(jobs) == ["bb"]
    assert "is running: the job is kept" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--older-than"),
        (["zz"], "no job"),
        (["--all"], "--yes"),
        (["--older-than", "soon"], "7d"),
        (["--larger-than", "10 cats"], "10G"),
        (["--blobs"], "--older-than"),
        (["--blobs", "--all", "--older-than", "30d"], "--blobs"),
        (["--blobs", "--older-than", "5m"], "1d"),
    ],
    ids=str,
)
def test_wrong_arguments_remove_nothing(arguments: list[str], said: str, jobs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["jobs", "clean", *arguments]) == 10
    assert said in capsys.readouterr().err
    assert names(jobs) == ["aa", "bb"]


@pytest.mark.parametrize("pressed", [KeyboardInterrupt, EOFError], ids=["Ctrl-C", "Ctrl-D"])
def test_a_question_that_is_not_answered_removes_nothing(
    pressed: type[BaseException], jobs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

        def readline(self, *_: Any) -> str:  # type: ignore[override]
            raise pressed

    monkeypatch.setattr("sys.stdin", Terminal())
    assert run(["jobs", "clean", "--all"]) == 130
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1] == "error: nothing was removed"
    assert "remove 2 jobs? [y/N]" in printed.err
    assert "remove 2 jobs?" not in printed.out
    assert names(jobs) == ["aa", "bb"]


def test_blobs_without_an_owner_are_removed_by_age(jobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ArtefactStore(tmp_path / "artefacts")
    orphan = store.put_bytes(b"of another service")
    for file in (tmp_path / "artefacts").rglob("*"):
        os.utime(file, (0, 0))
    assert run(["jobs", "clean", "--blobs", "--older-than", "30d", "--dry-run"]) == 0
    assert "1 blobs of 18 B" in capsys.readouterr().err
    assert store.exists(orphan)
    assert run(["jobs", "clean", "--blobs", "--older-than", "30d", "--dry-run", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["blobs"] == [{"sha256": orphan.sha256, "uri": orphan.uri, "sizeBytes": 18}]
    assert (printed["freedBlobBytes"], store.exists(orphan)) == (0, True)
    assert run(["jobs", "clean", "--blobs", "--older-than", "30d", "--yes"]) == 0
    assert not store.exists(orphan)
    assert names(jobs) == ["aa", "bb"]
    assert len(list(ArtefactStore(tmp_path / "artefacts").stored())) == 2


def test_ages_and_sizes_are_read_and_shown() -> None:
    assert [parse_age(text, "--x") for text in ("90s", "30m", "1.5h", "7d", " 2 W ")] == [90, 1800, 5400, 604800, 1209600]
    assert [parse_size(text, "--x") for text in ("17", "500M", "1.5g", "2T")] == [17, 500_000_000, 1_500_000_000, 2 * 10**12]
    for text in ("", "7", "-1d", "1e9d", "nan", "7 years", "9" * 40 + "d"):
        with pytest.raises(InvalidRequestError, match="--x"):
            parse_age(text, "--x")
    sizes = {0: "0 B", 999: "999 B", 1000: "1 kB", 1_250_000_000: "1.25 GB", 5 * 10**17: "5e+05 TB"}
    assert {size: shown_size(size) for size in sizes} == sizes
    assert [shown_age(age) for age in (-1, 50, 7200, 3 * 86400)] == ["0 s", "50 s", "2 h", "3 d"]
