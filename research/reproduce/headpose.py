"""Protocol of `headpose` (Yi et al. 2020, Sec. 4, App. A and B): head poses, pictures, memory, length of the footage."""

from __future__ import annotations

from statistics import fmean
from typing import Final

from research.evaluation.results import Configuration
from research.methods.headpose.motion import audio_pose_correlation
from research.reproduce.claims import Claim, Figure, LeftOut, Level, Order
from research.reproduce.renderers import reenacted
from research.reproduce.run import DubRow, Material, Measured, PaperProtocol, Protocol, selection_note

_METHOD: Final = Configuration(method="headpose")
_GENERAL: Final = Configuration(method="headpose", personalize=False)
_PERSONAL: Final = "Ours-P (personalised)"
_OF_ALL: Final = "Ours-G (general)"
_STILL: Final = "a head that stands still"
_LENGTHS_S: Final = (4.0, 8.0, 12.0, 20.0, 32.0)
"""Seconds of footage of App. B: 100, 200, 300, 500 and 800 frames."""

HEADS: Final = Claim(
    name="heads",
    source="4.4, Eq. 6",
    text="Head poses from speech are distributed as the person's own (HS; .702 to .956 in 15 videos).",
    rows=(_PERSONAL, _STILL),
    figures=(
        Figure("hs", "HS", True, "partly", "own clips; the paper gives neither range nor bins"),
        Figure("hs_own_range", "HS by the footage's own range", True, "no", "not in the paper"),
    ),
    paper={_PERSONAL: {"hs": 0.859}},
    checks=(Level("hs", _PERSONAL), Order("hs", _PERSONAL, _STILL), Order("hs_own_range", _PERSONAL, _STILL)),
)
QUALITY: Final = Claim(
    name="quality",
    source="Table 2",
    text="The general network draws LRW as well as earlier methods; personalised it is better (4.3.1).",
    rows=(_OF_ALL, _PERSONAL),
    figures=(
        Figure(
            "face_psnr_db",
            "PSNR, dB",
            True,
            "partly",
            "LRW in the paper, Ours-G from one picture; own clips, Ours-G from the same footage, lower face",
        ),
        Figure("face_ssim", "SSIM", True, "partly", "as PSNR"),
        Figure("mouth_lmd_px", "LMD, px", False, "partly", "LRW in the paper; face 185 px wide"),
    ),
    paper={_OF_ALL: {"face_psnr_db": 30.94, "face_ssim": 0.75, "mouth_lmd_px": 1.58}},
    checks=(
        Level("face_psnr_db", _OF_ALL),
        Level("face_ssim", _OF_ALL),
        Level("mouth_lmd_px", _OF_ALL),
        Order("face_psnr_db", _PERSONAL, _OF_ALL),
        Order("mouth_lmd_px", _PERSONAL, _OF_ALL),
    ),
)
_MEMORY: Final = "with the memory"
_MEAN: Final = "mean identity feature in place of the memory"
_NO_IDENTITY: Final = "no identity feature"
MEMORY: Final = Claim(
    name="memory",
    source="4.2, Fig. 5 and 6",
    text="Identity features of a memory give better pictures than their mean, or than none.",
    rows=(_MEMORY, _MEAN, _NO_IDENTITY),
    figures=(
        Figure(
            "psnr_db",
            "PSNR of the mouth, dB",
            True,
            "no",
            "the paper shows pictures only, of networks that were made without the part",
        ),
        Figure(
            "ssim", "SSIM of the mouth", True, "no", "the paper shows pictures only, of networks that were made without the part"
        ),
    ),
    paper={},
    checks=(
        Order("psnr_db", _MEMORY, _MEAN),
        Order("psnr_db", _MEMORY, _NO_IDENTITY),
        Order("ssim", _MEMORY, _MEAN),
        Order("ssim", _MEMORY, _NO_IDENTITY),
    ),
)
_RELATION: Final = "mean of the videos"
_NOTHING: Final = "no relation"
CORRELATION: Final = Claim(
    name="correlation",
    source="App. A",
    text="In every video, head poses are alike where the sound is alike.",
    rows=(_RELATION, "smallest", "largest", _NOTHING),
    figures=(Figure("r", "r of the distances of sounds and of poses", True, "partly", "own clips; 15 others in the paper"),),
    paper={_RELATION: {"r": 0.45}, "smallest": {"r": 0.24}, "largest": {"r": 0.58}},
    checks=(Order("r", "smallest", _NOTHING), Level("r", _RELATION)),
)
_LENGTH_ROWS: Final = {seconds: f"{seconds * 25:.0f} frames" for seconds in _LENGTHS_S}
LENGTH: Final = Claim(
    name="length",
    source="App. B, Fig. 9",
    text="Fewer than 300 frames of the person give worse mouths.",
    rows=tuple(_LENGTH_ROWS.values()),
    figures=(
        Figure("mouth_psnr_db", "PSNR of the mouth, dB", True, "no", "people chose in the paper"),
        Figure("mouth_lmd_px", "LMD, px", False, "no", "people chose in the paper"),
        Figure("native_sharpness_ratio", "native sharpness, result / truth", True, "no", "people chose in the paper"),
    ),
    paper={},
    checks=(
        Order("mouth_psnr_db", _LENGTH_ROWS[12.0], _LENGTH_ROWS[4.0]),
        Order("mouth_psnr_db", _LENGTH_ROWS[12.0], _LENGTH_ROWS[8.0]),
        Order("mouth_lmd_px", _LENGTH_ROWS[12.0], _LENGTH_ROWS[4.0]),
    ),
)


