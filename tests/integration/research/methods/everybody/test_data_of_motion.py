"""The closed-form filter of a narrow corpus."""

from dataclasses import replace

import numpy as np
import pytest

from research.methods.everybody.motion import fit_filter, prepare, windows_of, without_its_corpus
from tests.unit.motion.made_clips import in_memory, made_clip
from tests.unit.research.methods.everybody.test_motion import CONFIG, SILENCE, SPACE


@pytest.mark.long
def test_narrow_corpus_expression() -> None:
    """The expression of a narrow corpus lacks what holds in the corpus alone."""
    narrow = replace(made_clip(0), apart="commands")
    fitted_to = fit_filter(in_memory([narrow, made_clip(2)]), SPACE, SILENCE, CONFIG)
    with_corpus, elsewhere = prepare(narrow, SPACE, SILENCE), prepare(made_clip(2), SPACE, SILENCE)
    windows = windows_of(with_corpus.rows).reshape(len(narrow), -1)
    alone = fitted_to.apart["commands"](windows)
    found = without_its_corpus(with_corpus, fitted_to)
    assert np.abs(alone).max() > 0.01
    np.testing.assert_allclose(found.expression + alone, with_corpus.expression, atol=1e-5)
    assert without_its_corpus(elsewhere, fitted_to) is elsewhere
