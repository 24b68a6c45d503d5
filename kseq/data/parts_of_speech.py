"""English words and their part of speech: the data of the character tagger."""

import lzma
from importlib import resources

import numpy as np

from kseq.data.dataset import Arrays, DataSet, Entry

CLASS_NAMES = ("noun", "verb", "adjective", "adverb")

ENTRY = Entry(
    name="parts_of_speech",
    task="word → part of speech",
    size="69,263 words, 4 classes",
    source="WordNet 3.0 (Princeton University), embedded",
    licence="WordNet 3.0",
)


def parts_of_speech() -> DataSet:
    """English words of 3–15 letters (a–z) that have exactly one part of speech in WordNet 3.0.

    69,263 lemmas: 47,553 nouns, 14,399 adjectives, 4,231 verbs, 3,080 adverbs, in a fixed split of 80/10/10
    stratified by class. Words with several parts of speech ("deep", "run") are not among them.

    Returns:
        A `DataSet` whose inputs are arrays of strings of shape `(words,)`, targets indices into
        `("noun", "verb", "adjective", "adverb")`.
    """
    train, validation, test = (_read(split) for split in "tve")
    return DataSet(train, validation, test, CLASS_NAMES, f"{ENTRY.source}; licence: {ENTRY.licence}")


def ambiguous_words() -> Arrays:
    """English words with several parts of speech, and the one in which they are mostly used.

    3,759 words, none of them in `parts_of_speech()`, of which one part of speech makes up at least two thirds of the
    occurrences that WordNet 3.0 counted in tagged text ("deep" is an adjective in 62 of 65).

    Returns:
        Words `(words,)` and indices into the classes of `parts_of_speech()`, `(words,)`.
    """
    return _read("m")


def _read(split: str) -> Arrays:
    compressed = resources.files("kseq.data").joinpath("files/parts_of_speech.txt.xz").read_bytes()
    rows = (line.split() for line in lzma.decompress(compressed).decode().splitlines())
    words, letters = zip(*((word, letter) for word, letter, of in rows if of == split), strict=True)
    return np.array(words), np.array(["nvar".index(letter) for letter in letters], dtype="int32")
