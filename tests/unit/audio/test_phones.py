from services.audio.train.visemes import BILABIALS, VISEME_OF_PHONE, VISEMES
from services.common.wire.phones import NUM_PHONES, PHONE_INDEX, PHONES, SILENCE


def test_there_are_39_phones_and_silence_first() -> None:
    assert NUM_PHONES == len(set(PHONES)) == 40
    assert PHONES[SILENCE] == "SIL"
    assert all(PHONES[index] == phone for phone, index in PHONE_INDEX.items())


def test_every_phone_has_exactly_one_mouth_shape() -> None:
    assert sorted(phone for group in VISEMES.values() for phone in group) == sorted(PHONES)
    names = tuple(VISEMES)
    assert all(phone in VISEMES[names[VISEME_OF_PHONE[index]]] for index, phone in enumerate(PHONES))


def test_p_b_m_look_alike() -> None:
    assert len({VISEME_OF_PHONE[PHONE_INDEX[phone]] for phone in BILABIALS}) == 1
