"""Models of the literature as functions that return a functional `keras.Model`, and their published sizes by name."""

from kseq.models.char_tagger import CharTagger
from kseq.models.language_model import LanguageModel
from kseq.models.recurrent_translator import RecurrentTranslator
from kseq.models.registry import Variant, create, list
from kseq.models.text_classifier import TextClassifier
from kseq.models.token_encoder import copy_encoder
from kseq.models.transformer_translator import TransformerTranslator
from kseq.models.vit import ViT

__all__ = [
    "CharTagger",
    "LanguageModel",
    "RecurrentTranslator",
    "TextClassifier",
    "TransformerTranslator",
    "Variant",
    "ViT",
    "copy_encoder",
    "create",
    "list",
]
