"""Data sets (embedded ones and loaders of public ones), the encoding of raw inputs, and batching.

Everything is NumPy; only `Batches`, a `keras.utils.PyDataset`, and the sets that Keras downloads need Keras.
"""

from kseq.data.adding_problem import ENTRY as _ADDING_PROBLEM
from kseq.data.adding_problem import adding_problem
from kseq.data.augmentation import RandomAffine
from kseq.data.austen import ENTRY as _AUSTEN
from kseq.data.austen import austen
from kseq.data.brain_slices import ENTRY as _BRAIN_SLICES
from kseq.data.brain_slices import brain_slices
from kseq.data.characters import CharacterEncoder
from kseq.data.context_phantoms import ENTRY as _CONTEXT_PHANTOMS
from kseq.data.context_phantoms import ContextPhantoms, context_phantoms
from kseq.data.dataset import DataSet, Entry
from kseq.data.decathlon import ENTRY as _DECATHLON
from kseq.data.decathlon import Decathlon, decathlon
from kseq.data.download import download
from kseq.data.handwritten_digits import ENTRY as _HANDWRITTEN_DIGITS
from kseq.data.handwritten_digits import handwritten_digits
from kseq.data.image_pairs import image_pairs
from kseq.data.image_sets import CIFAR10 as _CIFAR10
from kseq.data.image_sets import FASHION_MNIST as _FASHION_MNIST
from kseq.data.image_sets import SMALL_DIGITS as _SMALL_DIGITS
from kseq.data.image_sets import cifar10, fashion_mnist, small_digits
from kseq.data.images import ImageEncoder
from kseq.data.imdb import ENTRY as _IMDB
from kseq.data.imdb import imdb
from kseq.data.labels import check_labels
from kseq.data.med_mnist import ENTRY as _MED_MNIST
from kseq.data.med_mnist import med_mnist
from kseq.data.medical_folders import BTCV as _BTCV
from kseq.data.medical_folders import Cases, Sample, btcv
from kseq.data.movie_reviews import ENTRY as _MOVIE_REVIEWS
from kseq.data.movie_reviews import MovieReviews, movie_reviews
from kseq.data.nuclei import ENTRY as _NUCLEI
from kseq.data.nuclei import nuclei
from kseq.data.parts_of_speech import ENTRY as _PARTS_OF_SPEECH
from kseq.data.parts_of_speech import ambiguous_words, parts_of_speech
from kseq.data.segmentation_augmentation import SegmentationAugmentation
from kseq.data.segmentation_set import SegmentationSet
from kseq.data.synapse import ENTRY as _SYNAPSE
from kseq.data.synapse import Synapse, synapse
from kseq.data.text_files import TATOEBA as _TATOEBA
from kseq.data.text_files import Corpus, Pairs, ParallelCorpus, read_pairs, read_text, tatoeba
from kseq.data.tokenizer import END, PADDING, START, UNKNOWN, Tokenizer
from kseq.data.verses import ENTRY as _VERSES
from kseq.data.verses import Verses, verses
from kseq.data.volumes import Volume, read_volume, window

__all__ = [
    "CATALOGUE",
    "END",
    "PADDING",
    "START",
    "UNKNOWN",
    "Batches",
    "Cases",
    "CharacterEncoder",
    "ContextPhantoms",
    "Corpus",
    "DataSet",
    "Decathlon",
    "Entry",
    "ImageEncoder",
    "MovieReviews",
    "Pairs",
    "ParallelCorpus",
    "RandomAffine",
    "Sample",
    "SegmentationAugmentation",
    "SegmentationSet",
    "Synapse",
    "Tokenizer",
    "Verses",
    "Volume",
    "adding_problem",
    "ambiguous_words",
    "austen",
    "brain_slices",
    "btcv",
    "check_labels",
    "cifar10",
    "context_phantoms",
    "decathlon",
    "download",
    "fashion_mnist",
    "handwritten_digits",
    "image_pairs",
    "imdb",
    "med_mnist",
    "movie_reviews",
    "nuclei",
    "parts_of_speech",
    "read_pairs",
    "read_text",
    "read_volume",
    "small_digits",
    "synapse",
    "tatoeba",
    "verses",
    "window",
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
    _BRAIN_SLICES,
    _CONTEXT_PHANTOMS,
    _NUCLEI,
    _MED_MNIST,
    _SYNAPSE,
    _BTCV,
    _DECATHLON,
    _IMDB,
    _TATOEBA,
)


def __getattr__(name: str):
    if name == "Batches":  # imported on use: reading data must not load Keras
        from kseq.data.batches import Batches

        return Batches
    raise AttributeError(f"module 'kseq.data' has no attribute {name!r}; it has {', '.join(__all__)}")
