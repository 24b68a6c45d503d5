"""Sentences from film reviews that people rated: the data of the sentiment classifier."""

import lzma
from dataclasses import dataclass
from importlib import resources

import numpy as np

from kseq.data.dataset import DataSet, Entry

CLASS_NAMES = ("negative", "positive")

ENTRY = Entry(
    name="movie_reviews",
    task="sentence → sentiment",
    size="9,173 clear sentences of 10,568, 2 classes",
    source="Hutto & Gilbert 2014, embedded",
    licence="MIT",
)


@dataclass(frozen=True)
class MovieReviews(DataSet):
    """A `DataSet` of sentences that knows how they were rated.

    Attributes:
        ratings: for the sentences of `train`, `validation` and `test` the mean of their ratings by people, from -4,
            extremely negative, to 4, extremely positive; float32 arrays of shape `(sentences,)`.
    """

    ratings: tuple[np.ndarray, np.ndarray, np.ndarray]


def movie_reviews(clear: bool = True) -> MovieReviews:
    """Sentences from film reviews, positive or negative by the sign of their mean rating, in a fixed split.

    At least 20 people rated each sentence from -4 to 4. The split is 7,338/916/919 for the 9,173 clear sentences, and
    8,454/1,056/1,058 for all 10,568, stratified by class; the clear ones are in the same splits there. 37 sentences
    whose mean is 0 are left out. Sentences that differ only in case, spaces and punctuation are in the same split.

    The sentences are numbered and nothing else is known of them: which review or film each is about is not recorded,
    so sentences on the same film can be in different splits. Hyphens and dashes are lost in the source, which cuts
    texts off at 257 characters.

    Source: Hutto & Gilbert, "VADER: A parsimonious rule-based model for sentiment analysis of social media text",
    ICWSM 2014, from reviews on rottentomatoes.com collected by Pang & Lee.

    Args:
        clear: whether to leave out sentences whose mean rating is between -1 and 1.

    Returns:
        A `MovieReviews` whose inputs are object arrays of strings `(sentences,)`, targets indices into
        `("negative", "positive")`.
    """
    compressed = resources.files("kseq.data").joinpath("files/movie_reviews.tsv.xz").read_bytes()
    rows = [line.split("\t") for line in lzma.decompress(compressed).decode().split("\n")[:-1]]
    texts = np.array([text for _, _, text in rows], dtype=object)
    ratings = np.array([rating for _, rating, _ in rows], dtype="float32")
    kept = np.abs(ratings) >= 1 if clear else ratings != 0
    letters = np.array([letter for letter, _, _ in rows])
    parts = [kept & (letters == letter) for letter in "tve"]
    splits = ((texts[part], (ratings[part] > 0).astype("int32")) for part in parts)
    source = f"{ENTRY.source}; licence: {ENTRY.licence}"
    return MovieReviews(*splits, CLASS_NAMES, source, tuple(ratings[part] for part in parts))
