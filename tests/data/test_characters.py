import numpy as np
import pytest

from kseq.data import CharacterEncoder
from kseq.errors import InputError

encoder = CharacterEncoder("abcdefghijklmnopqrstuvwxyz", 15)


def test_rows_are_numbers_padded_on_the_right():
    np.testing.assert_array_equal(CharacterEncoder("abc", 5)(["cab", "B"]), [[3, 1, 2, 0, 0], [2, 0, 0, 0, 0]])


def test_vocabulary_counts_the_padding():
    assert encoder.vocabulary_size == 27
    assert encoder(["z"]).max() == 26


def test_config_round_trip():
    assert CharacterEncoder(**encoder.get_config()) == encoder


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("", "word '': empty; give 1 to 15 letters"),
        ("a" * 16, r"word 'a{16}': 16 characters; the model reads 1 to 15"),
        ("deep2", "word 'deep2': has '2'"),
        ("déjà", "word 'déjà': has 'é'"),
        ("two words", "has ' '"),
        ("🙂", "word '🙂': has '🙂'"),
        ("\u212a", "has '\u212a'"),  # the Kelvin sign, whose small letter is an ordinary k
        ("a" * 10_000_000, r"word 'a{20}'… \(10,000,000 characters\): 10,000,000 characters"),
    ],
)
def test_words_that_cannot_be_read(word, message):
    with pytest.raises(InputError, match=message) as caught:
        encoder(["fine", word])
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)
