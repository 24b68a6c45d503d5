"""Keras layers: building blocks, one concept a file."""

from kseq.layers.attention import MultiHeadAttention
from kseq.layers.attention_decoder import AttentionDecoder
from kseq.layers.class_token import ClassToken
from kseq.layers.dense import Dense
from kseq.layers.feed_forward import FeedForward
from kseq.layers.layer_normalization import LayerNormalization
from kseq.layers.maxout import Maxout
from kseq.layers.one_hot import OneHot
from kseq.layers.patch_embedding import PatchEmbedding
from kseq.layers.position_encoding import LearnedPositionEncoding, SinusoidalPositionEncoding
from kseq.layers.recurrent import GRU, LSTM, SimpleRNN
from kseq.layers.reversible_embedding import ReversibleEmbedding
from kseq.layers.sequence_pooling import SequencePooling
from kseq.layers.transformer_decoder import TransformerDecoderBlock
from kseq.layers.transformer_encoder import TransformerEncoderBlock

__all__ = [
    "GRU",
    "LSTM",
    "AttentionDecoder",
    "ClassToken",
    "Dense",
    "FeedForward",
    "LayerNormalization",
    "LearnedPositionEncoding",
    "Maxout",
    "MultiHeadAttention",
    "OneHot",
    "PatchEmbedding",
    "ReversibleEmbedding",
    "SequencePooling",
    "SimpleRNN",
    "SinusoidalPositionEncoding",
    "TransformerDecoderBlock",
    "TransformerEncoderBlock",
]
