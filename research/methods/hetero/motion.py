"""Training of the landmark generator of `hetero` (Xie et al. 2021, Sec. 3.2) on heterogeneous sources, and its export.

The losses are: of landmarks, of landmarks that the teacher of speech without pictures names, and of the names of the phones.

One step sees clips with a face, whether their pixels are good or not, and speech without pictures. Clips with a face teach
landmarks (Eq. 2). Both kinds teach the mel encoder the names of the phones, and the generator what a linear filter expects of these
phones, or of the states (speech_data.py).

The best step is selected on held-out clips by the correlation of opening and lip width.

The export writes hetero_generator.onnx, hetero_person.onnx, hetero_constants.safetensors and the sheet hetero.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import torch
from pydantic import Field, TypeAdapter
from torch import Tensor
from torch.nn import functional

from research.methods.hetero.speech_data import (
    HeteroBatch,
    HeteroBatchConfig,
    HeteroBatchSampler,
    TeacherConfig,
    fit_teacher,
    input_shape,
    mean_pose_landmarks,
    network_input,
)
from research.motion.basis import STYLE_BASIS, basis_digest, point_weights, style_basis
from research.motion.clips import Clips, TrainingClip, clips_of
from research.motion.export import Delivery, MotionExportSpec, admit, measure_parity, open_run, write_onnx
from research.motion.losses import LandmarkLoss, LandmarkLossWeights
from research.motion.protocol import ClipFold, Groups, NoStyleCode, Scores, checked_groups, evaluate_clip, summary
from research.motion.training import PredictorTraining, load_network
from research.training.networks import Opening, TrainableNetwork
from research.training.run_folder import read_config
from research.training.training import LoopSettings, OptimiserSettings
from services.common.array_types import Array, Float32
from services.common.errors import InvalidRequestError
from services.common.face.landmarks import NUM_UPPER
from services.motion.basis import LandmarkBasis
from services.motion.predictors.hetero.network import Generated, HeteroConfig, HeteroNetwork
from services.motion.predictors.hetero.predictor import (
    CONSTANTS_FILE,
    GENERATOR,
    PERSON,
    POSE,
    REFERENCE,
    REFERENCE_FRAMES,
    SERVED,
    WINDOW,
    person_of,
)
from services.motion.speech_states import STATES
from services.motion.style import Style, encode_style
from services.motion.types import NUM_POINTS, SpeechFeatures

PoseOf = Callable[[TrainingClip], Float32]
"""Function that returns the mean pose landmarks of a clip, float32 [99, 3]."""
BASIS_NETWORK: Final = "ugc_motion"
"""Network whose run brings the landmark basis of the style."""
_MEAN_CLIPS: Final = 200
"""Most clips that the mean speaker is measured on."""
NAME: Final = "hetero_motion"
"""Name of the network on the command line."""
SHEET: Final = "hetero"
"""Name of the sheet and of the card's copy, without endings."""
_TOLERANCE: Final = 2e-4
_PARITY_RUNS: Final = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class HeteroLossWeights(LandmarkLossWeights):
    """Weights of the parts of the loss. The paper's is L1 of landmarks (Eq. 2)."""

    taught: float = 0.2
    phones: float = 0.3


