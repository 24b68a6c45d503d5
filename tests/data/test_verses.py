import re
import unicodedata
from importlib import resources

import numpy as np
import pytest

from kseq import data
from kseq.errors import InputError


def splits(verses):
    return (verses.train, verses.validation, verses.test)


def test_sizes_and_lengths():
    verses = data.verses("en", "fr")
    assert [len(sources) for sources, _ in splits(verses)] == [10_435, 515, 609]
    for pairs, references in zip(splits(verses), verses.references, strict=True):
        assert len(pairs[0]) == len(pairs[1]) == len(references)
        assert all(side.dtype == object for side in pairs)
        for english, french in zip(*pairs, strict=True):
            short, long = sorted((len(english.split()), len(french.split())))
            assert 2 <= short <= long <= min(20, 2.5 * short)


def test_no_chapter_is_in_two_splits():
    train, validation, test = ({name.split(":")[0] for name in part} for part in data.verses().references)
    assert train.isdisjoint(validation | test)
    assert validation.isdisjoint(test)
    assert len({name.rpartition(" ")[0] for name in train}) == 66  # books


@pytest.mark.parametrize("side", [0, 1])
def test_no_sentence_of_either_language_is_in_two_splits(side):
    train, validation, test = (
        {" ".join(re.findall(r"\w+", text.lower())) for text in pairs[side]} for pairs in splits(data.verses())
    )
    assert train.isdisjoint(validation | test)
    assert validation.isdisjoint(test)


def test_known_verses():
    verses = data.verses()
    known = {
        reference: pair
        for pairs, references in zip(splits(verses), verses.references, strict=True)
        for reference, *pair in zip(references, *pairs, strict=True)
    }
    assert known["Genesis 1:3"] == [
        "God said, Let there be light, and there was light.",
        "Dieu dit: Que la lumière soit! Et la lumière fut.",
    ]
    assert known["John 1:11"] == [
        "He came to his own, and those who were his own didn't receive him.",
        "Elle est venue chez les siens, et les siens ne l'ont point reçue.",
    ]
    assert known["Psalms 41:1"][1].startswith("Heureux celui qui s'intéresse au pauvre!")  # the heading is gone
    assert known["Job 42:17"][0] == "So Job died, being old and full of days."  # so is that of the next psalm
    assert "Psalms 23:1" not in known  # its heading is not marked off in the source
    assert not any(name.startswith("Psalms 13:") for name in known)  # is numbered differently
    assert known["Song of Solomon 4:15"][0].endswith("Flowing streams from Lebanon.")  # the speaker's name is gone


def test_the_other_direction_has_the_same_splits():
    forth, back = data.verses("en", "fr"), data.verses("fr", "en")
    assert (forth.languages, back.languages) == (("en", "fr"), ("fr", "en"))
    for one, other in zip(splits(forth), splits(back), strict=True):
        np.testing.assert_array_equal(one[0], other[1])
        np.testing.assert_array_equal(one[1], other[0])


@pytest.mark.parametrize("languages", [("en", "de"), ("en", "en"), ("fr", "fr"), ("EN", "FR")])
def test_other_languages_are_refused(languages):
    with pytest.raises(InputError, match="are allowed"):
        data.verses(*languages)


def test_the_text_is_clean():
    for pairs in splits(data.verses()):
        for text in np.concatenate(pairs):
            assert re.fullmatch(r"[\w .,;:!?'()-]+", text), text
            assert not re.search(r"\d+:\d+|Psalm \d|  |[\[\]_]", text), text
            assert text == unicodedata.normalize("NFC", text.strip())


def test_the_file_is_small_and_its_licence_is_beside_it():
    files = resources.files("kseq.data").joinpath("files")
    assert len(files.joinpath("verses.tsv.xz").read_bytes()) < 600_000
    assert "Both translations are in the public domain." in files.joinpath("verses.LICENSE").read_text()
