"""Predictors that are trained in two ways: with and without ID removal, with and without speech that has no pictures."""

import pytest

from research.reproduce.everybody import measure_removal
from research.reproduce.run import Material, Measured
from research.training.trainset import TrainSet, part_path
from services.common.store.tensor_bytes import encode_arrays
from tests.unit.motion.made_clips import made_clip, write_set


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    folder = tmp_path_factory.mktemp("set")
    clips = [made_clip(index, num_frames=120, speaker=("anna", "ben")[index % 2]) for index in range(4)]
    data = write_set(folder / "made", clips)
    for row in data.rows:
        path = part_path(data.folder, row.shard, row.name, "speech")
        names = ("posteriorgram", "mel", "speech_probability", "identity_removed", "speech_states")
        arrays = data.arrays(row, "speech", names)
        path.write_bytes(encode_arrays({**arrays, "mfcc": arrays["mel"][..., :40]}))
    return Material(data=TrainSet(data.folder), quick=True, scratch=folder, progress=lambda *_: None)


def compared(found: Measured, first: str, second: str) -> None:
    """Check that both rows have scores of the speaker who was left out, and that the scores differ."""
    assert set(found.numbers) == {first, second}
    assert found.numbers[first] != found.numbers[second]
    assert all(numbers["lmd_ratio"] > 0.0 for numbers in found.numbers.values())
    assert "1 people who were left out of the training (anna)" in found.on


@pytest.mark.long
def test_removal_is_trained_both_ways(material: Material) -> None:
    compared(measure_removal(material), "without ID removal (BL)", "with ID removal (+IR)")
