"""`dubstage train` and `dubstage export`: what a person sees of networks, and of what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.app import run
from research.training.run_folder import RunFolder
from tests.file_limit import files_of_at_most
from tests.refusals import error_line
from tests.unit.research.cli.train_command import tiny_set, train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_set(tmp_path_factory.mktemp("set"))


def test_the_networks_are_listed_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "list"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["network", "stage", "presets"]
    networks = [line.split()[0] for line in lines]
    assert len(set(networks)) == len(networks)
    (line,) = [line for line in lines if line.startswith("temporal_warp ")]
    assert line.split()[1:4] == ["texture", "default,", "large"]


def test_an_unknown_network_is_told_the_names(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(data, tmp_path / "run", network="magic") == 10
    assert "there is no network 'magic' to train; there are posteriorgram" in error_line(capsys)
    assert not (tmp_path / "run").exists()


def test_a_set_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "nothing", tmp_path / "run") == 10
    assert "nothing is not a training set: it has no manifest.jsonl" in error_line(capsys)


def test_missing_set_trains_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a set or a folder, nothing is trained."""
    assert run(["train", "temporal_warp"]) == 10
    assert "--data FOLDER" in error_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config", "huge"], "huge: neither a preset (default, large) nor a TOML file"),
        (["--device", "tpu"], "--device tpu: the devices are cpu and cuda"),
        (["--using", "sync"], "--using sync: NAME=PATH was expected"),
        (["--using", "magic=run"], "--using magic: there is no such network"),
    ],
)
def test_wrong_options_are_named(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert train(data, tmp_path / "run", *arguments) == 10
    assert says in error_line(capsys)


def test_folder_without_run_not_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that holds no run is not exported."""
    assert run(["export", "temporal_warp", "--run", str(tmp_path), "--output", str(tmp_path / "weights")]) == 10
    assert "holds no training run: it has no config.json" in error_line(capsys)
    assert not (tmp_path / "weights").exists()


def test_busy_training_folder_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder in which another process trains is refused."""
    with RunFolder(tmp_path, "temporal_warp", {}).held():
        assert train(data, tmp_path, "--resume") == 10
        assert "another process trains in this folder" in error_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def export_of_a_run(folder: Path, output: Path) -> int:
    """Export a run that is not complete; return the exit code."""
    RunFolder(folder, "temporal_warp", {}).begin(resume=False)
    return run(["export", "temporal_warp", "--run", str(folder), "--output", str(output)])


@pytest.mark.parametrize("place", ["weights", "weights/texture"])
def test_file_instead_of_weights_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str) -> None:
    """A file in place of a folder of weights is named."""
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    file.write_text("no folder")
    assert export_of_a_run(tmp_path / "run", tmp_path / "weights") == 10
    assert f"{place} cannot be written: it is a file, and a folder was expected" in error_line(capsys)
    assert file.read_text() == "no folder"


def test_export_to_full_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An export to a full disk says so and leaves nothing."""
    with files_of_at_most(8192):
        assert export_of_a_run(tmp_path / "run", tmp_path / "weights") == 11
    assert "weights: free some, or choose another folder" in error_line(capsys)
    assert list((tmp_path / "weights").iterdir()) == []


def test_training_on_full_disk(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A training on a full disk says so and leaves no part."""
    with files_of_at_most(4096):
        assert train(data, tmp_path, "--steps", "1") == 11
    assert "no space left in" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.partial"))
