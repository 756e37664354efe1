from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from services.common.errors import InvalidRequest
from services.common.tensor_bytes import encode_arrays
from services.motion.features import NUM_CONTENT, content_rows, sync_rows
from services.motion.networks.style_translation import StyleTranslationConfig
from services.motion.train.batches import BatchConfig, BatchSampler
from services.motion.train.clips import TrainingClip, by_speaker, load_clips, shifted
from services.motion.train.loop import Curves, LoopConfig, TrainingRun
from services.motion.train.losses import LossWeights, MotionLoss
from services.motion.train.metrics import pearson, score_motion
from services.motion.train.prior import PriorConfig, fit_prior
from services.motion.train.protocol import folds
from services.motion.train.style import StyleTrainingConfig, basis_of, train
from services.motion.types import WINDOW
from tests.unit.motion.synthesised import mouths, random_features

SPEAKERS = ("anna", "anna", "ben")


def made_clip(index: int, use: str = "train", num_frames: int = 90) -> TrainingClip:
    """A clip whose mouth opens with the probability of 'AA', two frames wide."""
    features = random_features(num_frames, seed=index)
    drive = np.convolve(features.posteriorgram[..., 1].mean(axis=1), [0.5, 0.5], mode="same")
    mouth = mouths((40.0 * drive).astype(np.float32))
    return TrainingClip(
        f"clip{index}",
        use,
        SPEAKERS[index % 3],
        "",
        mouth,
        np.ones(num_frames, np.bool_),
        features,
        content_rows(features),
        sync_rows(features),
    )


@pytest.fixture(scope="module")
def clips() -> list[TrainingClip]:
    return [made_clip(index) for index in range(6)]


def test_a_lag_is_taken_out_of_a_clip() -> None:
    clip = made_clip(0)
    late = shifted(clip, 3)
    assert len(late) == len(clip) - 3
    np.testing.assert_array_equal(late.mouth_landmarks[0], clip.mouth_landmarks[0])
    np.testing.assert_array_equal(late.content[0], clip.content[3])
    early = shifted(clip, -2)
    np.testing.assert_array_equal(early.mouth_landmarks[0], clip.mouth_landmarks[2])
    np.testing.assert_array_equal(early.content[0], clip.content[0])


def test_clips_are_read_from_disk_by_use_and_with_their_lags(tmp_path: Path) -> None:
    tracks, features = tmp_path / "clips", tmp_path / "features"
    for folder in (tracks, features):
        folder.mkdir()
    for index, use in enumerate(("train", "val")):
        clip = made_clip(index)
        arrays = {"mouth_landmarks": clip.mouth_landmarks, "usable": clip.usable}
        (tracks / f"c{index}.safetensors").write_bytes(encode_arrays(arrays, {"use": use, "speaker": "anna"}))
        heard = {name: getattr(clip.features, name) for name in ("posteriorgram", "mel", "speech_probability")}
        (features / f"c{index}.safetensors").write_bytes(encode_arrays(heard))
    lags = tmp_path / "lags.json"
    lags.write_text('{"c0": 4}')
    found = load_clips(tmp_path, uses=frozenset({"train"}), lags=lags)
    assert [(clip.name, clip.speaker, len(clip)) for clip in found] == [("c0", "anna", 86)]
    with pytest.raises(InvalidRequest, match="no clip"):
        load_clips(tmp_path, uses=frozenset({"dev"}))


def test_batches_are_seeded_and_have_their_shapes(clips: list[TrainingClip]) -> None:
    basis = basis_of(clips, 3)
    sampler = BatchSampler(clips, basis, BatchConfig(batch_size=4))
    one, again = (sampler.draw(np.random.default_rng(1)) for _ in range(2))
    torch.testing.assert_close(one.content, again.content, rtol=0, atol=0)
    assert one.content.shape == (4, WINDOW, 4, NUM_CONTENT)
    assert one.offsets.shape == (4, WINDOW, 59, 3)
    np.testing.assert_allclose(one.content[..., :40].sum(-1).numpy(), 1.0, atol=1e-4)


def test_speakers_with_many_clips_are_not_drawn_in_proportion(clips: list[TrainingClip]) -> None:
    counts = {speaker: len(group) for speaker, group in by_speaker(clips).items()}
    assert counts == {"anna": 4, "ben": 2}
    sampler = BatchSampler(clips, basis_of(clips, 3), BatchConfig(speaker_exponent=0.0))
    np.testing.assert_allclose(sampler._probability, 0.5)


