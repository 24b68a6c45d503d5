"""Models of the literature as functions that return a functional `keras.Model`, and their published sizes by name."""

from kseq.models.attention_unet import AttentionUNet
from kseq.models.char_tagger import CharTagger
from kseq.models.conv_lstm_classifier import ConvLSTMClassifier
from kseq.models.conv_lstm_forecaster import ConvLSTMForecaster
from kseq.models.language_model import LanguageModel
from kseq.models.multi_stage_tcn import MultiStageTCN
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
from kseq.models.video_tagger import FrameNetwork, VideoTagger
from kseq.models.vit import ViT

__all__ = [
    "SETR",
    "AttentionUNet",
    "CharTagger",
    "ConvLSTMClassifier",
    "ConvLSTMForecaster",
    "FrameNetwork",
    "LanguageModel",
    "MultiStageTCN",
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
    "VideoTagger",
    "copy_encoder",
    "create",
    "list",
]
