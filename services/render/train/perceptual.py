"""Train the perceptual network: `python -m services.render.train.perceptual --data FOLDER --out FOLDER`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from services.render.networks.perceptual import PerceptualConfig, PerceptualNetwork
from services.render.networks.weights import save_weights
from services.render.train.footage import Person, read_people
from services.render.train.run_folder import RunFolder

_SCALE_SAMPLES: Final = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class PerceptualRecipe:
    """How the committed network was trained.

    Attributes:
        steps: number of steps.
        batch_size: pictures per step.
        learning_rate: largest learning rate of one cycle (AdamW).
        max_clips: largest number of clips of one person.
        sharp_marks: parts of clip names that mark footage of full resolution.
        max_blur_px: largest sigma of the random blur, pixels.
        speaker_weight: weight of the speaker's loss.
        blur_weight: weight of the blur's loss.
        seed: random seed of the whole training.
        report_every: steps between lines of the log.
    """

    steps: int = 700
    batch_size: int = 16
    learning_rate: float = 2e-3
    max_clips: int = 12
    sharp_marks: tuple[str, ...] = ("s4_hq", "ls_demo2")
    max_blur_px: float = 2.0
    speaker_weight: float = 0.3
    blur_weight: float = 0.5
    seed: int = 20261
    report_every: int = 50


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Batch of a step.

    Attributes:
        pictures: float32 [B, 3, 160, 160] in [0, 1].
        values: float32 [B, 119], landmark coordinates, normalised by `landmark_scale`, then the blur's sigma in pixels.
        speakers: int64 [B], index of each picture's person.
    """

    pictures: torch.Tensor
    values: torch.Tensor
    speakers: torch.Tensor


def landmark_scale(people: list[Person]) -> npt.NDArray[np.float32]:
    """Return mean and standard deviation of box landmarks over people, each person with the same weight: float32 [2, 118]."""
    means = [person.bank.box_landmarks.reshape(person.bank.num_frames, -1) for person in people]
    mean = np.mean([values.mean(axis=0) for values in means], axis=0)
    deviation = np.sqrt(np.mean([((values - mean) ** 2).mean(axis=0) for values in means], axis=0))
    return np.stack([mean, deviation]).astype(np.float32)


def draw_examples(
    people: list[Person], scale: npt.NDArray[np.float32], recipe: PerceptualRecipe, step: int, *, augmented: bool = True
) -> Examples:
    """Return the batch of a step: frames of random people, shifted, recoloured and blurred at random.

    Args:
        people: the people to draw from.
        scale: float32 [2, 118], what `landmark_scale` returned.
        recipe: all settings.
        step: step of the training; equal steps give equal batches.
        augmented: False: pictures as filmed.
    """
    rng = np.random.default_rng((recipe.seed, step))
    pictures, values, speakers = [], [], []
    for _ in range(recipe.batch_size):
        speaker = int(rng.integers(len(people)))
        bank = people[speaker].bank
        row = int(rng.integers(bank.num_frames))
        picture, points = bank.boxes[row].astype(np.float32) / 255.0, bank.box_landmarks[row].copy()
        blur = 0.0
        if augmented:
            shift = rng.uniform(-8.0, 8.0, 2)
            moved = np.array([[1.0, 0.0, shift[0]], [0.0, 1.0, shift[1]]])
            picture = cv2.warpAffine(picture, moved, (160, 160), borderMode=cv2.BORDER_REPLICATE)
            points = points + shift
            picture = np.clip(picture, 0, 1) ** np.exp(rng.normal(0.0, 0.2)) * np.exp(rng.normal(0.0, 0.1, 3))
            blur = float(max(0.0, rng.uniform(-0.7, 1.0))) * recipe.max_blur_px
            if blur > 0.2:
                picture = cv2.GaussianBlur(picture, (0, 0), blur)
        normal = (points.reshape(-1) - scale[0]) / scale[1]
        pictures.append(np.clip(picture, 0.0, 1.0).astype(np.float32).transpose(2, 0, 1))
        values.append(np.append(normal, blur).astype(np.float32))
        speakers.append(speaker)
    return Examples(torch.from_numpy(np.stack(pictures)), torch.from_numpy(np.stack(values)), torch.tensor(speakers))


