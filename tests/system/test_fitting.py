"""Fitted coefficients on real footage: how near the projected landmarks are, and how still they stand."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from skimage.io import imread

from services.common.face.crops import weak_perspective_of
from services.common.face.identity import FaceIdentity
from services.common.face.landmarks import MOUTH_AREA, mouth_opening
from services.common.face.morphable_models import DEFAULT_MODEL, MorphableModels
from services.common.geometry.morphable_model import default_model
from services.face.fitting.identity import IdentityFitter
from services.face.fitting.model import FittableModels
from services.face.fitting.streaming import StreamFitter
from services.face.tracking import FaceTracker, Networks
from services.face.types import TrackedFace, TrackOptions
from tests.conftest import clips_root

MOST_FRAMES = 60
SLOW_WINDOW = 9


def files_of(*uses: str) -> list[str]:
    """Footage of the catalogue; one that skips where there are no clips."""
    try:
        with (clips_root() / "catalogue.csv").open(encoding="utf-8", newline="") as file:
            return [row["file"] for row in csv.DictReader(file) if row["use"] in uses]
    except FileNotFoundError:
        return ["video/hp_31.mp4"]


@dataclass(frozen=True)
class Fitted:
    """One clip: the raw tracker's faces, the fitted ones, and the person."""

    raw: list[TrackedFace]
    fitted: list[TrackedFace]
    identity: FaceIdentity

    def measured(self) -> npt.NDArray[np.float64]:
        return np.stack([face.landmarks[:468] for face in self.raw]).astype(np.float64)

    def projected(self) -> npt.NDArray[np.float64]:
        coefficients = [face.coefficients for face in self.fitted]
        expression = np.stack([each.expression for each in coefficients])
        shapes = default_model().shape(self.identity.identity, expression, self.identity.offset)
        return np.asarray(weak_perspective_of([each.pose for each in coefficients]).project(shapes))

    @property
    def scale(self) -> npt.NDArray[np.float64]:
        """Frame pixels a crop pixel (256 x 256)."""
        return np.array([face.pose.scale for face in self.raw])[:, None, None]


@cache
def networks() -> Networks:
    return Networks()


def track(pictures: list[npt.NDArray[np.uint8]], half_width: int, fitter: StreamFitter | None = None) -> list[TrackedFace]:
    tracker = FaceTracker(networks(), TrackOptions(max_faces=1, half_width=half_width), fitter=fitter)
    frames = [frame for picture in pictures for frame in tracker.push(picture)] + tracker.finish()
    assert all(len(frame.faces) == 1 for frame in frames)
    return [frame.faces[0] for frame in frames]


def frames_of(path: Path) -> Iterator[npt.NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        for frame, _ in zip(container.decode(video=0), range(MOST_FRAMES), strict=False):
            yield frame.to_ndarray(format="rgb24")


@cache
def fitted(path: Path) -> Fitted:
    pictures = list(frames_of(path))
    raw = track(pictures, 0)
    face = FittableModels(MorphableModels()).get(DEFAULT_MODEL)
    fitter = IdentityFitter(face)
    for picture, each in zip(pictures, track(pictures, 3), strict=True):
        fitter.push(picture, each)
    identity = fitter.finish()
    return Fitted(raw, track(pictures, 3, StreamFitter(face, identity)), identity)


def still_steps(points: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Bool [T - 1]: the quarter of the steps between frames in which the face moves least, judged by its mean over nine frames."""
    kernel = np.ones(SLOW_WINDOW) / SLOW_WINDOW
    flat = points[..., :2].reshape(len(points), -1)
    padded = np.pad(flat, ((SLOW_WINDOW // 2, SLOW_WINDOW // 2), (0, 0)), mode="edge")
    slow = np.stack([np.convolve(column, kernel, "valid") for column in padded.T], axis=1)
    moved = np.sqrt((np.diff(slow, axis=0) ** 2).mean(1))
    return np.asarray(moved <= np.quantile(moved, 0.25))


def jitter(points: npt.NDArray[np.float64], still: npt.NDArray[np.bool_]) -> float:
    """Root mean square of the points' steps from frame to frame, where the face is still."""
    return float(np.sqrt((np.diff(points[..., :2], axis=0)[still] ** 2).sum(-1).mean()))


def shake(points: npt.NDArray[np.float64], still: npt.NDArray[np.bool_]) -> float:
    """The same of the points' second differences, in which an even movement of the head does not count."""
    both = still[1:] & still[:-1]
    return float(np.sqrt((np.diff(points[..., :2], 2, axis=0)[both] ** 2).sum(-1).mean()))


@pytest.mark.long
@pytest.mark.parametrize(
    "file",
    [*files_of("dev"), *(pytest.param(file, marks=pytest.mark.long) for file in files_of("test"))],
    ids=lambda file: Path(file).stem,
)
def test_projected_landmarks_near_tracked(file: str, clips, record_property) -> None:
    """Projected landmarks are near the tracked ones and jitter less."""
    clip = fitted(clips.path(file))
    measured, projected = clip.measured() / clip.scale, clip.projected() / clip.scale
    errors = np.linalg.norm((projected - measured)[..., :2], axis=-1).mean(1)
    still = still_steps(measured)
    before, after = jitter(measured, still), jitter(projected, still)
    opened = [mouth_opening(points[:, list(MOUTH_AREA)]) for points in (measured, projected)]
    alike = float(np.corrcoef(*opened)[0, 1])
    figures = {
        "landmark_error": float(errors.mean()),
        "worst_frame": float(errors.max()),
        "jitter_raw": before,
        "jitter_fitted": after,
        "shake_raw": shake(measured, still),
        "shake_fitted": shake(projected, still),
        "opening_r": alike,
        "opening_spread": float(opened[1].std() / opened[0].std()),
        "photometric_error": clip.identity.photometric_error,
    }
    for name, value in figures.items():
        record_property(name, round(value, 4))
    print(Path(file).stem, {name: round(value, 4) for name, value in figures.items()})
    assert errors.mean() <= 1.5
    assert errors.max() <= 2.0
    assert after < before
    assert figures["shake_fitted"] < figures["shake_raw"]
    assert alike > 0.99  # nothing of the speech is smoothed away
    assert figures["opening_spread"] == pytest.approx(1.0, abs=0.05)
    assert clip.identity.landmark_error <= 1.5


@pytest.mark.parametrize("file", files_of("portrait"), ids=lambda file: Path(file).stem)
def test_a_portrait_becomes_a_person(file: str, clips) -> None:
    path = clips.path(file)
    if path.suffix == ".mp4":
        pytest.skip("there are no clips")
    picture = np.ascontiguousarray(imread(path)[..., :3])
    fitter = IdentityFitter(FittableModels(MorphableModels()).get(DEFAULT_MODEL))
    fitter.push(picture, track([picture], 0)[0])
    identity = fitter.finish()
    assert identity.num_frames == 1
    assert identity.landmark_error <= 1.5
    assert np.abs(identity.identity).max() < 5.0
