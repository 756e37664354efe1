"""The card of a run."""

from __future__ import annotations

from services.training.card import card, licence_table
from services.training.run_folder import Progress
from services.training.trainset.manifest import ClipRow


def clip(name: str, speaker: str, source: str, licence: str, seconds: float, phones: str = "") -> ClipRow:
    return ClipRow(
        name=name, shard="00000", file=name, sha256="", source=source, speaker=speaker, split="train", licence=licence,
        seconds=seconds, phones=phones,
    )  # fmt: skip


CLIPS = [
    clip("a", "ann", "films", "CC BY 4.0", 60.0, "aligned"),
    clip("b", "ann", "films", "CC BY 4.0", 30.0, "network"),
    clip("c", "bob", "films", "CC BY 4.0", 30.0, "aligned"),
    clip("d", "eve", "talks", "", 90.0),
]


def test_clips_are_counted_by_source_and_licence() -> None:
    assert licence_table(CLIPS)[2:4] == ["| films | CC BY 4.0 | 3 | 2 | 2.0 |", "| talks | unknown | 1 | 1 | 1.5 |"]


def test_the_card_tells_what_was_learned_from_and_what_was_kept() -> None:
    config = {"network": "tiny", "config": {"loop": {"seed": 5}, "width": 3}}
    text = card("tiny", config, CLIPS, Progress(step=40, best_step=30, best_score=0.5, figures={"error": 0.25}))
    for line in (
        "# tiny",
        "| clips learned from | 4, 3.5 minutes |",
        "| speakers | 3 |",
        "| phone labels | aligned: 2 clips, network: 1 clips |",
        "| steps | 40 |",
        "| kept step | 30, chosen by score 0.5000 |",
        "| seed | 5 |",
        "| error | 0.25 |",
        ' "width": 3',
    ):
        assert line in text.splitlines()


def test_a_run_without_scores_keeps_the_last_step() -> None:
    text = card("tiny", {"network": "tiny", "config": {"loop": {"seed": 0}}}, [], Progress(step=4, best_step=4))
    assert "| kept step | the last step |" in text
    assert "phone labels" not in text
