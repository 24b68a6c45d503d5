"""Keras layers: building blocks, one concept a file."""

from kseq.layers.attention import MultiHeadAttention
from kseq.layers.attention_decoder import AttentionDecoder
from kseq.layers.attention_gate import AttentionGate
from kseq.layers.autonomous_conv_lstm import AutonomousConvLSTM
from kseq.layers.class_token import ClassToken
from kseq.layers.conv_lstm import ConvLSTM
from kseq.layers.convolution import Convolution, TransposedConvolution
from kseq.layers.cross_attention_gate import CrossAttentionGate
from kseq.layers.dense import Dense
from kseq.layers.feed_forward import FeedForward
from kseq.layers.frame_encoder import FrameEncoder
from kseq.layers.global_tokens import GlobalAttention, GlobalPositions, GlobalTokens
from kseq.layers.layer_normalization import LayerNormalization
from kseq.layers.linear_resizing import LinearResizing
from kseq.layers.mask_steps import MaskSteps
from kseq.layers.maxout import Maxout
from kseq.layers.non_local_block import NonLocalBlock
from kseq.layers.non_local_upsampling import NonLocalUpsampling
from kseq.layers.normalization import BatchNormalization, GroupNormalization, normalization
from kseq.layers.one_hot import OneHot
from kseq.layers.patch_embedding import PatchEmbedding
from kseq.layers.patch_expanding import PatchExpanding
from kseq.layers.patch_merging import PatchMerging
from kseq.layers.pooling import MaxPooling
from kseq.layers.position_encoding import LearnedPositionEncoding, SinusoidalPositionEncoding
from kseq.layers.prelu import PReLU
from kseq.layers.recurrent import GRU, LSTM, SimpleRNN
from kseq.layers.region_means import RegionMeans
from kseq.layers.reversible_embedding import ReversibleEmbedding
from kseq.layers.sequence_pooling import SequencePooling
from kseq.layers.standardized_convolution import StandardizedConvolution
from kseq.layers.swin_block import SwinBlock
from kseq.layers.temporal_convolution import DilatedResidualLayer
from kseq.layers.transformer_decoder import TransformerDecoderBlock
from kseq.layers.transformer_encoder import TransformerEncoderBlock
from kseq.layers.window_attention import WindowAttention

__all__ = [
    "GRU",
    "LSTM",
    "AttentionDecoder",
    "AttentionGate",
    "AutonomousConvLSTM",
    "BatchNormalization",
    "ClassToken",
    "ConvLSTM",
    "Convolution",
    "CrossAttentionGate",
    "Dense",
    "DilatedResidualLayer",
    "FeedForward",
    "FrameEncoder",
    "GlobalAttention",
    "GlobalPositions",
    "GlobalTokens",
    "GroupNormalization",
    "LayerNormalization",
    "LearnedPositionEncoding",
    "LinearResizing",
    "MaskSteps",
    "MaxPooling",
    "Maxout",
    "MultiHeadAttention",
    "NonLocalBlock",
    "NonLocalUpsampling",
    "OneHot",
    "PReLU",
    "PatchEmbedding",
    "PatchExpanding",
    "PatchMerging",
    "RegionMeans",
    "ReversibleEmbedding",
    "SequencePooling",
    "SimpleRNN",
    "SinusoidalPositionEncoding",
    "StandardizedConvolution",
    "SwinBlock",
    "TransformerDecoderBlock",
    "TransformerEncoderBlock",
    "TransposedConvolution",
    "WindowAttention",
    "normalization",
]
