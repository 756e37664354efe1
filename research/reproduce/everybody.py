"""Protocol of `everybody` (Everybody's Talkin', App. A and B): dubs of GRID, ID removal, flicker removal, teeth, cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from research.evaluation.results import Configuration
from research.reproduce.claims import Claim, Figure, LeftOut, Level, Order
from research.reproduce.left_out import left_out
from research.reproduce.renderers import reenacted
from research.reproduce.run import DubRow, Material, Measured, PaperProtocol, Protocol
from research.training.networks import network_named
from research.training.trainset import ClipRow, Part, TrainSet
from services.audio.identity_removal import RunningNormaliser
from services.common.array_types import Array
from services.common.methods import Finish
from services.motion.predictors.everybody.predictor import FEATURE, NUM_CEPSTRA

_METHOD: Final = Configuration(method="everybody", finish=Finish.RENDERER)
_OURS: Final = "the method"
_EXPRESSION: Final = Figure("expression_error", "Eexp", False, "no", "24 coefficients of an own face model, 29 of the paper's")
_LANDMARKS: Final = Figure("landmark_error_px", "Eldmk, px", False, "partly", "same corpus; face 185 px wide; 59 landmarks")
_PSNR: Final = Figure("face_psnr_db", "PSNR, dB", True, "partly", "same corpus; crop of 256 px, of which the mouth is painted")
_SSIM: Final = Figure("face_ssim", "SSIM", True, "partly", "as PSNR")

GRID: Final = Claim(
    name="grid",
    source="Table 1 a, Table 2, row +IR",
    text="Dubs of GRID by expression coefficients (3D) of ID-removed speech are near the real video.",
    rows=(_OURS,),
    figures=(_EXPRESSION, _LANDMARKS, _PSNR, _SSIM),
    paper={_OURS: {"expression_error": 0.65, "landmark_error_px": 2.24, "face_psnr_db": 32.23, "face_ssim": 0.97}},
    checks=(Level("landmark_error_px", _OURS), Level("face_psnr_db", _OURS), Level("face_ssim", _OURS)),
)
FULL_FACE: Final = Claim(
    name="full_face",
    source="Table 6",
    text="On GRID, the landmark error of the dubs (2.24 px) is near that of methods that draw the whole face (1.92 px at best).",
    rows=(_OURS,),
    figures=(
        _LANDMARKS,
        Figure("face_psnr_db", "PSNR, dB", True, "no", "the paper draws the whole face for this table, we paint the mouth"),
        Figure("face_ssim", "SSIM", True, "no", "as PSNR"),
    ),
    paper={_OURS: {"landmark_error_px": 2.24, "face_psnr_db": 30.01, "face_ssim": 0.94}},
    checks=(Level("landmark_error_px", _OURS),),
)
_BASELINE: Final = "without ID removal (BL)"
_REMOVED: Final = "with ID removal (+IR)"
REMOVAL: Final = Claim(
    name="removal",
    source="Table 1 b, Table 2",
    text="Speech without its speaker gives better mouths than plain cepstra.",
    rows=(_BASELINE, _REMOVED),
    figures=(
        Figure("landmark_error_px", "Eldmk, px", False, "no", "GRID's speakers in the paper; ours are others"),
        Figure("lmd_ratio", "LMD / LMD of the mean mouth", False, "no", "not in the paper"),
        Figure("r_opening", "r of the opening", True, "no", "not in the paper"),
    ),
    paper={_BASELINE: {"landmark_error_px": 3.09}, _REMOVED: {"landmark_error_px": 2.24}},
    checks=(Order("lmd_ratio", _REMOVED, _BASELINE), Order("r_opening", _REMOVED, _BASELINE)),
)
_PLAIN: Final = "without (+IR)"
_DEFLICKERED: Final = "flicker removed (+IR+DF)"
_TEETH: Final = "with teeth proxy"
_PICTURES: Final = (
    Figure("psnr_db", "PSNR, dB", True, "no", "mouth box for the true landmarks; whole dubs in the paper"),
    Figure("ssim", "SSIM", True, "no", "as PSNR"),
    Figure("flicker_ratio", "flicker, result / truth", False, "no", "not in the paper"),
    Figure("sharpness_ratio", "sharpness (Laplacian), result / truth", True, "no", "not in the paper"),
)
FLICKER: Final = Claim(
    name="flicker",
    source="Table 2, App. G",
    text="Flicker removal makes smoother videos and costs some PSNR and SSIM.",
    rows=(_PLAIN, _DEFLICKERED),
    figures=_PICTURES[:3],
    paper={_PLAIN: {"psnr_db": 32.23, "ssim": 0.97}, _DEFLICKERED: {"psnr_db": 31.19, "ssim": 0.95}},
    checks=(
        Order("flicker_ratio", _DEFLICKERED, _PLAIN),
        Order("psnr_db", _PLAIN, _DEFLICKERED),
        Order("ssim", _PLAIN, _DEFLICKERED),
    ),
)
TEETH: Final = Claim(
    name="teeth",
    source="App. F",
    text="The teeth proxy adds detail to the drawn teeth.",
    rows=(_PLAIN, _TEETH),
    figures=(_PICTURES[3], *_PICTURES[:2]),
    paper={},
    checks=(Order("sharpness_ratio", _TEETH, _PLAIN),),
)
_DRAWN: Final = "finish: the renderer's own pixels"
_BANK: Final = "finish: the person's bank"
FINISH: Final = Claim(
    name="finish",
    source="3.3 (ours)",
    text="The network's own mouths are as near to the real video as mouths that are finished from the person's bank.",
    rows=(_DRAWN, _BANK),
    figures=(
        Figure("mouth_psnr_db", "PSNR of the mouth, dB", True, "no", "not in the paper"),
        Figure("mouth_ssim", "SSIM of the mouth", True, "no", "not in the paper"),
        Figure("mouth_distance", "KID of the mouth", False, "no", "not in the paper"),
    ),
    paper={},
    checks=(Order("mouth_psnr_db", _DRAWN, _BANK), Order("mouth_ssim", _DRAWN, _BANK), Order("mouth_distance", _DRAWN, _BANK)),
)
COST: Final = Claim(
    name="cost",
    source="App. H",
    text="A frame takes 100 ms without flicker removal and teeth proxy.",
    rows=(_OURS,),
    figures=(
        Figure(
            "ms_per_frame",
            "frame, ms of wall time",
            False,
            "partly",
            "this machine's processor, a GTX 1060 in the paper; 160 px, not 384",
        ),
    ),
    paper={_OURS: {"ms_per_frame": 100.0}},
    checks=(Level("ms_per_frame", _OURS),),
)


class SpeakerKept(TrainSet):
    """A training set whose ID-removed cepstra are the normalised cepstra that the removal takes: the speaker is still in them."""

    def __init__(self, data: TrainSet) -> None:
        self.folder, self.rows = data.folder, data.rows

    def arrays(self, row: ClipRow, part: Part, names: Sequence[str], rows: slice | None = None) -> dict[str, Array]:
        """Return some arrays of a clip. See TrainSet.arrays."""
        arrays = super().arrays(row, part, [name for name in names if name != FEATURE], rows)
        if FEATURE in names:
            mfcc = super().arrays(row, part, ["mfcc"])["mfcc"][..., :NUM_CEPSTRA]
            plain = RunningNormaliser().push(mfcc.reshape(-1, NUM_CEPSTRA).astype(np.float32)).reshape(mfcc.shape)
            arrays[FEATURE] = plain if rows is None else plain[rows]
        return arrays


def measure_removal(material: Material) -> Measured:
    """Train the predictor with and without ID removal, and score it on speakers who are left out."""
    config = network_named("everybody_motion").configs["default"]
    ways = {_BASELINE: (config, SpeakerKept(material.data)), _REMOVED: (config, material.data)}
    return left_out(material, "everybody_motion", ways)


PAPER: Final = PaperProtocol(
    name="everybody",
    title="*Everybody's Talkin': Let Me Talk as You Want* (under review at ICLR 2021)",
    splits=("val",),
    speakers="grid-",
    protocols=(
        Protocol(claim=GRID, dubs=(DubRow(row=_OURS, of=_METHOD),)),
        Protocol(claim=FULL_FACE, dubs=(DubRow(row=_OURS, of=_METHOD),)),
        Protocol(claim=REMOVAL, measure=measure_removal),
        Protocol(
            claim=FLICKER,
            measure=lambda material: reenacted(material, "everybody", {"personalised": _PLAIN, "deflicker": _DEFLICKERED}),
        ),
        Protocol(
            claim=TEETH, measure=lambda material: reenacted(material, "everybody", {"personalised": _PLAIN, "teeth proxy": _TEETH})
        ),
        Protocol(
            claim=FINISH,
            dubs=(
                DubRow(row=_DRAWN, of=_METHOD),
                DubRow(row=_BANK, of=Configuration(method="everybody", finish=Finish.BANK)),
            ),
        ),
        Protocol(claim=COST, dubs=(DubRow(row=_OURS, of=_METHOD),)),
    ),
    left_out=(
        LeftOut("landmarks in place of expression coefficients (Table 1 a, 2D)", "the code has no such network"),
        LeftOut("joint and separate generators, 2 to 15 minutes a person (Table 3)", "no clips of 15 minutes of four people"),
        LeftOut("the authors' own videos (rows `Collected`)", "they are not public"),
        LeftOut("whole faces from past frames (Table 6)", "the renderer paints the mouth; landmarks alone are compared"),
        LeftOut("landmark heatmaps", "without them the network does not know the mouth: the paper has no such ablation either"),
        LeftOut("FID, FVD and LPIPS", "not in the paper; they need pretrained networks that are not part of dubstage"),
        LeftOut("user studies (Tables 4 and 5)", "they need people"),
    ),
)
