from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from services.common.errors import InvalidRequest, ModelNotFound
from services.common.face.mouth_bank import MouthBank
from services.render.renderers.registry import RENDERERS
from services.render.train import calibration
from services.render.train.footage import Person
from services.render.train.rooms import identities_given, training_named
from tests.unit.render.train.tiny_training import write_set


def test_every_renderer_has_a_training_part() -> None:
    for name in RENDERERS:
        assert training_named(name).recipe.steps > 0


def test_a_name_that_is_not_there_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ModelNotFound, match="everybody, headpose, ugc"):
        training_named("nobody")


def test_identities_are_asked_for() -> None:
    with pytest.raises(InvalidRequest, match="--identities"):
        identities_given(None, "toy")


@pytest.mark.parametrize("name", ["ugc", "everybody"])
def test_a_source_gives_inputs_of_the_network(name: str, bank: MouthBank) -> None:
    source = training_named(name).source([Person("drawn", bank, True)], None)
    assert source.batch(0, 2).pictures.shape[:3] == (2, 160, 160)


def test_calibration_writes_inputs(bank: MouthBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path, bank)
    out = tmp_path / "some" / "inputs.npy"
    arguments = ["--model", "everybody", "--data", str(tmp_path), "--out", str(out), "--pictures", "2"]
    monkeypatch.setattr(sys, "argv", ["calibration", *arguments])
    calibration.main()
    assert np.load(out).dtype == np.uint8
    assert len(np.load(out)) == 2


def test_calibration_with_a_renderer_that_needs_identities_says_so(
    bank: MouthBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--model", "headpose", "--data", str(write_set(tmp_path, bank)), "--out", str(tmp_path / "inputs.npy")]
    monkeypatch.setattr(sys, "argv", ["calibration", *arguments])
    with pytest.raises(InvalidRequest, match="--identities"):
        calibration.main()
