"""Phone labels of real sentences, and what becomes of transcripts that cannot be used."""

import numpy as np
import pytest

from research.audio import labelling as sphinx_module
from research.audio.labelling import Sphinx, label, words_of
from research.audio.recordings import IGNORED, WordSpan
from services.common.array_types import Float32
from services.common.wire.phones import PHONE_INDEX

SAID = "Hello, and welcome."


@pytest.fixture(scope="module")
def sphinx() -> Sphinx:
    return Sphinx()


@pytest.fixture
def hello(speech: Float32) -> Float32:
    return speech[:24000]


def test_transcript_words_and_times(sphinx: Sphinx, hello: Float32) -> None:
    """A transcript is aligned, words are recognised where there is none, and given times that do not fit are left out."""
    found = label(sphinx, hello, SAID, ())
    assert (found.origin, found.reason) == ("aligned", "")
    assert len(found.labels) == len(found.free_phones) == 150
    spoken = [phone for index, phone in enumerate(found.labels) if phone and (index == 0 or found.labels[index - 1] != phone)]
    names = [name for phone in spoken for name, number in PHONE_INDEX.items() if number == phone]
    assert "".join(names).endswith("WEHLKAHM")
    found, told = label(sphinx, hello, "", ()), label(sphinx, hello, SAID, ())
    assert (found.origin, found.reason) == ("recognised", "")
    known = found.labels != IGNORED
    assert (found.labels == told.labels)[known].mean() > 0.7
    late = tuple(WordSpan(word, 1.3 + 0.05 * index, 1.35 + 0.05 * index) for index, word in enumerate(words_of(SAID)))
    found = label(sphinx, hello, SAID, late)
    assert found.origin == "recognised"
    assert "given times" in found.reason


def test_labels_do_not_depend_on_the_clips_before(sphinx: Sphinx, speech: Float32) -> None:
    sphinx.allphone(0.1 * np.random.default_rng(1).standard_normal(8000).astype(np.float32))
    found, alone = label(sphinx, speech[:24000], SAID, ()), label(Sphinx(), speech[:24000], SAID, ())
    assert found.labels.tobytes() == alone.labels.tobytes()
    assert found.free_phones.tobytes() == alone.free_phones.tobytes()


def test_unknown_word_skipped_with_reason(sphinx: Sphinx, hello: Float32, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transcript with an unknown word is left out with the reason."""
    monkeypatch.setattr(sphinx_module, "flite_pronunciation", lambda _word: "")
    found = label(sphinx, hello, "Hello, and welkommen.", ())
    assert found.origin == "recognised"
    assert "welkommen" in found.reason
    assert "English word" in label(sphinx, hello, "здравствуйте", ()).reason


def test_sound_without_words_is_heard_by_free_recognition(sphinx: Sphinx) -> None:
    noise = 0.05 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    found = label(sphinx, noise, "", ())
    assert found.origin == "allphone"
    assert found.labels.tobytes() == found.free_phones.tobytes()
