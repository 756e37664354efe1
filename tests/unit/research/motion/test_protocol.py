"""The evaluation protocol."""

from __future__ import annotations

from research.motion.protocol import folds


def test_folds_never_test_on_what_was_enrolled_but_for_very_short_clips() -> None:
    for length in (125, 300, 600):
        for fold in folds(length):
            enrolled, tested = set(range(length)[fold.enrolment]), set(range(length)[fold.test])
            assert enrolled
            assert tested
            assert not enrolled & tested
