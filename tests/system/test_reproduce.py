"""`dubstage reproduce PAPER` on three seconds of a real clip with the trained networks."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.app import run
from tests.system.dubbing import cut

CLAIMS = {"ugc": "photometric", "everybody": "full_face", "headpose": "heads", "hetero": "quality", "everyone": "cost"}
"""One claim of each paper that is measured on dubs."""


@pytest.fixture(scope="module")
def clip(clips: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of a dev clip."""
    return cut(clips.path("video/vr_face5.mp4"), tmp_path_factory.mktemp("reproduce") / "clip.mkv", 0.0, 3.0)


@pytest.mark.long
@pytest.mark.parametrize("paper", CLAIMS)
def test_claim_is_measured_on_dubs(paper: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUBSTAGE_DATA_DIR", str(tmp_path / "data"))
    assert run(["reproduce", paper, str(clip), "--claim", CLAIMS[paper], "--quick", "--output", str(tmp_path)]) == 0
    document = json.loads((tmp_path / f"{paper}.json").read_text(encoding="utf-8"))
    found = {claim["name"]: claim for claim in document["claims"]}
    (measured,) = [claim for claim in found.values() if claim["measured_on"]]
    assert measured["name"] == CLAIMS[paper]
    assert measured["missing"] == []
    assert measured["verdict"] in {"reproduced", "partly", "not reproduced"}
    assert "clip.mkv" in measured["measured_on"]
    for row, numbers in measured["paper"].items():
        assert set(numbers) <= set(measured["ours"][row])
    page = (tmp_path / f"{paper}.md").read_text(encoding="utf-8")
    assert f"## {CLAIMS[paper]} (" in page
    assert "## Left out" in page
