"""The training of the Audio ID-Removing Network and the classifiers that judge it, on small made-up speech."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from services.audio.identity_removal.network import IdRemovalConfig, IdRemovalNetwork
from services.audio.identity_removal.train.data import SpeechPart, load_parts, save_parts
from services.audio.identity_removal.train.fresh_classifiers import Labelled, fit, row_accuracy, speaker_accuracy
from services.audio.identity_removal.train.run import IdRemovalRun, IdRemovalTraining
from services.audio.identity_removal.train.speaker_critic import SpeakerCritic, confusion_loss, global_speaker


def parts(speakers: int = 3, rows: int = 400) -> list[SpeechPart]:
    """Speakers whose rows are a phone's row plus an offset of their own."""
    rng = np.random.default_rng(0)
    phones, offsets = rng.standard_normal((40, 20)), rng.standard_normal((speakers, 20))
    found = []
    for speaker in range(speakers):
        for split in ("train", "held_out"):
            labels = rng.integers(0, 40, rows // 8).repeat(8).astype(np.uint8)
            values = (phones[labels] + offsets[speaker] + 0.1 * rng.standard_normal((rows, 20))).astype(np.float32)
            found.append(SpeechPart(f"{speaker}-{split}", "made-up", f"s{speaker}", values, values, labels, split))
    return found


def test_soft_weights_are_the_sum_of_matrices_that_equation_one_says() -> None:
    network = IdRemovalNetwork(IdRemovalConfig(components=5, hidden=8, projection=8, hard=False)).eval()
    x, weights = torch.randn(2, 8, 20), torch.randn(2, 8, 5)
    matrices = torch.cat([network.linear, network.column[..., None]], dim=-1)
    identity = torch.cat([torch.eye(20), torch.zeros(20, 1)], dim=1)
    padded = torch.cat([x, torch.ones(2, 8, 1)], dim=-1)
    expected = torch.einsum("nrij,nrj->nri", identity + torch.einsum("nrk,kij->nrij", weights, matrices), padded)
    torch.testing.assert_close(network.transform(x, weights), expected, rtol=1e-4, atol=1e-5)


def test_a_choice_leaves_the_column_of_one_component() -> None:
    network = IdRemovalNetwork(IdRemovalConfig(hidden=8, projection=8)).eval()
    removed = network(torch.randn(1, 16, 20))
    assert removed.shape == (1, 12, 20)
    columns = {tuple(column) for column in network.column.tolist()}
    assert all(tuple(row) in columns for row in removed[0].tolist())


def test_the_choice_of_a_row_hears_one_step_ahead_and_no_more() -> None:
    network = IdRemovalNetwork(IdRemovalConfig(hidden=8, projection=8)).eval()
    rows = torch.randn(1, 32, 20)
    changed = rows.clone()
    changed[:, 16:] += 1.0
    before, after = network.scores(rows), network.scores(changed)
    torch.testing.assert_close(before[:, :12], after[:, :12])
    assert not torch.allclose(before[:, 12:16], after[:, 12:16])


def test_confusion_is_zero_where_all_speakers_are_alike() -> None:
    critic = SpeakerCritic(4).eval()
    for layer in (critic.rows, critic.pooled, critic.statistics):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    with torch.inference_mode():
        assert float(confusion_loss(critic(torch.randn(2, 20, 20)))) == pytest.approx(0.0, abs=1e-5)


def test_the_global_speaker_counts_every_speaker_alike() -> None:
    made = parts(2)
    twice = [*made, *(replace_name(part) for part in made if part.speaker == "s0")]
    np.testing.assert_allclose(global_speaker(made), global_speaker(twice), atol=1e-5)


def replace_name(part: SpeechPart) -> SpeechPart:
    return replace(part, name=part.name + "again")


def test_parts_make_a_round_trip(tmp_path: Path) -> None:
    save_parts(parts(), tmp_path / "parts.npz")
    for before, after in zip(parts(), load_parts(tmp_path / "parts.npz"), strict=True):
        assert (before.name, before.speaker, before.split) == (after.name, after.speaker, after.split)
        np.testing.assert_array_equal(before.rows, after.rows)


@pytest.mark.parametrize(("name", "steps"), [("row linear", 30), ("segment linear", 200)])
def test_a_fresh_classifier_tells_speakers_that_differ_and_not_those_that_do_not(name: str, steps: int) -> None:
    def accuracy(size: float) -> float:
        rng = np.random.default_rng(1)
        voices = size * np.eye(4, 6)
        sets = [
            [
                Labelled((rng.standard_normal((600, 6)) + voices[speaker]).astype(np.float32), np.full(600, speaker))
                for speaker in range(4)
            ]
            for _ in range(2)
        ]
        return speaker_accuracy(fit(name, sets[0], 4, steps=steps, rows=40), sets[1]).segment

    assert accuracy(3.0) > 0.9
    assert accuracy(0.0) < 0.6


def test_a_fresh_row_classifier_learns_phones() -> None:
    examples = [Labelled(part.rows, part.labels.astype(np.int64)) for part in parts(1)]
    assert row_accuracy(fit("row linear", examples[:1], 40, steps=40, rows=60), examples[1:]) > 0.5


def test_training_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    config = IdRemovalTraining(
        network=IdRemovalConfig(hidden=16, projection=16),
        steps=4,
        content_steps=1,
        ramp_steps=1,
        batch=2,
        segment_rows=48,
        save_every=2,
    )
    training = [part for part in parts() if part.split == "train"]
    IdRemovalRun(config, training, None, tmp_path).train()
    longer = IdRemovalRun(replace(config, steps=6), training, None, tmp_path)
    assert longer.step == 4
    longer.train()
    assert [entry["step"] for entry in longer.history] == [2.0, 4.0, 6.0]
    assert longer.history[-1]["norm"] >= 0.0
