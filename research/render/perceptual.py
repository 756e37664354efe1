"""Training of the perceptual network (services.render.networks.perceptual): landmarks, speaker and blur of pictures."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from research.render.people import People, PeopleSettings, PersonClips, person_clips
from research.training.device import Device
from research.training.networks import Opening, TrainableNetwork
from research.training.training import Check, LoopSettings, OptimiserSettings, Supervised
from research.training.trainset import TrainSet
from services.common.array_types import Float32, Int64
from services.common.face.crops import HeadPose, head_to_box
from services.common.files import write_whole
from services.render.networks.perceptual import PerceptualConfig, PerceptualNetwork
from services.render.networks.weights import save_weights

FILE: Final = "perceptual.safetensors"
"""Name of the weights file."""
_SCALE_BATCHES: Final = 8
"""Batches of pictures as filmed over which the features' mean absolute values are measured."""
_SCALE_PEOPLE: Final = 64
_SCALE_CLIPS: Final = 4
"""People, and clips of each, whose landmarks are measured."""
_LEAST_DEVIATION_PX: Final = 0.1
_CHECK_BATCHES: Final = 4
_CHECK_PEOPLE: Final = PeopleSettings(max_clips=2, max_frames=300, pool_people=12)


@dataclass(frozen=True, kw_only=True, slots=True)
class PerceptualRecipe:
    """Recipe of the network's training.

    Attributes:
        loop: length, pace and machinery.
        optimiser: rates and the average of the weights.
        batch_size: pictures of a batch.
        max_blur_px: largest sigma of the random blur, pixels.
        speaker_weight: weight of the speaker's loss.
        blur_weight: weight of the blur's loss.
        people: how many people are in memory; all are drawn equally often.
        widths: channels of the four stages.
    """

    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=700, seed=20261, bfloat16=True))
    optimiser: OptimiserSettings = field(
        default_factory=lambda: OptimiserSettings(
            learning_rate=2e-3, warm_up_steps=210, last_share=1e-4, weight_decay=1e-3, gradient_norm=5.0
        )
    )
    batch_size: int = 16
    max_blur_px: float = 2.0
    speaker_weight: float = 0.3
    blur_weight: float = 0.5
    people: PeopleSettings = field(default_factory=lambda: PeopleSettings(max_clips=12))
    widths: tuple[int, int, int, int] = PerceptualConfig().widths  # type: ignore[assignment]