def measure_correlation(material: Material) -> Measured:
    """Measure the correlation of Appendix A on held-out clips.

    Raises:
        InvalidRequestError: the training set has no such clip.
    """
    clips = material.speech_clips()
    correlations = [audio_pose_correlation(clip) for clip in material.each(clips)]
    numbers = {
        _RELATION: {"r": fmean(correlations)},
        "smallest": {"r": min(correlations)},
        "largest": {"r": max(correlations)},
        _NOTHING: {"r": 0.0},
    }
    on = f"{len(clips)} held-out clips ({', '.join(row.name for row in clips.rows)})"
    return Measured(numbers, on + selection_note(row.split for row in clips.rows))


PAPER: Final = PaperProtocol(
    name="headpose",
    title="Yi et al.: *Audio-driven Talking Face Video Generation with Learning-based Personalized Head Pose* (2020)",
    splits=("dev", "dev_people"),
    protocols=(
        Protocol(
            claim=HEADS,
            dubs=(
                DubRow(row=_PERSONAL, of=_METHOD),
                DubRow(row=_STILL, of=_METHOD, names={"hs": "still_hs", "hs_own_range": "still_hs_own_range"}),
            ),
        ),
        Protocol(claim=QUALITY, dubs=(DubRow(row=_OF_ALL, of=_GENERAL), DubRow(row=_PERSONAL, of=_METHOD))),
        Protocol(
            claim=MEMORY,
            measure=lambda material: reenacted(
                material, "headpose", {"prior": _MEMORY, "no memory": _MEAN, "no identity feature": _NO_IDENTITY}
            ),
        ),
        Protocol(claim=CORRELATION, measure=measure_correlation),
        Protocol(
            claim=LENGTH,
            dubs=tuple(
                DubRow(row=row, of=Configuration(method="headpose", enrol_seconds=seconds)) for seconds, row in _LENGTH_ROWS.items()
            ),
        ),
    ),
    left_out=(
        LeftOut("LRW", "the corpus is not among the clips"),
        LeftOut("comparison with other systems (Table 2, Fig. 7 and 8)", "their code and results are not part of dubstage"),
        LeftOut("no head pose (Fig. 5)", "a picture without a figure; the row `a head that stands still` is its HS"),
        LeftOut("FID, FVD and LPIPS", "not in the paper; they need pretrained networks that are not part of dubstage"),
        LeftOut("user studies (Table 1, 4.4, App. B)", "they need people"),
    ),
)
