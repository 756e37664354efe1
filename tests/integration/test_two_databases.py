"""Two data folders on one artefact store, through the real command line: the second one is refused, and the actor stays."""

import os
import subprocess
from pathlib import Path

import pytest

from services.common.errors import StorageRefusedError
from tests.forked import run_forked
from tests.integration.servers import RunningStages
from tests.integration.videos import Media

ROOT = Path(__file__).parents[2]


def dubstage(*arguments: object, data: Path, stages: RunningStages, **settings: str) -> subprocess.CompletedProcess[str]:
    chosen = {"data_dir": str(data), "artefacts_url": str(stages.artefacts), **stages.endpoints(), **settings}
    environment = {**os.environ, "COLUMNS": "1000", **{f"DUBSTAGE_{name.upper()}": value for name, value in chosen.items()}}
    return run_forked([str(argument) for argument in arguments], environment, cwd=ROOT, timeout=300)


@pytest.mark.long
def test_other_data_folder_keeps_actors(stages: RunningStages, media: Media, tmp_path: Path) -> None:
    """A dub of the same footage from another data folder destroys no actor."""
    first, second = tmp_path / "first", tmp_path / "second"
    dub = ("dub", media.footage, "--audio", media.speech, "--no-personalize")
    created = dubstage("actor", "create", "ann", media.footage, "--no-personalize", data=first, stages=stages)
    assert created.returncode == 0, created.stderr
    blobs = stages.blobs()

    # The footage is the actor's, so that a dub that learns the person from it makes, counts and deletes the actor's blobs.
    other = dubstage(*dub, "-o", tmp_path / "other.mp4", data=second, stages=stages)
    assert other.returncode == StorageRefusedError.exit_code, other.stderr
    assert f"the artefact store file://{stages.artefacts} belongs to another database" in other.stderr
    assert str(first / "actors.sqlite") in other.stderr
    assert "DUBSTAGE_DATA_DIR or DUBSTAGE_DATABASE_URL" in other.stderr
    assert "DUBSTAGE_ARTEFACTS_URL" in other.stderr
    assert "Traceback" not in other.stderr
    for more in (
        ("jobs", "clean", "--blobs", "--older-than", "1d", "--yes"),
        ("actor", "list"),
        ("backup", tmp_path / "backup.tar"),
    ):
        refused = dubstage(*more, data=second, stages=stages)
        assert refused.returncode == StorageRefusedError.exit_code, (more, refused.stderr)
    assert blobs <= stages.blobs()

    shown = dubstage("doctor", data=second, stages=stages)
    assert shown.returncode == 1
    assert "belongs to another database" in shown.stdout
    video = dubstage(*dub, "-o", tmp_path / "video.mp4", "--actor", "ann", data=first, stages=stages)
    assert video.returncode == 0, video.stderr
    assert dubstage("doctor", data=first, stages=stages).returncode == 0


def test_artefacts_lie_in_data_folder(media: Media, tmp_path: Path) -> None:
    data = tmp_path / "data"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DUBSTAGE_")}
    environment |= {"XDG_DATA_HOME": str(tmp_path / "home"), "DUBSTAGE_DATA_DIR": str(data), "DUBSTAGE_SETTINGS_FILE": os.devnull}
    created = run_forked(["actor", "create", "ann", str(media.footage), "--no-personalize"], environment, cwd=ROOT, timeout=300)
    assert created.returncode == 0, created.stderr
    assert len(list((data / "artefacts").glob("??/*"))) >= 3
    assert not (tmp_path / "home").exists()