class GeneratorLoss:
    """Loss of the generator.

    Distances are relative to the person's amplitude, so that a small mouth counts as much as a large mouth.

    Args:
        basis: landmark basis of the style.
        weights: weights of the parts.
        device: device of the tensors.
    """

    def __init__(self, basis: LandmarkBasis, weights: HeteroLossWeights, device: torch.device) -> None:
        self._landmarks = LandmarkLoss(basis, weights, device)
        self._components = torch.tensor(basis.components, device=device)
        self._point_weights = torch.tensor(point_weights() / point_weights().mean(), device=device)
        self._typical = torch.tensor(basis.typical_spread, device=device)
        self._weights = weights

    def __call__(self, generated: Generated, batch: HeteroBatch[Tensor]) -> dict[str, Tensor]:
        """Return the parts of the loss, scalars, with their weighted sum as `total`."""
        parts = self._landmarks(generated.coefficients, batch)._asdict()
        size = torch.linalg.vector_norm(batch.spread, dim=1) / torch.linalg.vector_norm(self._typical)
        missed = (generated.coefficients - batch.taught) * batch.spread[:, None]
        apart = torch.einsum("ntk,kpd->ntpd", missed, self._components) / size[:, None, None, None]
        frames = (apart.abs() * self._point_weights).mean(dim=(2, 3))
        taught = (frames * batch.inside).sum() / batch.inside.sum().clamp(min=1.0)
        phones = -(batch.phones * functional.log_softmax(generated.phones, dim=-1)).sum(-1).mean()
        total = parts["total"] + self._weights.taught * taught + self._weights.phones * phones
        return {**parts, "total": total, "taught": taught, "phones": phones}


@dataclass(frozen=True, kw_only=True, slots=True)
class HeteroTrainingConfig:
    """Everything that decides the result of the training. The defaults are those of the paper's input.

    Attributes:
        network: sizes.
        batches: drawing and augmentation.
        teacher: settings of the teacher of speech without pictures.
        loop: length and pace.
        optimiser: rates.
        statistics_clips: most clips with a face that the teacher is fitted to.
    """

    network: HeteroConfig = field(default_factory=HeteroConfig)
    batches: HeteroBatchConfig = field(default_factory=lambda: HeteroBatchConfig(seen=8))
    losses: HeteroLossWeights = field(
        default_factory=lambda: HeteroLossWeights(velocity=0.5, opening=0.0, correlation=0.0, closure=0.0, taught=1.0, phones=1.0)
    )
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=2400, check_every=400))
    optimiser: OptimiserSettings = field(
        default_factory=lambda: OptimiserSettings(learning_rate=2e-3, warm_up_steps=50, averaging=0.99)
    )
    statistics_clips: Annotated[int, Field(ge=1)] = 600


CONFIGS: Final = {
    "default": HeteroTrainingConfig(),
    # States of the speech encoder in place of the paper's spectrogram, for comparison. The stage cannot serve it.
    "states": HeteroTrainingConfig(
        network=HeteroConfig(heard="states"),
        batches=HeteroBatchConfig(),
        losses=HeteroLossWeights(),
        loop=LoopSettings(steps=300, check_every=100),
    ),
    # The paper takes over the spectrum encoder of Wav2Lip (Prajwal et al. 2020), which has up to 512 channels.
    "large": HeteroTrainingConfig(
        network=HeteroConfig(channels=(64, 128, 256), embedding=512, decoder_channels=64),
        batches=HeteroBatchConfig(seen=64, heard=64, frames=50, reference_frames=32),
        loop=LoopSettings(steps=100_000, check_every=2000, patience=10, workers=8, bfloat16=True),
        optimiser=OptimiserSettings(learning_rate=1e-3, warm_up_steps=1000, averaging=0.999),
        statistics_clips=2000,
    ),
}


