"""Models of the literature as functions that return a functional `keras.Model`, and their published sizes by name."""

from kseq.models.attention_unet import AttentionUNet
from kseq.models.char_tagger import CharTagger
from kseq.models.language_model import LanguageModel
from kseq.models.recurrent_translator import RecurrentTranslator
from kseq.models.registry import Variant, create, list
from kseq.models.residual_unet import ResidualUNet
from kseq.models.setr import SETR
from kseq.models.swin import Swin
from kseq.models.swin_unet import SwinUnet
from kseq.models.text_classifier import TextClassifier
from kseq.models.token_encoder import copy_encoder
from kseq.models.transformer_translator import TransformerTranslator
from kseq.models.transunet import TransUNet
from kseq.models.u_transformer import UTransformer
from kseq.models.unet import UNet
from kseq.models.upernet import UPerNet
from kseq.models.vit import ViT

__all__ = [
    "SETR",
    "AttentionUNet",
    "CharTagger",
    "LanguageModel",
    "RecurrentTranslator",
    "ResidualUNet",
    "Swin",
    "SwinUnet",
    "TextClassifier",
    "TransUNet",
    "TransformerTranslator",
    "UNet",
    "UPerNet",
    "UTransformer",
    "Variant",
    "ViT",
    "copy_encoder",
    "create",
    "list",
]
