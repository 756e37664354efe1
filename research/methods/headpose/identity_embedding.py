"""Training of the identity embedding with the additive angular margin.

Each batch has the same number of pictures of every person. Colours, scale, position, mirror and sharpness change from picture to
picture. Checks say how well the embedding tells people apart that were never trained on: area under the ROC curve of the cosine,
over pairs of pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from research.render.people import People, PeopleSettings, TrainingPerson, person_clips, random_colours
from research.training.device import Device
from research.training.networks import Opening, TrainableNetwork
from research.training.training import Check, LoopSettings, OptimiserSettings, Supervised
from services.common.array_types import Int64, UInt8
from services.common.errors import InvalidRequestError
from services.common.face.crops import BOX_SIZE
from services.render.networks.weights import save_weights, to_tensor
from services.render.renderers.headpose.identity_features import EMBEDDING, IdentityEmbedding, IdentityEmbeddingConfig

_CHECK_PEOPLE: Final = 12
_CHECK_CLIPS: Final = 2
_CHECK_FRAMES: Final = 600


@dataclass(frozen=True, slots=True)
class Verification:
    """Scores that tell pairs of the same person from pairs of two people.

    Attributes:
        area: area under the ROC curve, pictures as filmed.
        area_recoloured: area under the ROC curve with colours, position and sharpness changed in every picture.
        same: mean cosine of pairs of the same person.
        different: mean cosine of pairs of two people.
    """

    area: float
    area_recoloured: float
    same: float
    different: float


def varied(picture: UInt8, rng: np.random.Generator) -> UInt8:
    """Return a face in other colours, a little larger or smaller, moved, turned, blurred, perhaps mirrored: uint8 [160, 160, 3]."""
    scale, angle = np.exp(rng.normal(0.0, 0.06)), float(rng.normal(0.0, 3.0))
    affine = cv2.getRotationMatrix2D((BOX_SIZE / 2, BOX_SIZE / 2), angle, float(scale))
    affine[:, 2] = affine[:, 2] + rng.normal(0.0, 4.0, 2)
    moved = cv2.warpAffine(picture, affine, (BOX_SIZE, BOX_SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if rng.random() < 0.5:
        moved = cv2.GaussianBlur(moved, (0, 0), float(rng.uniform(0.4, 2.0)))
    coloured = random_colours(rng).of(np.asarray(moved, np.uint8))
    return np.ascontiguousarray(coloured[:, ::-1]) if rng.random() < 0.5 else coloured


def area_under_roc(same: npt.NDArray[np.floating], different: npt.NDArray[np.floating]) -> float:
    """Return the probability that a pair of the same person is more alike than a pair of two people: 0.5 is chance.

    Args:
        same: float [N], likeness of pairs of the same person.
        different: float [M], likeness of pairs of two people.
    """
    both = np.concatenate([same, different])
    ranks = np.empty(len(both), np.float64)
    order = np.argsort(both, kind="stable")
    ranks[order] = np.arange(1, len(both) + 1)
    # Equal values share their mean rank.
    _, inverse, counts = np.unique(both, return_inverse=True, return_counts=True)
    shared = (np.bincount(inverse, ranks) / counts)[inverse]
    wins = shared[: len(same)].sum() - len(same) * (len(same) + 1) / 2
    return float(wins / (len(same) * len(different)))


@torch.no_grad()
def verify(network: nn.Module, people: Sequence[TrainingPerson], *, pictures: int = 24, seed: int = 0) -> Verification:
    """Return figures over all pairs of pictures, which are evenly spread over each person's footage.

    Args:
        network: the embedding.
        people: the people to tell apart, two or more.
        pictures: pictures of each person.
        seed: random seed of the changed pictures.
    """
    rng = np.random.default_rng(seed)
    boxes: list[UInt8] = []
    owners: list[int] = []
    for label, person in enumerate(people):
        rows = np.unique(np.linspace(0, person.bank.num_frames - 1, pictures).round().astype(int))
        boxes.append(person.bank.boxes[rows])
        owners.extend([label] * len(rows))
    shown, owner = np.concatenate(boxes), np.array(owners)
    device = next(network.parameters()).device
    plain = network(to_tensor(shown, device)).cpu().numpy()
    other = network(to_tensor(np.stack([varied(picture, rng) for picture in shown]), device)).cpu().numpy()
    first, second = np.triu_indices(len(owner), 1)
    same = owner[first] == owner[second]
    alike = (plain @ plain.T)[first, second]
    recoloured = (other @ other.T)[first, second]
    return Verification(
        area_under_roc(alike[same], alike[~same]),
        area_under_roc(recoloured[same], recoloured[~same]),
        float(alike[same].mean()),
        float(alike[~same].mean()),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingRecipe:
    """Recipe of the embedding's training.

    Attributes:
        loop: length, pace and machinery.
        optimiser: rates and the average of the weights. Gradients are not clipped: the largest norm is out of reach.
        pictures: pictures of each person in a batch.
        batch_people: largest number of people in a batch.
        margin: m of the additive angular margin, radians.
        scale: s of the additive angular margin.
        people: how many people are in memory; all are drawn equally often.
        network: shape of the network.
    """

    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=700, seed=20268))
    optimiser: OptimiserSettings = field(
        default_factory=lambda: OptimiserSettings(learning_rate=1.5e-3, warm_up_steps=0, weight_decay=0.0, gradient_norm=1e3)
    )
    pictures: int = 4
    batch_people: int = 24
    margin: float = 0.3
    scale: float = 16.0
    people: PeopleSettings = field(default_factory=PeopleSettings)
    network: IdentityEmbeddingConfig = field(default_factory=IdentityEmbeddingConfig)


CONFIGS: Final = {
    "default": EmbeddingRecipe(),
    # Channels of ResNet-50's stages, 512 numbers, margin .5 and scale 64, as ArcFace has them (Deng et al. 2019, Sec. 3.1).
    "large": EmbeddingRecipe(
        loop=LoopSettings(steps=60_000, seed=20268, check_every=1_000, workers=8, bfloat16=True),
        optimiser=OptimiserSettings(learning_rate=5e-4, warm_up_steps=1_000, weight_decay=5e-4, averaging=0.999),
        batch_people=32,
        margin=0.5,
        scale=64.0,
        people=PeopleSettings(max_frames=300, pool_people=64, pool_steps=100),
        network=IdentityEmbeddingConfig(widths=(64, 64, 128, 256, 512), size=512),
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingBatch:
    """Examples of a pass.

    Attributes:
        pictures: uint8 [B, 160, 160, 3].
        labels: int64 [B], index of each picture's person.
    """

    pictures: UInt8
    labels: Int64


class AngularMarginHead(nn.Module):
    """Additive angular margin (Deng et al. 2019, Eq. 3): logits s cos(theta + m) for the right class, s cos(theta) for the others.

    Args:
        size: numbers of a feature.
        num_classes: number of people.
        margin: m, radians.
        scale: s.
    """

    def __init__(self, size: int, num_classes: int, *, margin: float = 0.3, scale: float = 16.0) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.empty(num_classes, size))
        nn.init.xavier_normal_(self.centres)
        self.margin, self.scale = margin, scale

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return logits, float [B, C], of unit features, float [B, size], with their classes, int64 [B]."""
        cosine = features @ F.normalize(self.centres, dim=1).T
        right = F.one_hot(labels, len(self.centres)).to(cosine.dtype)
        own = cosine.clamp(-1.0 + 1e-6, 1.0 - 1e-6)
        moved = own * math.cos(self.margin) - (1.0 - own.square()).sqrt() * math.sin(self.margin)
        # Beyond pi - m the cosine of the sum would grow again: there the cosine is lowered by a constant, as the authors do.
        moved = torch.where(own > math.cos(math.pi - self.margin), moved, own - self.margin * math.sin(self.margin))
        return (right * moved + (1.0 - right) * cosine) * self.scale


