"""Verses of the Bible in English and French: the data of the translators."""

import lzma
from dataclasses import dataclass
from importlib import resources

import numpy as np

from kseq.data.dataset import Entry
from kseq.data.text_files import ParallelCorpus
from kseq.errors import InputError

LANGUAGES = ("en", "fr")

ENTRY = Entry(
    name="verses",
    task="English ↔ French",
    size="11,559 verses of 2–20 words",
    source="World English Bible and Segond 1910, embedded",
    licence="public domain",
)


@dataclass(frozen=True)
class Verses(ParallelCorpus):
    """A `ParallelCorpus` of verses that knows where they stand.

    Attributes:
        references: for the pairs of `train`, `validation` and `test` book, chapter and verse ("Genesis 1:3"), arrays
            of shape `(pairs,)`.
    """

    references: tuple[np.ndarray, np.ndarray, np.ndarray]


def verses(source: str = "en", target: str = "fr") -> Verses:
    """Verses of the World English Bible and the same ones of Louis Segond's Bible of 1910, 10,435/515/609 pairs.

    Both numbers of words are from 2 to 20 and differ by a factor of at most 2.5. The split is by chapter: none has
    verses in two splits. A verse whose letters and digits, without case, stand in the test split is in no other, in
    neither language, and one of the validation split is not in the training split. Passages that tell the same in
    other words (the Gospels, Kings and Chronicles) are not kept apart.

    Quotation marks, headings and dashes before speech are left out. The translations are free in places, and a few
    verses begin or end elsewhere in the other Bible.

    Args:
        source: the language to translate from, "en" or "fr".
        target: the other one.

    Returns:
        A `Verses`, whose splits are pairs of object arrays of strings.

    Raises:
        InputError: for other languages.
    """
    if (source, target) not in (LANGUAGES, LANGUAGES[::-1]):
        raise InputError(f'languages {source!r}, {target!r}: "en", "fr" and "fr", "en" are allowed')
    compressed = resources.files("kseq.data").joinpath("files/verses.tsv.xz").read_bytes()
    rows = np.array([line.split("\t") for line in lzma.decompress(compressed).decode().split("\n")[:-1]], dtype=object)
    columns = [2 + LANGUAGES.index(language) for language in (source, target)]
    parts = [rows[rows[:, 0] == letter] for letter in "tve"]
    splits = (tuple(part[:, column] for column in columns) for part in parts)
    licence = f"{ENTRY.source}; licence: {ENTRY.licence}"
    return Verses(*splits, (source, target), licence, tuple(part[:, 1] for part in parts))
