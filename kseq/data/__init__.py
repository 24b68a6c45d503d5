"""Data sets (embedded ones and loaders of public ones), the encoding of raw inputs, and batching.

Everything is NumPy; only `Batches`, a `keras.utils.PyDataset`, needs Keras.
"""

from kseq.data.adding_problem import ENTRY as _ADDING_PROBLEM
from kseq.data.adding_problem import adding_problem
from kseq.data.characters import CharacterEncoder
from kseq.data.dataset import DataSet, Entry
from kseq.data.parts_of_speech import ENTRY as _PARTS_OF_SPEECH
from kseq.data.parts_of_speech import ambiguous_words, parts_of_speech

__all__ = [
    "CATALOGUE",
    "Batches",
    "CharacterEncoder",
    "DataSet",
    "Entry",
    "adding_problem",
    "ambiguous_words",
    "parts_of_speech",
]

CATALOGUE: tuple[Entry, ...] = (_PARTS_OF_SPEECH, _ADDING_PROBLEM)


def __getattr__(name: str):
    if name == "Batches":  # imported on use: reading data must not load Keras
        from kseq.data.batches import Batches

        return Batches
    raise AttributeError(f"module 'kseq.data' has no attribute {name!r}; it has {', '.join(__all__)}")