def train(data: Path, out: Path, recipe: PerceptualRecipe) -> PerceptualNetwork:
    """Train, or go on training, and write `perceptual.safetensors` into `out`; return the network.

    Args:
        data: folder of the training set.
        out: folder of the run.
        recipe: all settings.

    Raises:
        ValueError: `out` holds a run with another recipe.
    """
    torch.manual_seed(recipe.seed)
    people = read_people(data, use="train", max_clips=recipe.max_clips, sharp_marks=recipe.sharp_marks)
    scale = landmark_scale(people)
    network = PerceptualNetwork(PerceptualConfig(num_speakers=len(people)))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, total_steps=recipe.steps)
    folder = RunFolder(out)
    first = 0
    if (held := folder.resume(recipe)) is not None:
        network.load_state_dict(held["network"])
        optimiser.load_state_dict(held["optimiser"])
        schedule.load_state_dict(held["schedule"])
        first = int(held["step"])
    for step in range(first, recipe.steps):
        examples = draw_examples(people, scale, recipe, step)
        with torch.autocast("cpu", torch.bfloat16):
            recognised = network(examples.pictures.contiguous(memory_format=torch.channels_last))
        values, logits = recognised.values.float(), recognised.speakers.float()
        landmark = F.smooth_l1_loss(values[:, :-1], examples.values[:, :-1])
        blur = F.smooth_l1_loss(values[:, -1], examples.values[:, -1])
        speaker = F.cross_entropy(logits, examples.speakers)
        optimiser.zero_grad()
        torch.autograd.backward(landmark + recipe.blur_weight * blur + recipe.speaker_weight * speaker)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        if (step + 1) % recipe.report_every == 0:
            right = (logits.argmax(1) == examples.speakers).float().mean()
            folder.log(
                step + 1,
                {
                    "landmark_loss": float(landmark.detach()),
                    "landmark_error_px": float(
                        ((values.detach() - examples.values)[:, :-1].abs().mean(0) * torch.from_numpy(scale[1])).mean()
                    ),
                    "blur_error_px": float((values.detach() - examples.values)[:, -1].abs().mean()),
                    "speaker_accuracy": float(right),
                },
            )
            folder.save(
                {
                    "network": network.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "schedule": schedule.state_dict(),
                    "step": step + 1,
                },
                recipe,
            )
    network.eval()
    _measure_scales(network, people, scale, recipe)
    save_weights(out / "perceptual.safetensors", network, network.config.to_metadata(), seed=str(recipe.seed))
    folder.draw_curves()
    return network


@torch.no_grad()
def _measure_scales(
    network: PerceptualNetwork, people: list[Person], scale: npt.NDArray[np.float32], recipe: PerceptualRecipe
) -> None:
    sums = torch.zeros(len(network.config.widths))
    batches = _SCALE_SAMPLES // recipe.batch_size
    for batch in range(batches):
        examples = draw_examples(people, scale, recipe, recipe.steps + batch, augmented=False)
        sums += torch.stack([feature.abs().mean() for feature in network.features(examples.pictures)])
    assert isinstance(network.feature_scales, torch.Tensor)
    network.feature_scales *= sums / batches


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="training set: a folder of *.safetensors")
    parser.add_argument("--out", type=Path, default=Path("build/perceptual"), help="folder of the run")
    parser.add_argument("--steps", type=int, default=PerceptualRecipe().steps)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    cv2.setNumThreads(1)
    train(given.data, given.out, PerceptualRecipe(steps=given.steps))


if __name__ == "__main__":
    main()
