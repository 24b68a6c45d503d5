"""Data sets (embedded ones and loaders of public ones), the encoding of raw inputs, and batching.

Everything is NumPy; only `Batches` and `PaddedVideos`, which are `keras.utils.PyDataset`, and the sets that Keras
downloads need Keras.
"""

from kseq.data.adding_problem import ENTRY as _ADDING_PROBLEM
from kseq.data.adding_problem import adding_problem
from kseq.data.augmentation import RandomAffine
from kseq.data.austen import ENTRY as _AUSTEN
from kseq.data.austen import austen
from kseq.data.brain_slices import ENTRY as _BRAIN_SLICES
from kseq.data.brain_slices import brain_slices
from kseq.data.characters import CharacterEncoder
from kseq.data.cholec80 import ENTRY as _CHOLEC80
from kseq.data.cholec80 import Cholec80, PhaseVideo, PhaseVideos, cholec80
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
from kseq.data.moving_digits import ENTRY as _MOVING_DIGITS
from kseq.data.moving_digits import MovingDigits, moving_digits
from kseq.data.nuclei import ENTRY as _NUCLEI
from kseq.data.nuclei import nuclei
from kseq.data.parts_of_speech import ENTRY as _PARTS_OF_SPEECH
from kseq.data.parts_of_speech import ambiguous_words, parts_of_speech
from kseq.data.real_clips import ENTRY as _ARROW_OF_TIME
from kseq.data.real_clips import arrow_of_time, real_clips
from kseq.data.segmentation_augmentation import SegmentationAugmentation
from kseq.data.segmentation_set import SegmentationSet
from kseq.data.synapse import ENTRY as _SYNAPSE
from kseq.data.synapse import Synapse, synapse
from kseq.data.text_files import TATOEBA as _TATOEBA
from kseq.data.text_files import Corpus, Pairs, ParallelCorpus, read_pairs, read_text, tatoeba
from kseq.data.tokenizer import END, PADDING, START, UNKNOWN, Tokenizer
from kseq.data.verses import ENTRY as _VERSES
from kseq.data.verses import Verses, verses
from kseq.data.videos import Video, read_video, video_clips
from kseq.data.volumes import Volume, read_volume, window
from kseq.data.workflow_model import WorkflowModel, bayes_accuracy, expected_accuracy
from kseq.data.workflow_videos import ENTRY as _WORKFLOW_VIDEOS
from kseq.data.workflow_videos import WorkflowVideos, procedure_model, workflow_videos
from kseq.data.write_video import write_video

__all__ = [
    "CATALOGUE",
    "END",
    "PADDING",
    "START",
    "UNKNOWN",
    "Batches",
    "Cases",
    "CharacterEncoder",
    "Cholec80",
    "ContextPhantoms",
    "Corpus",
    "DataSet",
    "Decathlon",
    "Entry",
    "ImageEncoder",
    "MovieReviews",
    "MovingDigits",
    "PaddedVideos",
    "Pairs",
    "ParallelCorpus",
    "PhaseVideo",
    "PhaseVideos",
    "RandomAffine",
    "Sample",
    "SegmentationAugmentation",
    "SegmentationSet",
    "Synapse",
    "Tokenizer",
    "Verses",
    "Video",
    "Volume",
    "WorkflowModel",
    "WorkflowVideos",
    "adding_problem",
    "ambiguous_words",
    "arrow_of_time",
    "austen",
    "bayes_accuracy",
    "brain_slices",
    "btcv",
    "check_labels",
    "cholec80",
    "cifar10",
    "context_phantoms",
    "decathlon",
    "download",
    "expected_accuracy",
    "fashion_mnist",
    "handwritten_digits",
    "image_pairs",
    "imdb",
    "med_mnist",
    "movie_reviews",
    "moving_digits",
    "nuclei",
    "parts_of_speech",
    "procedure_model",
    "read_pairs",
    "read_text",
    "read_video",
    "read_volume",
    "real_clips",
    "small_digits",
    "synapse",
    "tatoeba",
    "verses",
    "video_clips",
    "window",
    "workflow_videos",
    "write_video",
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
    _MOVING_DIGITS,
    _WORKFLOW_VIDEOS,
    _ARROW_OF_TIME,
    _CHOLEC80,
    _IMDB,
    _TATOEBA,
)


def __getattr__(name: str):
    # Imported on use: reading data must not load Keras.
    if name == "Batches":
        from kseq.data.batches import Batches

        return Batches
    if name == "PaddedVideos":
        from kseq.data.padded_videos import PaddedVideos

        return PaddedVideos
    raise AttributeError(f"module 'kseq.data' has no attribute {name!r}; it has {', '.join(__all__)}")