class EmbeddingTraining(Supervised[EmbeddingBatch]):
    """Training of the embedding, one class a person.

    Args:
        device: where this process computes.
        people: the people to learn from.
        held_out: people of the checks; the embedding does not learn from them.

    Raises:
        InvalidRequestError: there is only one person to learn from.
    """

    def __init__(self, recipe: EmbeddingRecipe, device: Device, people: People, held_out: People) -> None:
        if len(people.clips) < 2:
            raise InvalidRequestError(
                "the identity embedding needs clips of two people or more in the split 'train': add clips of other people",
                field="data",
            )
        torch.manual_seed(recipe.loop.seed)
        network = IdentityEmbedding(recipe.network)
        head = AngularMarginHead(recipe.network.size, len(people.clips), margin=recipe.margin, scale=recipe.scale)
        module = nn.ModuleDict({"network": network, "head": head})
        super().__init__(recipe.loop, device, people.rows, module, recipe.optimiser)
        self._recipe, self._people, self._held_out = recipe, people, held_out

    def batch(self, step: int, index: int) -> EmbeddingBatch:
        """See Training.batch."""
        rng = np.random.default_rng((self.settings.seed, step, index))
        pool = self._people.pool(step)
        numbers = np.arange(len(self._people.clips)) if pool is None else np.unique(pool)
        if len(numbers) > self._recipe.batch_people:
            numbers = np.sort(rng.choice(numbers, self._recipe.batch_people, replace=False))
        pictures = [
            varied(boxes[rng.integers(len(boxes))], rng)
            for boxes in (self._people.person(int(number), step).bank.boxes for number in numbers)
            for _ in range(self._recipe.pictures)
        ]
        return EmbeddingBatch(np.stack(pictures), np.repeat(numbers, self._recipe.pictures).astype(np.int64))

    def losses(self, batch: EmbeddingBatch) -> dict[str, Tensor]:
        """Return the cross-entropy of the angular margin."""
        device = self.device.torch_device
        labels = torch.from_numpy(batch.labels).to(device)
        features = self.module.get_submodule("network")(to_tensor(batch.pictures, device))
        # The loss is computed in float32: a cosine near 1 has too few digits in bfloat16.
        with self.device.autocast(bfloat16=False):
            logits = self.module.get_submodule("head")(features.float(), labels)
            return {"total": F.cross_entropy(logits, labels)}

    def check(self, step: int, folder: Path) -> Check:
        """Tell held-out people apart. With a single held-out person, one person that the embedding learns from joins them."""
        people = [self._held_out.person(number, 0) for number in range(min(len(self._held_out.clips), _CHECK_PEOPLE))]
        if len(people) == 1:
            others = [index for index, clips in enumerate(self._people.clips) if clips.name != people[0].name]
            people.append(self._people.person(others[0], 0))
        return Check(asdict(verify(self.average.get_submodule("network"), people)))

    def write(self, folder: Path) -> None:
        """Write `identity_embedding.safetensors`."""
        facts = {"steps": str(self.settings.steps), "seed": str(self.settings.seed)}
        network = self.average.get_submodule("network")
        save_weights(folder / f"{EMBEDDING}.safetensors", network, self._recipe.network.to_metadata(), **facts)


def _open(opening: Opening) -> EmbeddingTraining:
    recipe, data = opening.config, opening.data
    clips = person_clips(data.of("train", pixels=True), apart=False)
    shares = np.full(len(clips), 1.0 / len(clips))
    people = People(data, clips, recipe.people, seed=recipe.loop.seed, shares=shares)
    seen = PeopleSettings(max_clips=_CHECK_CLIPS, max_frames=_CHECK_FRAMES, pool_people=_CHECK_PEOPLE)
    held_out = People(data, person_clips(data.of("val", pixels=True), apart=False), seen, seed=0)
    return EmbeddingTraining(recipe, opening.device, people, held_out)


NETWORK: Final = TrainableNetwork(
    name="identity_embedding",
    stage="render",
    summary="says by a unit vector who the person on a picture of the lower face is; served with the run of headpose_renderer",
    configs=CONFIGS,
    open=_open,
    export=None,
)