CONFIGS: Final = {
    "default": PerceptualRecipe(),
    # The first four stages of VGG-13 (Simonyan and Zisserman 2014, table 1, column B): two convolutions of these widths each.
    "large": PerceptualRecipe(
        loop=LoopSettings(steps=60_000, seed=20261, check_every=1_000, workers=8, bfloat16=True),
        optimiser=OptimiserSettings(learning_rate=5e-4, warm_up_steps=2_000, weight_decay=1e-3, gradient_norm=5.0, averaging=0.999),
        batch_size=64,
        people=PeopleSettings(max_frames=300, pool_people=64, pool_steps=100),
        widths=(64, 128, 256, 512),
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Examples of a pass.

    Attributes:
        pictures: float32 [B, 3, 160, 160] in [0, 1].
        values: float32 [B, 119], landmark coordinates, normalised by `landmark_scale`, then the blur's sigma in pixels.
        speakers: int64 [B], number of each picture's person.
    """

    pictures: Float32
    values: Float32
    speakers: Int64


def landmark_scale(data: TrainSet, people: list[PersonClips]) -> Float32:
    """Return mean and standard deviation of box landmarks over people, each person with the same weight: float32 [2, 118].

    At most 64 people count, evenly spread over all, and four clips of each.
    """
    indices = np.unique(np.linspace(0, len(people) - 1, _SCALE_PEOPLE).round().astype(int))
    landmarks = [_box_landmarks(data, people[index]) for index in indices]
    mean = np.mean([values.mean(axis=0) for values in landmarks], axis=0)
    deviation = np.sqrt(np.mean([((values - mean) ** 2).mean(axis=0) for values in landmarks], axis=0))
    # A coordinate that never moves must not be divided by nothing.
    return np.stack([mean, np.maximum(deviation, _LEAST_DEVIATION_PX)]).astype(np.float32)


def _box_landmarks(data: TrainSet, person: PersonClips) -> Float32:
    landmarks = []
    for row in person.rows[:_SCALE_CLIPS]:
        track = data.arrays(row, "track", ("usable", "mouth_landmarks", "rotation"))
        for frame in np.flatnonzero(track["usable"]):
            pose = HeadPose(1.0, track["rotation"][frame], np.zeros(3))
            landmarks.append(head_to_box(track["mouth_landmarks"][frame], pose).reshape(-1))
    return np.stack(landmarks)


def draw_examples(
    people: People, scale: Float32, recipe: PerceptualRecipe, rng: np.random.Generator, step: int, *, augmented: bool = True
) -> Examples:
    """Return frames of random people, shifted, recoloured and blurred at random.

    Args:
        scale: float32 [2, 118], what `landmark_scale` returned.
        rng: source of the draws.
        step: step of the training, which says who is in memory.
        augmented: False: pictures as filmed.
    """
    pictures, values, speakers = [], [], []
    for _ in range(recipe.batch_size):
        person = people.draw(rng, step)
        row = int(rng.integers(person.bank.num_frames))
        picture, points = person.bank.boxes[row].astype(np.float32) / 255.0, person.bank.box_landmarks[row].copy()
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
        speakers.append(person.number)
    return Examples(np.stack(pictures), np.stack(values), np.array(speakers, np.int64))


class PerceptualTraining(Supervised[Examples]):
    """Training of the perceptual network.

    Args:
        device: where this process computes.
        people: the people to learn from.
        scale: float32 [2, 118], what `landmark_scale` returned.
        held_out: people of the checks.
    """

    def __init__(self, recipe: PerceptualRecipe, device: Device, people: People, scale: Float32, held_out: People) -> None:
        torch.manual_seed(recipe.loop.seed)
        network = PerceptualNetwork(PerceptualConfig(widths=recipe.widths, num_speakers=len(people.clips)))
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(recipe.loop, device, people.rows, network, recipe.optimiser)
        self._recipe, self._people, self._scale, self._held_out = recipe, people, scale, held_out

    def batch(self, step: int, index: int) -> Examples:
        """See Training.batch."""
        rng = np.random.default_rng((self.settings.seed, step, index))
        return draw_examples(self._people, self._scale, self._recipe, rng, step)

    def losses(self, batch: Examples) -> dict[str, Tensor]:
        """Return the losses of landmarks, blur and speaker, their weighted sum, and errors in pixels."""
        recipe, device = self._recipe, self.device.torch_device
        recognised = self.module(self._pictures(batch))
        values, logits = recognised.values.float(), recognised.speakers.float()
        target, speakers = torch.from_numpy(batch.values).to(device), torch.from_numpy(batch.speakers).to(device)
        landmark = F.smooth_l1_loss(values[:, :-1], target[:, :-1])
        blur = F.smooth_l1_loss(values[:, -1], target[:, -1])
        speaker = F.cross_entropy(logits, speakers)
        return {
            "total": landmark + recipe.blur_weight * blur + recipe.speaker_weight * speaker,
            "landmark_loss": landmark.detach(),
            "speaker_accuracy": (logits.argmax(1) == speakers).float().mean(),
            **self._errors(values.detach(), target),
        }

    @torch.no_grad()
    def check(self, step: int, folder: Path) -> Check:
        """Return the errors on held-out people, without a score: the loss needs features of all three tasks."""
        sums: dict[str, float] = {}
        for number in range(_CHECK_BATCHES):
            batch = draw_examples(self._held_out, self._scale, self._recipe, np.random.default_rng(number), 0)
            values = self.average(self._pictures(batch)).values.float()
            target = torch.from_numpy(batch.values).to(values.device)
            for name, error in self._errors(values, target).items():
                sums[name] = sums.get(name, 0.0) + float(error) / _CHECK_BATCHES
        return Check({f"held_out_{name}": value for name, value in sums.items()})

    @torch.no_grad()
    def write(self, folder: Path) -> None:
        """Write `perceptual.safetensors`, with the features' mean absolute values over pictures of the training people."""
        network = copy.deepcopy(self.average)
        assert isinstance(network, PerceptualNetwork)
        sums = torch.zeros(len(self._recipe.widths), device=self.device.torch_device)
        for number in range(_SCALE_BATCHES):
            rng = np.random.default_rng((self.settings.seed, self.settings.steps + number))
            examples = draw_examples(self._people, self._scale, self._recipe, rng, self.settings.steps, augmented=False)
            sums += torch.stack([feature.abs().mean() for feature in network.features(self._pictures(examples))])
        assert isinstance(network.feature_scales, Tensor)
        network.feature_scales *= sums / _SCALE_BATCHES
        save_weights(folder / FILE, network, network.config.to_metadata(), seed=str(self.settings.seed))

    def _pictures(self, batch: Examples) -> Tensor:
        pictures = torch.from_numpy(batch.pictures).to(self.device.torch_device)
        return pictures.contiguous(memory_format=torch.channels_last)

    def _errors(self, values: Tensor, target: Tensor) -> dict[str, Tensor]:
        error = (values - target).abs().mean(dim=0)
        pixels = torch.from_numpy(self._scale[1]).to(error.device)
        return {"landmark_error_px": (error[:-1] * pixels).mean(), "blur_error_px": error[-1]}


def _open(opening: Opening) -> PerceptualTraining:
    recipe, data = opening.config, opening.data
    clips = person_clips(data.of("train", pixels=True))
    people = People(data, clips, recipe.people, seed=recipe.loop.seed, shares=np.full(len(clips), 1.0 / len(clips)))
    held_out = People(data, person_clips(data.of("val", pixels=True)), _CHECK_PEOPLE, seed=0)
    return PerceptualTraining(recipe, opening.device, people, landmark_scale(data, clips), held_out)


def _export(run: Path, folder: Path) -> list[Path]:
    return [write_whole(folder / FILE, (run / FILE).read_bytes())]


NETWORK: Final = TrainableNetwork(
    name="perceptual",
    stage="render",
    summary="features for the perceptual loss of the renderers, in training and when an actor is personalised",
    configs=CONFIGS,
    open=_open,
    export=_export,
)
