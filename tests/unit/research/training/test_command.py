"""Configurations: presets, and TOML files that change single settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from research.training.command import configuration
from services.common.errors import InvalidRequestError
from tests.unit.research.training.tiny import CONFIG, with_loop

PRESETS = {"default": CONFIG, "large": replace(CONFIG, width=64)}


def toml(folder: Path, text: str) -> str:
    path = folder / "my.toml"
    path.write_text(text)
    return str(path)


def test_a_preset_is_found_by_its_name() -> None:
    assert configuration(PRESETS, "large") is PRESETS["large"]


def test_a_file_changes_single_settings_of_a_preset(tmp_path: Path) -> None:
    file = toml(tmp_path, "width = 8\n[loop]\nseed = 3\n")
    assert configuration(PRESETS, file) == replace(with_loop(seed=3), width=8)
    assert configuration(PRESETS, toml(tmp_path, 'preset = "large"\n')) == PRESETS["large"]


def test_shared_file_has_tables(tmp_path: Path) -> None:
    """A file for all networks has a table for each."""
    file = toml(tmp_path, "[tiny]\nwidth = 8\n[tiny.loop]\nsteps = 2\n[other]\nwidth = 9\n")
    assert configuration(PRESETS, file, table="tiny") == replace(with_loop(steps=2), width=8)
    assert configuration(PRESETS, file, table="third") == CONFIG


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("depth = 8", "there is no setting depth; there are loop, optimiser, scores, width"),
        ("[loop]\nstep = 8", "there is no setting loop.step; there are batches"),
        ("[loop]\nsteps = 'many'", "loop.steps"),
        ("[loop]\nsteps = 1.5", "loop.steps"),
        ("[loop]\ncheck_every = 0", "loop.check_every: Input should be greater than or equal to 1, not 0"),
        ("[loop]\nbatches = -1", "loop.batches"),
        ("[optimiser]\nlearning_rate = 0", "optimiser.learning_rate"),
        ("loop = 3", "loop: a table was expected, not 3"),
        ("preset = 'huge'", "preset 'huge' is not one of default, large"),
        ("width = = 3", "not a TOML file"),
    ],
)
def test_a_wrong_setting_is_named_with_its_file(tmp_path: Path, text: str, says: str) -> None:
    file = toml(tmp_path, text)
    with pytest.raises(InvalidRequestError) as caught:
        configuration(PRESETS, file)
    assert caught.value.message.startswith(f"{file}: ")
    assert says in caught.value.message
    assert caught.value.field == "config"


def test_unknown_preset_lists_presets() -> None:
    """A name that is neither a preset nor a file gets an error that lists the presets."""
    with pytest.raises(InvalidRequestError, match=r"huge: neither a preset \(default, large\)"):
        configuration(PRESETS, "huge")


def test_shared_file_without_tables(tmp_path: Path) -> None:
    """A file for all networks without tables is refused."""
    with pytest.raises(InvalidRequestError, match=r"tiny: .* not 3"):
        configuration(PRESETS, toml(tmp_path, "tiny = 3"), table="tiny")