class TorchHetero:
    """The generator in PyTorch as protocol.Predict, all frames of a clip at once.

    Args:
        network: the generator.
        basis: landmark basis of the style.
        pose_of: returns the pose landmarks of a clip.
    """

    def __init__(self, network: HeteroNetwork, basis: LandmarkBasis, pose_of: PoseOf) -> None:
        self._network, self._basis, self._pose_of = network, basis, pose_of
        self._device = next(network.parameters()).device

    @torch.no_grad()
    def person(self, mouths: Float32, pose: Float32) -> tuple[Float32, Float32]:
        """Return the vectors of reference mouths [T, 59, 3] and of pose landmarks [99, 3], float32 [C] each."""
        chosen = mouths[np.linspace(0, len(mouths) - 1, min(len(mouths), REFERENCE_FRAMES)).round().astype(np.intp)]
        given = (torch.from_numpy(np.ascontiguousarray(each))[None].to(self._device) for each in (chosen, pose))
        reference, upper = self._network.person(*given)
        return reference[0].cpu().numpy(), upper[0].cpu().numpy()

    def encode(self, clip: TrainingClip, fold: ClipFold) -> Style:
        """Return the style of a fold's enrolment part, see protocol.Encode."""
        mouths, usable = clip.mouth_landmarks[fold.enrolment], clip.usable[fold.enrolment]
        style = encode_style(mouths, usable, self._basis, NoStyleCode())
        reference, pose = self.person(mouths[usable], self._pose_of(clip))
        return style.adding(**{REFERENCE: reference, POSE: pose})

    @torch.no_grad()
    def coefficients(self, features: SpeechFeatures, person: tuple[Float32, Float32]) -> Float32:
        """Return the generator's answer to a clip, float32 [T, K] in units of the spread; `person` is as `person` returns it."""
        inputs = (network_input(features, self._network.config.heard), *person)
        speech, reference, pose = (torch.from_numpy(each)[None].to(self._device) for each in inputs)
        answer: Float32 = self._network(speech, reference, pose)[0].cpu().numpy()
        return answer

    def __call__(self, features: SpeechFeatures, style: Style) -> Float32:
        """Predict mouths before the gain and the constraints, see protocol.Predict."""
        offsets = self._basis.reconstruct(self.coefficients(features, person_of(style)) * style.spread)
        return np.asarray(style.rest_mouth + offsets, np.float32)

    def scores(self, groups: Groups) -> Scores:
        """Return the summary of each group of clips."""
        return {
            name: summary([evaluate_clip(clip, self.encode, self, control=False) for clip in members])
            for name, members in groups.items()
        }


class HeteroTraining(PredictorTraining[HeteroBatch[Float32]]):
    """Training of the landmark generator."""

    def __init__(self, opening: Opening) -> None:
        config: HeteroTrainingConfig = opening.config
        data = opening.data
        self._basis = style_basis(opening, BASIS_NETWORK)
        speech_input = config.network.heard
        extra = () if speech_input == "mel" else (STATES,)
        clips = clips_of(data, "train", extra)
        self.groups = checked_groups(data, extra)
        rows = {row.name: row for row in data.rows}
        self._poses = lru_cache(maxsize=None)(lambda name: mean_pose_landmarks(data, rows[name]))
        self._mean_clips = clips.chosen(_MEAN_CLIPS, config.loop.seed)
        self._loss = GeneratorLoss(self._basis, config.losses, opening.device.torch_device)
        fitted_on = clips.chosen(config.statistics_clips, config.loop.seed)
        speech = [row for row in data.of("train") if not row.has_face] if config.batches.heard else []
        teacher = fit_teacher(fitted_on, self._basis, config.teacher, speech_input)
        sampler = HeteroBatchSampler(data, clips, speech, self._basis, teacher, config.batches)
        torch.manual_seed(config.loop.seed)
        network = HeteroNetwork(config.network)
        if speech_input != "mel":
            network.set_filter(torch.from_numpy(teacher.shared.weight), torch.from_numpy(teacher.shared.bias))
        network.set_constants(
            torch.from_numpy(self._basis.dual / self._basis.typical_spread[:, None, None]),
            torch.from_numpy(_mean_over_speakers(self._mean_clips, lambda clip: clip.mouth_landmarks[clip.usable].mean(axis=0))),
            torch.from_numpy(_mean_over_speakers(self._mean_clips, self._pose_of)),
        )
        super().__init__(config, opening.device, clips, network, sampler)
        self.clips = (*self.clips, *speech)

    def losses(self, batch: HeteroBatch[Float32]) -> dict[str, Tensor]:
        """Return the losses of GeneratorLoss."""
        network = self.module
        assert isinstance(network, HeteroNetwork)
        here = batch.on(self.device.torch_device)
        generated = network.generate(here.speech, *network.person(here.reference, here.pose))
        with self.device.autocast(bfloat16=False):
            return self._loss(generated, here)

    def scores(self) -> Scores:
        """Return the scores of the averaged network."""
        return self._predictor().scores(self.groups)

    def constants(self) -> Mapping[str, Array]:
        """Return the vectors of the mean speaker, and the mean face."""
        predictor, network = self._predictor(), self.average
        assert isinstance(network, HeteroNetwork)

        def person(clip: TrainingClip) -> Float32:
            return np.stack(predictor.person(clip.mouth_landmarks[clip.usable], self._pose_of(clip)))

        reference, pose = _mean_over_speakers(self._mean_clips, person)

        return {
            "mean_reference": reference,
            "mean_pose": pose,
            "mean_face": network.person.pose.mean.cpu().numpy(),
        }

    def facts(self) -> Mapping[str, str]:
        """Return the digest of the landmark basis."""
        return {STYLE_BASIS: basis_digest(self._basis)}

    def _pose_of(self, clip: TrainingClip) -> Float32:
        return self._poses(clip.name)

    def _predictor(self) -> TorchHetero:
        assert isinstance(self.average, HeteroNetwork)
        return TorchHetero(self.average, self._basis, self._pose_of)


