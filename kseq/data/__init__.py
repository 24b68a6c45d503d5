"""Data sets (embedded ones and loaders of public ones), the encoding of raw inputs, and batching.

Everything is NumPy; only `Batches`, a `keras.utils.PyDataset`, and the sets that Keras downloads need Keras.
"""

from kseq.data.adding_problem import ENTRY as _ADDING_PROBLEM
from kseq.data.adding_problem import adding_problem
from kseq.data.augmentation import RandomAffine
from kseq.data.austen import ENTRY as _AUSTEN
from kseq.data.austen import austen
from kseq.data.characters import CharacterEncoder
from kseq.data.dataset import DataSet, Entry
from kseq.data.download import download
from kseq.data.handwritten_digits import ENTRY as _HANDWRITTEN_DIGITS
from kseq.data.handwritten_digits import handwritten_digits
from kseq.data.image_sets import CIFAR10 as _CIFAR10
from kseq.data.image_sets import FASHION_MNIST as _FASHION_MNIST
from kseq.data.image_sets import SMALL_DIGITS as _SMALL_DIGITS
from kseq.data.image_sets import cifar10, fashion_mnist, small_digits
from kseq.data.images import ImageEncoder
from kseq.data.imdb import ENTRY as _IMDB
from kseq.data.imdb import imdb
from kseq.data.movie_reviews import ENTRY as _MOVIE_REVIEWS
from kseq.data.movie_reviews import MovieReviews, movie_reviews
from kseq.data.parts_of_speech import ENTRY as _PARTS_OF_SPEECH
from kseq.data.parts_of_speech import ambiguous_words, parts_of_speech
from kseq.data.text_files import TATOEBA as _TATOEBA
from kseq.data.text_files import Corpus, Pairs, ParallelCorpus, read_pairs, read_text, tatoeba
from kseq.data.tokenizer import END, PADDING, START, UNKNOWN, Tokenizer
from kseq.data.verses import ENTRY as _VERSES
from kseq.data.verses import Verses, verses

__all__ = [
    "CATALOGUE",
    "END",
    "PADDING",
    "START",
    "UNKNOWN",
    "Batches",
    "CharacterEncoder",
    "Corpus",
    "DataSet",
    "Entry",
    "ImageEncoder",
    "MovieReviews",
    "Pairs",
    "ParallelCorpus",
    "RandomAffine",
    "Tokenizer",
    "Verses",
    "adding_problem",
    "ambiguous_words",
    "austen",
    "cifar10",
    "download",
    "fashion_mnist",
    "handwritten_digits",
    "imdb",
    "movie_reviews",
    "parts_of_speech",
    "read_pairs",
    "read_text",
    "small_digits",
    "tatoeba",
    "verses",
]

CATALOGUE: tuple[Entry, ...] = (
    _PARTS_OF_SPEECH,
    _ADDING_PROBLEM,
    _HANDWRITTEN_DIGITS,
    _SMALL_DIGITS,
    _FASHION_MNIST,
    _CIFAR10,
    _MOVIE_REVIEWS,
    _AUSTEN,
    _VERSES,
    _IMDB,
    _TATOEBA,
)


def __getattr__(name: str):
    if name == "Batches":  # imported on use: reading data must not load Keras
        from kseq.data.batches import Batches

        return Batches
    raise AttributeError(f"module 'kseq.data' has no attribute {name!r}; it has {', '.join(__all__)}")
