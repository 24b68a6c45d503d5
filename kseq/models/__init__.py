"""Models of the literature as functions that return a functional `keras.Model`, and their published sizes by name."""

from kseq.models.char_tagger import CharTagger
from kseq.models.registry import Variant, create, list
from kseq.models.vit import ViT

__all__ = ["CharTagger", "Variant", "ViT", "create", "list"]
