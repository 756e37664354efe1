"""Tests of the folder of a training run: its owner, its checkpoint, its curves, and its card."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from research.training.run_folder import RunFolder, TrainingProgress, card, licence_table, read_config
from research.training.trainset import ClipRow
from services.common.errors import InvalidRequestError
from tests.file_limit import files_of_at_most
from tests.refusals import raised
from tests.unit.research.training.tiny import CONFIG, KilledError, Tiny, run, with_loop


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    run(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with raised(InvalidRequestError, match="--resume", field="output"):
        run(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_run_resumes_with_own_settings(tmp_path: Path) -> None:
    """A run goes on with its own settings only."""
    run(tmp_path)
    with raised(InvalidRequestError, match=r"loop\.seed: 0, now 7", field="config"):
        run(tmp_path, with_loop(seed=7), resume=True)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InvalidRequestError, match="file/run cannot"):
        run(tmp_path / "file" / "run")


def test_killed_before_first_checkpoint(tmp_path: Path) -> None:
    """A run that was killed before its first checkpoint begins again."""
    folder = RunFolder(tmp_path, "tiny", {"width": 3})
    folder.begin(resume=False)
    folder.log(1, {"total": 2.0})
    assert RunFolder(tmp_path, "tiny", {"width": 4}).begin(resume=False) is None
    assert not (tmp_path / "curves.csv").exists()


def test_figures_after_checkpoint_dropped(tmp_path: Path) -> None:
    """Figures after the checkpoint are dropped when a run goes on."""
    with pytest.raises(KilledError):
        run(tmp_path, training=Tiny(CONFIG, killed_at=6))
    curves = tmp_path / "curves.csv"
    kept = curves.read_text()
    curves.write_text(f"{kept}5,total,0.25\n6,tot")
    run_folder = RunFolder(tmp_path, "tiny", {})
    run_folder.config = {"network": "tiny", "config": read_config(tmp_path, "tiny")}
    run_folder.begin(resume=True)
    assert curves.read_text() == kept


def test_partial_line_still_draws(tmp_path: Path) -> None:
    """An unfinished line does not stop the drawing of curves."""
    folder = RunFolder(tmp_path, "tiny", {})
    folder.log(1, {"total": 2.0, "score": -2.0})
    folder.log(2, {"total": 1.0})
    with (tmp_path / "curves.csv").open("a") as stream:
        stream.write("3,to")
    folder.draw_curves()
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_an_interrupted_checkpoint_leaves_the_one_before(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "tiny", {})
    folder.begin(resume=False)
    state = {"progress": {"step": 4}}
    folder.save(state)
    (tmp_path / ".checkpoint.pt.partial").write_bytes(b"half")
    assert RunFolder(tmp_path, "tiny", {}).begin(resume=True) == state


def test_second_training_kept_out(tmp_path: Path) -> None:
    """A second training is kept out of the folder while the first runs."""

    def folder() -> RunFolder:
        return RunFolder(tmp_path / "run", "tiny", {})

    refused = pytest.raises(InvalidRequestError, match="run: another process")
    with folder().held(), refused, folder().held():
        pytest.fail("two trainings are in the folder")
    with folder().held():
        assert folder().begin(resume=True) is None


def test_oversized_checkpoint_keeps_previous(tmp_path: Path) -> None:
    """A checkpoint that does not fit on the disk leaves the one before."""
    folder = RunFolder(tmp_path, "tiny", {})
    folder.begin(resume=False)
    state = {"progress": {"step": 4}}
    folder.save(state)
    with files_of_at_most(4096), pytest.raises(OSError, match="File too large"):
        folder.save({"progress": {"step": 8}, "parts": torch.zeros(10_000)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "config.json"]
    assert folder.begin(resume=True) == state


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_a_checkpoint_that_was_cut_is_named(tmp_path: Path, kept: float) -> None:
    folder = RunFolder(tmp_path, "tiny", {})
    folder.begin(resume=False)
    folder.save({"progress": {"step": 4}, "parts": torch.zeros(1000)})
    checkpoint = tmp_path / "checkpoint.pt"
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(InvalidRequestError, match=r"checkpoint\.pt is damaged"):
        folder.begin(resume=True)


def test_missing_and_other_run_differ(tmp_path: Path) -> None:
    """A folder without a run and a run of another network are told apart."""
    with pytest.raises(InvalidRequestError, match="no training run"):
        read_config(tmp_path, "tiny")
    RunFolder(tmp_path, "tiny", {"width": 3}).begin(resume=False)
    assert read_config(tmp_path, "tiny") == {"width": 3}
    with pytest.raises(InvalidRequestError, match="'tiny', not of 'sync'"):
        read_config(tmp_path, "sync")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InvalidRequestError, match=r"config\.json is damaged"):
        read_config(tmp_path, "tiny")


def clip(name: str, speaker: str, source: str, licence: str, seconds: float, phones: str = "") -> ClipRow:
    return ClipRow(
        name=name, shard="00000", file=name, sha256="", source=source, speaker=speaker, split="train", licence=licence,
        seconds=seconds, phones=phones,
    )  # fmt: skip


CLIPS = [
    clip("a", "ann", "clips", "CC BY 4.0", 60.0, "aligned"),
    clip("b", "ann", "clips", "CC BY 4.0", 30.0, "network"),
    clip("c", "bob", "clips", "CC BY 4.0", 30.0, "aligned"),
    clip("d", "eve", "talks", "", 90.0),
]


def test_clips_are_counted_by_source_and_licence() -> None:
    assert licence_table(CLIPS)[2:4] == ["| clips | CC BY 4.0 | 3 | 2 | 2.0 |", "| talks | unknown | 1 | 1 | 1.5 |"]


def test_card_tells_training_facts() -> None:
    """The card tells what was learned from and what was kept."""
    config = {"network": "tiny", "config": {"loop": {"seed": 5}, "width": 3}}
    text = card("tiny", config, CLIPS, TrainingProgress(step=40, best_step=30, best_score=0.5, figures={"error": 0.25}))
    for line in (
        "# tiny",
        "| clips learned from | 4, 3.5 minutes |",
        "| speakers | 3 |",
        "| phone labels | aligned: 2 clips, network: 1 clips |",
        "| steps | 40 |",
        "| kept step | 30, chosen by score 0.5000 |",
        "| seed | 5 |",
        "- error 0.25",
    ):
        assert line in text.splitlines()


def test_a_run_without_scores_keeps_the_last_step() -> None:
    text = card("tiny", {"network": "tiny", "config": {"loop": {"seed": 0}}}, [], TrainingProgress(step=4, best_step=4))
    assert "| kept step | the last step |" in text
    assert "phone labels" not in text
