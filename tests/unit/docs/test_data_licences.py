"""The page with the data of the committed networks."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from research.training.networks import networks

CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = spec_from_file_location("data_licences", CHECKOUT / "docs/generate/licences.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_agrees_with_the_cards(script: ModuleType) -> None:
    parts = [part for path in script.cards() for part in script.read_card(path)]
    assert script.OUTPUT.read_text(encoding="utf-8") == script.page(parts, script.EARLIER), "call docs/generate/licences.py"


def test_every_trained_network_is_on_the_page(script: ModuleType) -> None:
    page = script.OUTPUT.read_text(encoding="utf-8")
    for network in networks():
        assert network in page


def test_a_card_without_its_table_is_named(script: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "x.card.md"
    path.write_text("# x\n")
    with pytest.raises(ValueError, match=r"x\.card\.md: the card has no table"):
        script.read_card(path)