def _mean_over_speakers(clips: Clips, measure: Callable[[TrainingClip], Array]) -> Float32:
    """Return the mean over speakers of the mean over at most five clips of a speaker."""
    groups = clips.by_speaker().values()
    means = [np.mean([measure(clip) for clip in group[:5]], axis=0) for group in groups]
    return np.asarray(np.mean(means, axis=0), np.float32)


def specs(config: HeteroConfig) -> tuple[MotionExportSpec, MotionExportSpec]:
    """Return the descriptions of the generator and of the encoders of the person."""
    limits: dict[str, Any] = {"tolerance": _TOLERANCE, "parity_runs": _PARITY_RUNS}
    vector = (1, config.embedding)
    speech = (1, WINDOW, *input_shape(config.heard))
    generator = MotionExportSpec(
        name=GENERATOR, inputs={"speech": speech, "reference": vector, "pose": vector}, outputs=("coefficients",), **limits
    )
    shown = {"mouths": (1, None, NUM_POINTS, 3), "pose": (1, NUM_UPPER, 3)}
    person = MotionExportSpec(name=PERSON, inputs=shown, outputs=("reference", "pose_vector"), **limits)
    return generator, person


def export(run: Path, out: Path) -> list[Path]:
    """Export the networks with their constants, or nothing; return the paths of the files.

    Raises:
        InvalidRequestError: see research.motion.export.open_run; or the generator takes another input than the stage serves.
        ContractBrokenError: an exported network differs from its source.
    """
    opened = open_run(run, out, name=NAME, constants_file=CONSTANTS_FILE, sheet=SHEET)
    config = TypeAdapter(HeteroConfig).validate_python(read_config(run, NAME)["network"])
    if config.heard != SERVED:
        raise InvalidRequestError(
            f"{run}: network.heard is {config.heard!r}, which the stage cannot serve; train with {SERVED!r}", field="run"
        )
    network = HeteroNetwork(config)
    load_network(network, opened.kept)
    described = specs(config)
    with Delivery(out) as delivery:
        paths, parity = [], {}
        for module, spec in zip((network, network.person), described, strict=True):
            paths.append(write_onnx(module, delivery.folder, spec))
            parity[spec.name] = measure_parity(module, paths[-1], spec, spec.examples())
            admit(spec.name, parity[spec.name], spec)
        return opened.deliver(delivery, paths, {"parity": parity, "specs": [asdict(spec) for spec in described]})


NETWORK: Final = TrainableNetwork(
    name=NAME,
    stage="motion",
    summary="mel spectrogram, reference landmarks and pose landmarks to mouth landmarks",
    configs=CONFIGS,
    needs=(BASIS_NETWORK,),
    open=HeteroTraining,
    export=export,
)
