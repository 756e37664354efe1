"""Protocol of `ugc` (Song et al. 2023, Sec. IV): temporal warp, photometric error, speaking style, blocks of the method, cost."""

from __future__ import annotations

from statistics import fmean
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from research.evaluation.mouth_metrics import speaking_style_iou
from research.evaluation.results import Configuration
from research.motion.evaluate import encoded, personalized
from research.motion.protocol import ServedPredictor, folds
from research.reproduce.claims import Claim, Figure, LeftOut, Level, Order
from research.reproduce.run import DubRow, Material, Measured, PaperProtocol, Protocol, selection_note
from research.texture.pairs import PairConfig, PairSource
from research.texture.temporal_warp import stream_energies
from services.common.array_types import Float32
from services.common.face.landmarks import NUM_MOUTH_AREA, mouth_opening
from services.common.face.mouth_bank import NUM_ANCHORS, WINDOW
from services.motion.constraints import WHOLE
from services.motion.models import MotionModels
from services.motion.predictors.registry import predictor_named
from services.texture.temporal_warp import TemporalWarpModel

_METHOD: Final = Configuration(method="ugc")
_PAIRS: Final = 192
_QUICK_PAIRS: Final = 16
_PAIRS_AT_ONCE: Final = 16
_SEED: Final = 20240
_MEASURED: Final = NUM_MOUTH_AREA + NUM_ANCHORS
"""Control points that Ef is measured at."""

_NO_WARP: Final = "no warp"
_TPS: Final = "TPS warp"
_NETWORK: Final = "temporal warp"
_TPS_REFINED: Final = "TPS warp + refine"
_REFINED: Final = "temporal warp + refine"

WARP: Final = Claim(
    name="warp",
    source="Table IV",
    text="The temporal warp fits better than a thin-plate spline, and moves more smoothly.",
    rows=(_NO_WARP, _TPS, _NETWORK),
    figures=(
        Figure("fitting", "Ef, px", False, "partly", "other people; box of 160 px; 59 points and anchors of the face"),
        Figure("bending", "Eb", False, "no", "the paper gives no unit"),
        Figure("temporal", "Et", False, "no", "the paper gives no unit"),
    ),
    paper={
        _NO_WARP: {"fitting": 3.35},
        _TPS: {"fitting": 1.12, "bending": 0.0286, "temporal": 0.48},
        _NETWORK: {"fitting": 0.92, "bending": 0.0286, "temporal": 0.44},
    },
    checks=(
        Order("fitting", _TPS, _NO_WARP),
        Order("fitting", _NETWORK, _TPS),
        Order("temporal", _NETWORK, _TPS),
        Level("fitting", _NETWORK),
    ),
)
PHOTOMETRIC: Final = Claim(
    name="photometric",
    source="IV-D.2, Fig. 11",
    text="With the temporal warp in place of the spline, the photometric error of the mouth falls.",
    rows=("no warp", _TPS, _NETWORK, _TPS_REFINED, _REFINED),
    figures=(Figure("photometric_error", "photometric error", False, "partly", "other people; the paper does not state the box"),),
    paper={_TPS_REFINED: {"photometric_error": 9.93}, _REFINED: {"photometric_error": 6.60}},
    checks=(Order("photometric_error", _REFINED, _TPS_REFINED), Level("photometric_error", _REFINED)),
)
_OWN: Final = "with the person's style"
_MEAN: Final = "with the mean style"
_LEARNED: Final = "personalised"
STYLE: Final = Claim(
    name="style",
    source="Table III",
    text="The style encoder keeps the person's way to move the mouth (SSIoU).",
    rows=(_OWN, _MEAN, _LEARNED),
    figures=(
        Figure(
            "ssiou",
            "SSIoU",
            True,
            "partly",
            "other people; own sentences; the mean speaker's style and amplitude, not a network without style",
        ),
    ),
    paper={_OWN: {"ssiou": fmean((0.82, 0.72, 0.78, 0.84))}, _MEAN: {"ssiou": fmean((0.64, 0.61, 0.59, 0.61))}},
    checks=(Order("ssiou", _OWN, _MEAN), Level("ssiou", _OWN)),
)
_FULL: Final = "the method"
_SINGLE: Final = "style of a single frame, no correction"
_UNREFINED: Final = "without refine"
BLOCKS: Final = Claim(
    name="blocks",
    source="Table I, ablations",
    text="Style of moving landmarks and the refine module each improve picture and sync.",
    rows=(_FULL, _SINGLE, _UNREFINED),
    figures=(
        Figure("fid", "FID", False, "no", "FID needs a pretrained network"),
        Figure("syncnet", "SyncNet distance", False, "no", "SyncNet is a pretrained network"),
        Figure("mouth_distance", "KID of the mouth", False, "no", "own features, in place of FID"),
        Figure("sync_distance", "sync distance", False, "no", "own sync network, in place of SyncNet"),
    ),
    paper={
        _FULL: {"fid": 0.49, "syncnet": 9.21},
        _SINGLE: {"fid": 0.60, "syncnet": 10.44},
        _UNREFINED: {"fid": 0.59, "syncnet": 10.80},
    },
    checks=(
        Order("mouth_distance", _FULL, _SINGLE),
        Order("mouth_distance", _FULL, _UNREFINED),
        Order("sync_distance", _FULL, _SINGLE),
        Order("sync_distance", _FULL, _UNREFINED),
    ),
)
COST: Final = Claim(
    name="cost",
    source="Table II",
    text="At most 30 s of footage and 25 minutes make an actor, and a frame takes 120 ms.",
    rows=(_FULL,),
    figures=(
        Figure(
            "personalize_s",
            "personalisation, s of wall time",
            False,
            "partly",
            "this machine's processor, a Titan X in the paper; a state learns",
        ),
        Figure(
            "ms_per_frame", "frame, ms of wall time", False, "partly", "this machine's processor, a Titan X in the paper; 160 px"
        ),
    ),
    paper={_FULL: {"personalize_s": 1500.0, "ms_per_frame": 120.0}},
    checks=(Level("personalize_s", _FULL), Level("ms_per_frame", _FULL)),
)


