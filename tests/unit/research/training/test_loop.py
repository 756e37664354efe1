"""The loop: resuming, early end, several batches a step."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from research.training.device import Device
from services.common.errors import InvalidRequestError
from tests.unit.research.training.tiny import CONFIG, RESULT, KilledError, Tiny, run, with_loop


def curves(folder: Path) -> list[list[str]]:
    with (folder / "curves.csv").open(newline="") as stream:
        return list(csv.reader(stream))


def test_resumed_run_same_bytes(tmp_path: Path) -> None:
    """A resumed run ends with the bytes of an unbroken one."""
    run(tmp_path / "unbroken")
    with pytest.raises(KilledError):
        run(tmp_path / "resumed", training=Tiny(CONFIG, killed_at=6))
    progress = run(tmp_path / "resumed", resume=True)
    assert progress.step == 12
    assert (tmp_path / "resumed" / RESULT).read_bytes() == (tmp_path / "unbroken" / RESULT).read_bytes()
    assert curves(tmp_path / "resumed") == curves(tmp_path / "unbroken")
    assert (tmp_path / "resumed" / "CARD.md").read_bytes() == (tmp_path / "unbroken" / "CARD.md").read_bytes()


def test_a_resumed_run_trains_no_step_again(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        run(tmp_path, training=Tiny(CONFIG, killed_at=9))
    resumed = Tiny(CONFIG)
    run(tmp_path, resume=True, training=resumed)
    assert min(resumed.made) == (8, 0), "the last checkpoint is of step 8"


def test_a_complete_run_is_not_changed_by_resuming(tmp_path: Path) -> None:
    run(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".png"}
    run(tmp_path, resume=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".png"} == before


def test_early_stop_keeps_best_step(tmp_path: Path) -> None:
    """Training ends early when the score stays worse and the best step is kept."""
    config = replace(with_loop(steps=100, patience=2), scores=(0.1, 0.7, 0.5, 0.6, *[0.0] * 30))
    progress = run(tmp_path, config)
    assert (progress.step, progress.best_step, progress.best_score) == (12, 4, 0.7)
    assert "| kept step | 4, chosen by score 0.7000 |" in (tmp_path / "CARD.md").read_text()
    run(tmp_path / "short", replace(config, loop=replace(config.loop, steps=100, patience=1)))
    assert (tmp_path / RESULT).read_bytes() == (tmp_path / "short" / RESULT).read_bytes()


def test_resume_keeps_early_stopped_run(tmp_path: Path) -> None:
    """A run that ended early is not changed by resuming."""
    config = replace(with_loop(steps=100, patience=2), scores=(0.1, 0.7, 0.5, 0.6, 0.9, *[0.0] * 30))
    ended = run(tmp_path, config)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".png"}
    assert run(tmp_path, config, resume=True) == ended
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".png"} == before


def test_killed_before_second_check(tmp_path: Path) -> None:
    """A run that was killed before its second check is checked once at each step."""
    config = replace(with_loop(steps=24, patience=2), scores=(0.5, 0.4, 0.6, 0.7, *[0.0] * 30))
    unbroken = run(tmp_path / "unbroken", config)
    with pytest.raises(KilledError):
        run(tmp_path / "resumed", config, training=Tiny(config, killed_at=2))
    assert run(tmp_path / "resumed", config, resume=True) == unbroken
    assert curves(tmp_path / "resumed") == curves(tmp_path / "unbroken")
    assert (tmp_path / "resumed" / RESULT).read_bytes() == (tmp_path / "unbroken" / RESULT).read_bytes()


def test_without_scores_the_last_step_is_kept(tmp_path: Path) -> None:
    assert run(tmp_path, with_loop(steps=10)).best_step == 10


def test_several_batches_are_one_step_of_their_mean(tmp_path: Path) -> None:
    together, apart = Tiny(CONFIG), Tiny(CONFIG)
    for one in (together, apart):
        one.module[1] = torch.nn.Identity()  # in place of dropout, whose noise differs from pass to pass
    with torch.no_grad():
        losses = [float(apart.losses(apart.batch(0, index))["total"]) for index in range(2)]
    figures = together.learn(0, [together.batch(0, index) for index in range(2)])
    assert figures["total"] == pytest.approx(sum(losses) / 2, rel=1e-5)


def test_processes_that_cannot_share_the_batches_are_refused(tmp_path: Path) -> None:
    training = Tiny(with_loop(batches=3))
    training.device = Device(torch.device("cpu"), rank=0, num_processes=2)
    with pytest.raises(InvalidRequestError, match=r"loop\.batches is 3: 2 processes"):
        run(tmp_path, training=training)


def test_divergence_names_step(tmp_path: Path) -> None:
    """A training that diverges ends with the step and the figure."""
    config = replace(CONFIG, optimiser=replace(CONFIG.optimiser, learning_rate=1e18, warm_up_steps=0))
    with pytest.raises(InvalidRequestError, match=r"step \d+: total is (nan|inf)"):
        run(tmp_path, config)
