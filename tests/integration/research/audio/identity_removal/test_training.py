"""The training of the Audio ID-Removing Network, from a tiny set to the file that the stage serves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from research.audio.identity_removal.training import DEFAULT, IdRemovalConfig, IdRemovalTraining, export
from research.audio.networks import NETWORKS
from research.training.device import CPU
from research.training.networks import Opening
from research.training.trainset import ClipRow, TrainSet
from services.audio.identity_removal import IdentityRemovalModel
from services.common.errors import InvalidRequestError
from services.common.store.tensor_bytes import encode_arrays
from tests.refusals import raised
from tests.unit.research.audio.runs import trained
from tests.unit.research.audio.speech_sets import speech_set, write_part, write_rows

TINY = replace(
    DEFAULT,
    loop=replace(DEFAULT.loop, steps=6, check_every=3),
    network=IdRemovalConfig(hidden=8, projection=8),
    speeds=(1.0, 0.9),
    content_steps=1,
    ramp_steps=2,
    batch_segments=3,
    segment_rows=64,
    critic_lifetime=2,
    expression_segments=2,
    check_clips=2,
)
(NETWORK,) = (network for network in NETWORKS if network.name == "id_removal")


def with_expression(folder: Path, rows: list[ClipRow], lag: int = 0) -> list[ClipRow]:
    """Give all clips a face whose second coefficient is the number of the frame."""
    rng = np.random.default_rng(3)
    seen = [replace(row, has_face=True, usable_frames=row.frames, lag_frames=lag) for row in rows]
    for row in seen:
        coefficients = np.stack([rng.standard_normal(row.frames), np.arange(row.frames)], axis=1).astype(np.float32)
        write_part(folder, row, "track", {"usable": np.ones(row.frames, np.bool_)})
        write_part(folder, row, "expression", {"coefficients": coefficients})
    (folder / "expression.safetensors").write_bytes(encode_arrays({"shape": np.ones((6, 2), np.float32)}, {}))
    write_rows(folder, seen)
    return seen


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set with faces."""
    folder = tmp_path_factory.mktemp("set")
    with_expression(folder, speech_set(folder))
    return folder


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was not interrupted."""
    run = tmp_path_factory.mktemp("whole") / "run"
    trained(NETWORK, TINY, data, run)
    return run


def test_run_exports_served_file(tmp_path: Path) -> None:
    """A run becomes the file that the stage serves."""
    speech_set(tmp_path / "set")
    progress = trained(NETWORK, TINY, tmp_path / "set", tmp_path / "run")
    assert (progress.figures or {}).keys() == {"phone_accuracy", "speaker_told", "speaker_chance"}
    assert (progress.figures or {})["speaker_chance"] == pytest.approx(1 / 6)  # three speakers at two speeds
    paths = export(tmp_path / "run", tmp_path / "weights")
    assert {path.name for path in paths} == {"id_removal.onnx", "id_removal.json", "id_removal.card.md"}
    assert IdentityRemovalModel(tmp_path / "weights").silence.shape == (4, 20)


@pytest.mark.long
@pytest.mark.parametrize("stop_after", [4, 5])
def test_interrupted_run_same_bytes(data: Path, whole: Path, tmp_path: Path, stop_after: int) -> None:
    """A run that was interrupted comes to the same bytes though critics are renewed."""
    trained(NETWORK, TINY, data, tmp_path, stop_after=stop_after)
    trained(NETWORK, TINY, data, tmp_path, resume=True)
    for name in ("network.safetensors", "curves.csv"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()
    assert ",trans," in (whole / "curves.csv").read_text()
    assert ",norm," in (whole / "curves.csv").read_text()


def test_lagging_clip_is_aligned(tmp_path: Path) -> None:
    """Sound and picture of a clip meet though one lags."""
    rows = with_expression(tmp_path, speech_set(tmp_path, speakers=2, clips=1), lag=2)
    training = IdRemovalTraining(Opening(TINY, TrainSet(tmp_path), CPU, {}))
    moving = training.batch(0, 0).moving
    heard = training._speech.of_clip(rows[0])
    for segment, coefficients in zip(moving.rows, moving.expression, strict=True):
        # The frame has 28 rows to warm up and 20 frames of sound before it; its own sound comes two frames later.
        first = (int(coefficients[1]) + 2 - 27) * 4
        np.testing.assert_array_equal(segment, heard[first : first + len(segment)])


def test_short_clips_refused(tmp_path: Path) -> None:
    speech_set(tmp_path, seconds=0.5)
    with raised(InvalidRequestError, match="no speaker has so much", field="data"):
        IdRemovalTraining(Opening(TINY, TrainSet(tmp_path), CPU, {}))