class _Served(nn.Module):
    """The temporal-warp network that the texture stage serves, as stream_energies takes it."""

    def __init__(self, model: TemporalWarpModel) -> None:
        super().__init__()
        self._model = model

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        """Return delta [B, M, 2] of windows [B, 6, M, 2], box pixels."""
        pairs = zip(target.numpy(), source.numpy(), strict=True)
        return torch.from_numpy(np.concatenate([self._model.residual(wanted, retrieved[None]) for wanted, retrieved in pairs]))


class _Spline(nn.Module):
    """No residual: the plain thin-plate spline."""

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        """Return zeros [B, M, 2]."""
        return torch.zeros_like(target[:, -1])


def measure_warp(material: Material) -> Measured:
    """Measure the energies of pairs of sequences of held-out people.

    Raises:
        InvalidRequestError: the training set has no held-out clip with a face that is long enough.
    """
    rows = [row for row in material.data.rows if row.split != "train" and row.has_face] or material.data.of("val", face=True)
    source = PairSource(material.data, rows, PairConfig(), _SEED)
    count = _QUICK_PAIRS if material.quick else _PAIRS
    drawn = source.pairs(count, 0, 0)
    networks = {_TPS: _Spline(), _NETWORK: _Served(TemporalWarpModel())}
    sums: dict[str, dict[str, float]] = {row: dict.fromkeys(("fitting", "bending", "temporal"), 0.0) for row in networks}
    far = 0.0
    for start in range(0, count, _PAIRS_AT_ONCE):
        material.progress("pairs", start, count)
        part = slice(start, start + _PAIRS_AT_ONCE)
        target, retrieved = torch.from_numpy(drawn.target[part]), torch.from_numpy(drawn.source[part])
        share = len(target) / count
        with torch.inference_mode():
            for row, network in networks.items():
                energies = stream_energies(network, target, retrieved)
                for name in sums[row]:
                    sums[row][name] += share * float(getattr(energies, name))
        far += share * unwarped_error(drawn.target[part], drawn.source[part])
    material.progress("pairs", count, count)
    speakers = sorted({row.speaker for row in source.clips})
    on = f"{count} pairs of sequences of held-out clips of {len(speakers)} people ({', '.join(speakers)})"
    return Measured({_NO_WARP: {"fitting": far}} | sums, on + selection_note(row.split for row in source.clips))