def test_loss_is_nothing_for_the_truth_and_grows_with_the_error(clips: list[TrainingClip]) -> None:
    basis = basis_of(clips, 3)
    batch = BatchSampler(clips, basis, BatchConfig(batch_size=4)).draw(np.random.default_rng(2))
    truth = torch.from_numpy(basis.project(batch.offsets.numpy())) / batch.spread[:, None]
    loss = MotionLoss(basis, LossWeights())
    perfect, off = loss(truth, batch), loss(truth + 0.5, batch)
    assert perfect.landmarks < 0.05 * off.landmarks
    assert perfect.velocity < 0.05
    assert perfect.total < off.total


def test_the_prior_finds_what_a_phone_does(clips: list[TrainingClip]) -> None:
    prior = fit_prior(clips, basis_of(clips, 2), PriorConfig(strength=0.02, width=3))
    reach = np.abs(prior.weight[0].reshape(4, NUM_CONTENT, -1)).sum(axis=(0, 2))
    assert reach.argmax() == 1


def test_a_run_that_was_interrupted_ends_with_the_same_weights(
    clips: list[TrainingClip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Curves, "draw", lambda self, path: None)
    config = StyleTrainingConfig(
        loop=LoopConfig(steps=4, evaluate_every=2, warm_up_steps=1),
        batches=BatchConfig(batch_size=2),
        network=StyleTranslationConfig(prior_width=3, channels=16, bank_channels=4),
        prior=PriorConfig(width=3),
    )

    def run(folder: str) -> dict[str, torch.Tensor]:
        train(config, clips[:3], [made_clip(7, "dev")], tmp_path / folder)
        weights: dict[str, torch.Tensor] = torch.load(tmp_path / folder / "checkpoint.pt", weights_only=False)["averaged"]
        return weights

    whole = run("whole")
    update = TrainingRun.update

    def killed(self: TrainingRun, loss: torch.Tensor) -> None:
        if self.step == 3:
            raise KeyboardInterrupt
        update(self, loss)

    monkeypatch.setattr(TrainingRun, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        run("killed")
    monkeypatch.setattr(TrainingRun, "update", update)
    resumed = run("killed")
    for name, value in whole.items():
        torch.testing.assert_close(value, resumed[name], rtol=0, atol=0)


def test_curves_are_drawn(tmp_path: Path) -> None:
    curves = Curves()
    curves.add(1, loss=2.0)
    curves.add(2, loss=1.0)
    curves.draw(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_scores_tell_right_from_wrong_motion() -> None:
    truth = mouths((5.0 + 4.0 * np.sin(np.arange(80) * 0.6)).astype(np.float32))
    other = mouths((5.0 + 2.0 * np.cos(np.arange(80) * 0.6)).astype(np.float32))
    usable, bilabial = np.ones(80, np.bool_), np.zeros(80, np.float32)
    right = score_motion(truth, truth, truth.mean(0), usable, bilabial, 2.0)
    wrong = score_motion(other, truth, truth.mean(0), usable, bilabial, 2.0)
    assert right.opening_correlation == pytest.approx(1.0)
    assert right.lip_distance == 0.0
    assert right.spread_ratio == pytest.approx(1.0)
    assert abs(wrong.opening_correlation) < 0.2
    assert wrong.spread_ratio == pytest.approx(0.5, abs=0.05)


def test_closures_are_counted_where_the_truth_closes() -> None:
    truth = mouths(np.array([8, 8, 0, 8, 8, 8, 8, 8, 0, 8], np.float32))
    half = mouths(np.array([8, 8, 0, 8, 8, 8, 8, 8, 7, 8], np.float32))
    bilabial = np.array([0, 0, 1, 0, 0, 1, 0, 0, 1, 0], np.float32)
    score = score_motion(half, truth, truth.mean(0), np.ones(10, np.bool_), bilabial, 4.0)
    assert (score.closure_hits, score.closure_events) == (1, 2)


def test_folds_never_test_on_what_was_enrolled_but_for_very_short_clips() -> None:
    for length in (125, 300, 600):
        for fold in folds(length):
            enrolled, tested = set(range(length)[fold.enrolment]), set(range(length)[fold.test])
            assert enrolled
            assert tested
            assert not enrolled & tested


def test_correlation_of_a_constant_is_nothing() -> None:
    assert pearson(np.ones(10), np.arange(10.0)) == 0.0