def unwarped_error(target: Float32, source: Float32) -> float:
    """Return Ef of retrieved points that stay where they are, box pixels: their mean L1 distance from the wanted points.

    Args:
        target: float32 [N, T, M, 2], box pixels.
        source: float32 [N, T, M, 2], box pixels.
    """
    last_target, last_source = (points[:, WINDOW - 1 :, :_MEASURED] for points in (target, source))
    return float(np.abs(last_target - last_source).sum(axis=-1).mean(dtype=np.float64))


def measure_style(material: Material) -> Measured:
    """Measure SSIoU of predicted and true mouths on the test parts of held-out clips.

    Raises:
        InvalidRequestError: the training set has no such clip.
    """
    predictor = predictor_named("ugc")
    models = MotionModels()
    clips = material.speech_clips()
    styles = {
        _OWN: encoded(predictor, models),
        _MEAN: encoded(predictor, models, predictor.mean_style),
        _LEARNED: personalized(predictor, models),
    }
    predict = ServedPredictor(predictor, models, WHOLE)
    by_row: dict[str, list[float]] = {row: [] for row in styles}
    for clip in material.each(clips):
        for fold in folds(len(clip)):
            usable = clip.usable[fold.test]
            truth = np.where(usable, mouth_opening(clip.mouth_landmarks[fold.test]), np.nan)
            for row, encode in styles.items():
                predicted = mouth_opening(predict(clip.features, encode(clip, fold))[fold.test])
                by_row[row].append(speaking_style_iou(truth, predicted))
    numbers = {row: {"ssiou": float(np.nanmean(values))} for row, values in by_row.items()}
    people = sorted({row.speaker for row in clips.rows})
    on = f"mouths of {len(clips)} held-out clips of {len(people)} people ({', '.join(people)})"
    return Measured(numbers, on + selection_note(row.split for row in clips.rows))


PAPER: Final = PaperProtocol(
    name="ugc",
    title="Song, Wu, Fu, Loy, He: *Audio-Driven Dubbing for User Generated Contents via Style-Aware Semi-Parametric Synthesis*",
    splits=("dev", "dev_people"),
    protocols=(
        Protocol(claim=WARP, measure=measure_warp),
        Protocol(claim=STYLE, measure=measure_style),
        Protocol(
            claim=PHOTOMETRIC,
            dubs=(
                DubRow(row="no warp", of=_METHOD, variant="retrieval"),
                DubRow(row=_TPS, of=_METHOD, variant="tps"),
                DubRow(row=_NETWORK, of=_METHOD, variant="warp_network"),
                DubRow(row=_TPS_REFINED, of=_METHOD, variant="tps_refined"),
                DubRow(row=_REFINED, of=_METHOD),
            ),
        ),
        Protocol(
            claim=BLOCKS,
            dubs=(
                DubRow(row=_FULL, of=_METHOD),
                DubRow(row=_SINGLE, of=_METHOD, variant="single_frame"),
                DubRow(row=_UNREFINED, of=_METHOD, variant="warp_network"),
            ),
        ),
        Protocol(claim=COST, dubs=(DubRow(row=_FULL, of=_METHOD),)),
    ),
    left_out=(
        LeftOut("FID and SyncNet distance (Table I)", "they need pretrained networks that are not part of dubstage"),
        LeftOut("comparison with other systems (Table I)", "their code and results are not part of dubstage"),
        LeftOut("fixed sequence (Table I)", "the code has no such variant"),
        LeftOut("no style translation (Table I)", "no network was trained without style"),
        LeftOut("RAVDESS and singing", "the corpus is not among the clips"),
        LeftOut("user studies (Tables V and VI)", "they need people"),
    ),
)
